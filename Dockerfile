# The image of ryla-serve. It has three targets: `cpu`, which runs the demo without a network, `gpu`,
# and `load`, which is `cpu` with Locust and the load test.
# The base is Debian 12, which has Python 3.11.
#
#   podman build --target cpu -t ryla-serve:cpu .      # or docker build
#   podman run --rm -p 8000:8000 ryla-serve:cpu        # the demo on port 8000
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM base AS builder
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
# The runtime cannot keep compiled modules where its root is read-only, and each of Ray's processes
# would compile its libraries anew.
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_HTTP_TIMEOUT=300 UV_COMPILE_BYTECODE=1
# For a proxy with its own certificates: mount them into the build and name the bundle here.
ARG SSL_CERT_FILE
COPY constraints /src/constraints
RUN python3 -m venv --without-pip /opt/venv \
 && python3 -m venv /opt/uv && PIP_CERT=${SSL_CERT_FILE:-} /opt/uv/bin/pip install --quiet --no-cache-dir --constraint /src/constraints/constraints.txt uv
COPY pyproject.toml /src/
WORKDIR /src

# PyPI has PyTorch's CUDA build for Linux. `--build-arg TORCH_BACKEND=cpu` installs the smaller CPU
# build instead, if PyTorch's own index can be reached.
FROM builder AS cpu-packages
ARG SSL_CERT_FILE
ARG TORCH_BACKEND=
RUN /opt/uv/bin/uv pip install --quiet --python /opt/venv/bin/python -r pyproject.toml --extra s3 --extra gcs ${TORCH_BACKEND:+--torch-backend ${TORCH_BACKEND}} \
      --constraint constraints/constraints.txt --constraint constraints/hashes.txt --overrides constraints/overrides-cpu-image.txt \
 # The CUDA build needs libcudnn.so.9 to load, but not the engines behind it, nor any headers.
 && rm -rf /opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn_* \
      /opt/venv/lib/python3.11/site-packages/nvidia/*/include

FROM builder AS gpu-packages
ARG SSL_CERT_FILE
RUN /opt/uv/bin/uv pip install --quiet --python /opt/venv/bin/python -r pyproject.toml --extra gpu --extra s3 --extra gcs \
      --constraint constraints/constraints.txt --constraint constraints/hashes.txt --overrides constraints/overrides-gpu.txt

# In a folder of its own, so that the image of the service has none of it.
FROM builder AS load-packages
ARG SSL_CERT_FILE
RUN /opt/uv/bin/uv pip install --quiet --python /opt/venv/bin/python --target /opt/load locust \
      --constraint constraints/constraints.txt --constraint constraints/hashes.txt

FROM builder AS application
ARG SSL_CERT_FILE
COPY README.md LICENSE ./
COPY serve serve
COPY deployments deployments
COPY demo demo
RUN /opt/uv/bin/uv pip install --quiet --python /opt/venv/bin/python --no-deps --target /opt/app .

FROM base AS runtime
# Ray writes to ~/.ray and /tmp/ray. With a read-only root, mount a tmpfs or an emptyDir at /tmp.
# PyTorch names its cache of compiled kernels after $USER, since the user is not in /etc/passwd.
ENV HOME=/tmp USER=ryla
WORKDIR /tmp
EXPOSE 8000 8265
USER 10001:10001
CMD ["ryla", "serve", "demo", "--host", "0.0.0.0"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# GKE mounts the driver here; elsewhere, the container toolkit adds it to the system's libraries.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
# Triton needs a C compiler to compile its launcher.
USER root
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
USER 10001:10001
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=application /opt/app /opt/app

FROM runtime AS load
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=application /opt/app /opt/app
COPY --from=load-packages /opt/load /opt/load
COPY loadtest /opt/app/loadtest
ENV PYTHONPATH=/opt/app:/opt/load

FROM runtime AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=application /opt/app /opt/app
