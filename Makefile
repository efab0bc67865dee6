PYTHON ?= python3
BIN := .venv/bin
TOOLS := $(CURDIR)/.tools
# The onnxruntime to install: overrides.txt is for the CPU, and overrides-gpu.txt (with
# EXTRAS=dev,gpu) for a GPU host.
OVERRIDES ?= constraints/overrides.txt
EXTRAS ?= dev
# What was installed last: another choice of EXTRAS or OVERRIDES installs again.
STAMP := .venv/.setup-$(EXTRAS)-$(notdir $(OVERRIDES))
HELM_VERSION := v3.22.0
# The Kubernetes of that helm's k8s.io/client-go, v0.37.
HELM_KUBERNETES_MINOR := 37
HELM_DOCS_VERSION := v1.14.2
# OpenAI's package for Node, one of the clients in the tests, where npm is.
NODE_CLIENT := $(if $(shell command -v npm 2>/dev/null),tests/node/node_modules/.package-lock.json)
IMAGE ?= localhost/ryla-serve
TARGET ?= cpu
# For instance: --build-arg BASE=registry.example.org/debian:bookworm-slim
BUILD_OPTIONS ?=
E2E ?= tests/e2e
CONTAINERS ?= podman
# What `make test` runs at once. The tests on Ray wait often; the others compute, with what is left.
COMPUTING := tests/unit tests/chart tests/engines
ON_RAY := tests/graph
# It stops by their names all processes of Ray on the machine, those that other tests pretend, too.
ALONE := tests/graph/test_autoscaling.py
# What gives a command the CPU time that the tests on Ray leave; `make test` sets LOW to it. The
# replicas of the video models have a low priority themselves, so that of `nice` is a last resort.
LOWEST = $(shell chrt --idle 0 true 2>/dev/null && echo chrt --idle 0 || echo nice -n 19)
LOW :=
# Each part's output whole, where make can keep it together (version 4).
WHOLE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# The tests that share one service. Each other file starts its own: two at once find each other.
CHAOS := $(patsubst %,tests/chaos/test_%.py,job_losses redeploy listeners full_disk)

# Every process of the tests would otherwise compile all of its libraries anew where the
# environment forbids Python to keep them compiled.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup hashes tools serve demo unit test test-alone test-on-ray test-computing lint fix load overload soak attack kills fuzz bench chart image image-test chaos e2e

help:  ## Show this list
	@awk -F ':.*  ## ' '/^[a-z0-9-]+:.*  ## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Create .venv with everything that development needs

$(STAMP): pyproject.toml constraints/constraints.txt constraints/hashes.txt $(OVERRIDES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints/constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints/constraints.txt \
	  --constraint constraints/hashes.txt --overrides $(OVERRIDES) --editable ".[$(EXTRAS)]"
	rm -f .venv/.setup-*
	touch $@

# Not PyTorch's: its own index has other files of the same version (see the Dockerfile).
hashes:  ## Write constraints/hashes.txt again, after a change of constraints/constraints.txt
	grep -v '^torch==' constraints/constraints.txt | $(BIN)/uv pip compile --quiet --generate-hashes --no-deps \
	  --no-header --no-annotate --python-version 3.11 --python-platform linux --output-file constraints/hashes.txt -

tools: $(TOOLS)/helm $(TOOLS)/helm-docs $(NODE_CLIENT)  ## Build helm and helm-docs for the chart's tests (requires Go), and install OpenAI's package for Node

# A plain `go install` leaves out the versions: helm would say that it is v3 and that its cluster is
# Kubernetes 1.20, which the chart refuses. Helm's own releases set the same variables.
HELM_FLAGS := -X helm.sh/helm/v3/internal/version.version=$(HELM_VERSION) \
  $(foreach package,pkg/lint/rules pkg/chartutil,\
    -X helm.sh/helm/v3/$(package).k8sVersionMajor=1 -X helm.sh/helm/v3/$(package).k8sVersionMinor=$(HELM_KUBERNETES_MINOR))

$(TOOLS)/helm:
	GOBIN=$(TOOLS) go install -ldflags '$(HELM_FLAGS)' helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

$(TOOLS)/helm-docs:
	GOBIN=$(TOOLS) go install github.com/norwoodj/helm-docs/cmd/helm-docs@$(HELM_DOCS_VERSION)

# The tests that need it are skipped without it.
$(NODE_CLIENT): tests/node/package.json tests/node/package-lock.json
	cd tests/node && npm ci --fetch-retries=1 && touch ../../$@ \
	  || echo "NOT RUN: tests with OpenAI's package for Node: it could not be installed"

serve: setup  ## Run the demo on http://127.0.0.1:8000, with the Ray dashboard on http://127.0.0.1:8265
	$(BIN)/ryla serve demo

demo: setup  ## Start the demo, call all seven endpoints and save the results in test-output/
	$(BIN)/ryla demo

unit: setup  ## Run the fast tests, which need no Ray and no model, and print their coverage
	$(BIN)/python -m pytest tests/unit -p tests.unit.ring -m 'not slow' -n 2 --dist worksteal --cov=serve --cov-report=term:skip-covered --cov-fail-under=90

TOGETHER = $(MAKE) --no-print-directory --jobs=2 $(WHOLE) LOW='$(LOWEST)'

test: setup tools  ## Run all checks and all tests that need no Kubernetes cluster, two parts at a time
	+$(TOGETHER) test-alone lint
	+$(TOGETHER) test-on-ray test-computing

# Without a shell between, which make would stop instead of the tests.
test-alone test-on-ray test-computing: export PATH := $(CURDIR)/$(BIN):$(TOOLS):$(PATH)
test-alone:
	$(BIN)/python -m pytest $(ALONE)

test-on-ray:
	$(BIN)/python -m pytest $(ON_RAY) --ignore=$(ALONE)

test-computing:
	$(LOW) $(BIN)/python -m pytest $(COMPUTING) -n 2 --dist worksteal

lint: setup  ## Check style, types and the import rules
	$(LOW) $(BIN)/ruff check .
	$(LOW) $(BIN)/ruff format --check .
	$(LOW) $(BIN)/mypy
	$(LOW) $(BIN)/lint-imports

fix: setup  ## Format the code and fix what can be fixed automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

load: setup  ## Load a fresh demo for two minutes and write a report to test-output/load.html
	$(BIN)/python -m loadtest.run

overload: setup  ## Ask a fresh demo for 1, 2 and 10 times as much as it can do, for six minutes
	$(BIN)/python -m loadtest.overload

soak: setup  ## Send 5,000 short requests to a fresh demo and look for what is left of them, for an hour at most
	$(BIN)/python -m loadtest.soak

attack: setup  ## Attack a fresh demo beside honest callers, for ten minutes at most
	$(BIN)/python -m loadtest.attack

kills: setup  ## Kill each kind of process of a fresh demo, and watch it recover or end
	$(BIN)/python -m loadtest.kills

fuzz: setup  ## Send 10,000 requests made from our OpenAPI document and decode 7,000 damaged files
	RYLA_GENERATED_REQUESTS=10000 $(BIN)/python -m pytest tests/unit/serve/http/test_contract.py -m slow -s -p no:logging
	$(BIN)/python -m tests.media.fuzz 6000 1000

bench: setup  ## Measure how fast frames travel between replicas
	$(BIN)/python -m benchmarks.transport

chart: setup tools  ## Generate the chart's values, schema and README, and the manifests in k8s/
	PATH="$(CURDIR)/$(BIN):$(TOOLS):$$PATH" $(BIN)/python -m helm.generator

image:  ## Build the container image; TARGET=cpu, gpu or load
	$(CONTAINERS) build $(BUILD_OPTIONS) --target $(TARGET) -t $(IMAGE):$(TARGET) .
	$(CONTAINERS) image inspect $(IMAGE):$(TARGET) --format '$(IMAGE):$(TARGET): {{.Size}} bytes'

image-test:  ## Run the smoke test in the image, locked down and without a network
	$(CONTAINERS) rm --force ryla-image-test
	$(CONTAINERS) run --detach --name ryla-image-test --read-only --user 10001 --cap-drop all --network none \
	  --tmpfs /tmp:rw,size=4g,mode=1777 --shm-size 1g $(RUN_OPTIONS) $(IMAGE):$(TARGET)
	$(CONTAINERS) exec ryla-image-test ryla smoke --wait 300 || { $(CONTAINERS) logs ryla-image-test; exit 1; }
	$(CONTAINERS) rm --force ryla-image-test

chaos: setup  ## Lose processes, nodes and stores during jobs; needs an idle machine
	CHAOS_JOBS=200 $(BIN)/python -m pytest tests/unit/serve/jobs/test_runner_kills.py
	for group in "$(CHAOS)" tests/chaos/test_redis.py tests/chaos/test_node_losses.py; do \
	  PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $$group --override-ini 'norecursedirs=.venv .hypothesis' || exit 1; \
	done

e2e: setup tools  ## Test on the Kubernetes cluster in KUBECONFIG (see tests/e2e/README.md)
	PATH="$(CURDIR)/$(BIN):$(TOOLS):$$PATH" $(BIN)/python -m pytest $(E2E) --override-ini 'norecursedirs=.venv .hypothesis'
