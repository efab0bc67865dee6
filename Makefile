PYTHON ?= python3
BIN := .venv/bin
TOOLS := $(CURDIR)/.tools
# Which onnxruntime: overrides.txt for the CPU, overrides-gpu.txt (and EXTRAS=dev,gpu) for a GPU host.
OVERRIDES ?= constraints/overrides.txt
EXTRAS ?= dev
HELM_VERSION := v3.22.0
HELM_DOCS_VERSION := v1.14.2
IMAGE ?= localhost/ryla-serve
TARGET ?= cpu
# For instance: --build-arg BASE=localhost/debian:bookworm --network host
BUILD_OPTIONS ?=
E2E ?= tests/e2e
CONTAINERS ?= podman

.PHONY: setup tools serve demo test lint load bench chart image image-test e2e

setup: .setup-done

.setup-done: pyproject.toml constraints/constraints.txt $(OVERRIDES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints/constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints/constraints.txt \
	  --overrides $(OVERRIDES) --editable ".[$(EXTRAS)]"
	touch $@

tools: $(TOOLS)/helm $(TOOLS)/helm-docs  ## what the chart's tests need, from their Go modules

$(TOOLS)/helm:
	GOBIN=$(TOOLS) go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

$(TOOLS)/helm-docs:
	GOBIN=$(TOOLS) go install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)

serve: setup  ## the demo on http://127.0.0.1:8000, the Ray dashboard on http://127.0.0.1:8265
	$(BIN)/ryla serve demo

demo: setup  ## calls all seven endpoints of a fresh service; results in test-output/
	$(BIN)/ryla demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint tools  ## everything that needs no cluster
	PATH="$(CURDIR)/$(BIN):$(TOOLS):$$PATH" $(BIN)/python -m pytest

load: setup  ## a minute of load against a fresh demo; report in test-output/load.html
	$(BIN)/python -m loadtest.run

bench: setup
	$(BIN)/python -m benchmarks.transport

chart: setup tools  ## values.yaml, its schema, the chart's README and k8s/, from helm/values.py
	PATH="$(CURDIR)/$(BIN):$(TOOLS):$$PATH" $(BIN)/python -m helm.generate

image:  ## the container image; TARGET=cpu or gpu
	$(CONTAINERS) build $(BUILD_OPTIONS) --target $(TARGET) -t $(IMAGE):$(TARGET) .
	$(CONTAINERS) image inspect $(IMAGE):$(TARGET) --format '$(IMAGE):$(TARGET): {{.Size}} bytes'

image-test:  ## the image, locked down and without a network, passes the smoke test
	$(CONTAINERS) rm --force ryla-image-test
	$(CONTAINERS) run --detach --name ryla-image-test --read-only --user 10001 --cap-drop all --network none \
	  --tmpfs /tmp:rw,size=4g,mode=1777 --shm-size 1g $(RUN_OPTIONS) $(IMAGE):$(TARGET)
	$(CONTAINERS) exec ryla-image-test ryla smoke --wait 300 || { $(CONTAINERS) logs ryla-image-test; exit 1; }
	$(CONTAINERS) rm --force ryla-image-test

e2e: setup tools  ## against the cluster that KUBECONFIG names, which has the image $(IMAGE):cpu (RYLA_E2E_IMAGE)
	PATH="$(CURDIR)/$(BIN):$(TOOLS):$$PATH" $(BIN)/python -m pytest $(E2E) --override-ini norecursedirs=.venv
