PYTHON ?= python3
BIN := .venv/bin
# Which onnxruntime: overrides.txt for the CPU, overrides-gpu.txt (and EXTRAS=dev,gpu) for a GPU host.
OVERRIDES ?= constraints/overrides.txt
EXTRAS ?= dev

.PHONY: setup serve demo test lint load bench

setup: .setup-done

.setup-done: pyproject.toml constraints/constraints.txt $(OVERRIDES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints/constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints/constraints.txt \
	  --overrides $(OVERRIDES) --editable ".[$(EXTRAS)]"
	touch $@

serve: setup  ## the demo on http://127.0.0.1:8000, the Ray dashboard on http://127.0.0.1:8265
	$(BIN)/ryla serve demo

demo: setup  ## calls all seven endpoints of a fresh service; results in test-output/
	$(BIN)/ryla demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## everything that CI runs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

load: setup  ## a minute of load against a fresh demo; report in test-output/load.html
	$(BIN)/python -m loadtest.run

bench: setup
	$(BIN)/python -m benchmarks.transport
