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
# For a proxy with its own certificates: mount them into the build and name the bundle here.
ARG SSL_CERT_FILE
COPY constraints /src/constraints
RUN python3 -m venv /opt/uv \
 && PIP_CERT=${SSL_CERT_FILE:-} /opt/uv/bin/pip install --quiet --no-cache-dir --constraint /src/constraints/constraints.txt uv
COPY pyproject.toml /src/
WORKDIR /src

FROM builder AS application
ARG SSL_CERT_FILE
COPY README.md LICENSE ./
COPY serve serve
COPY deployments deployments
COPY demo demo
# Its commands name the interpreter that they are installed with.
RUN /opt/uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv \
 && /opt/uv/bin/uv pip install --quiet --no-cache --no-deps --compile-bytecode --python /opt/venv/bin/python --target /opt/app .

FROM base AS runtime
# Ray writes to ~/.ray and /tmp/ray. With a read-only root, mount a tmpfs or an emptyDir at /tmp.
# PyTorch names its cache of compiled kernels after $USER, since the user is not in /etc/passwd.
ENV HOME=/tmp USER=ryla
WORKDIR /tmp
EXPOSE 8000 8265
USER 10001:10001
CMD ["ryla", "serve", "demo", "--host", "0.0.0.0"]

# The packages are installed where they stay, with uv mounted from the stage that has it: gigabytes
# that are copied from stage to stage would be written twice. What uv leaves in its home must not be
# in /tmp, the home of the service, where the service could not write to it.
#
# The runtime cannot keep compiled modules where its root is read-only, and each of Ray's processes
# would compile its libraries anew: they are compiled here.
#
# PyPI has PyTorch's CUDA build for Linux. `--build-arg TORCH_BACKEND=cpu` installs the smaller CPU
# build instead, if PyTorch's own index can be reached.
FROM runtime AS cpu-packages
ARG SSL_CERT_FILE
ARG TORCH_BACKEND=
USER root
RUN --mount=type=bind,from=builder,source=/opt/uv,target=/opt/uv --mount=type=bind,from=builder,source=/src,target=/src \
    export HOME=/root UV_HTTP_TIMEOUT=300 && /opt/uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv \
 && /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/venv/bin/python \
      -r /src/pyproject.toml --extra s3 --extra gcs ${TORCH_BACKEND:+--torch-backend ${TORCH_BACKEND}} \
      --constraint /src/constraints/constraints.txt --constraint /src/constraints/hashes.txt \
      --overrides /src/constraints/overrides-cpu-image.txt \
 # The CUDA build needs libcudnn.so.9 to load, but not the engines behind it, nor any headers.
 && rm -rf /opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn_* \
      /opt/venv/lib/python3.11/site-packages/nvidia/*/include
USER 10001:10001

FROM runtime AS gpu
ARG SSL_CERT_FILE
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# GKE mounts the driver here; elsewhere, the container toolkit adds it to the system's libraries.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64
# Triton needs a C compiler to compile its launcher.
USER root
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
RUN --mount=type=bind,from=builder,source=/opt/uv,target=/opt/uv --mount=type=bind,from=builder,source=/src,target=/src \
    export HOME=/root UV_HTTP_TIMEOUT=300 && /opt/uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv \
 && /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/venv/bin/python \
      -r /src/pyproject.toml --extra gpu --extra s3 --extra gcs \
      --constraint /src/constraints/constraints.txt --constraint /src/constraints/hashes.txt \
      --overrides /src/constraints/overrides-gpu.txt
USER 10001:10001
COPY --from=application /opt/app /opt/app

FROM cpu-packages AS load
ARG SSL_CERT_FILE
USER root
# In a folder of its own, as Locust is not part of the service's image.
RUN --mount=type=bind,from=builder,source=/opt/uv,target=/opt/uv --mount=type=bind,from=builder,source=/src,target=/src \
    HOME=/root /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/venv/bin/python --target /opt/load locust \
      --constraint /src/constraints/constraints.txt --constraint /src/constraints/hashes.txt
USER 10001:10001
COPY --from=application /opt/app /opt/app
COPY loadtest /opt/app/loadtest
ENV PYTHONPATH=/opt/app:/opt/load

FROM cpu-packages AS cpu
COPY --from=application /opt/app /opt/app
