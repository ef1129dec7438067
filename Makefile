# Everything here works on a fresh machine that has Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests run side by side, more than there are cores: many wait for servers and processes.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(8, 1 + os.cpu_count()))")
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help demo test check lint bench up down clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## the whole method on the embedded data, into demo-warehouse/
	$(BIN)/sola demo

test: $(INSTALLED)  ## every test
	$(PYTEST)

check: lint  ## lint, types and the quick tests, in minutes
	$(PYTEST) -m "not slow"

lint: $(INSTALLED)  ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## speed ratios against the plain way
	$(BIN)/python -m benchmarks.tracks
	$(BIN)/python -m benchmarks.segment
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.oracle
	$(BIN)/python -m benchmarks.shared_tracks
	$(BIN)/python -m benchmarks.prompt_settings
	$(BIN)/python -m benchmarks.host_work
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.detector
	$(BIN)/python -m benchmarks.warehouse
	$(BIN)/python -m benchmarks.costs
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.orchestration
	$(BIN)/python -m benchmarks.chaos
	$(BIN)/python -m benchmarks.chaos_flows

up: $(INSTALLED)  ## Prefect's server, deployments, schedules and workers, on this machine
	$(BIN)/python -m flows.services up

down:  ## stop them and remove what they have left
	$(BIN)/python -m flows.services down

clean:  ## remove the environment and the demo's results
	rm -rf $(VENV) demo-warehouse

# torch comes first: the build of sam2 imports it, and in isolation would fetch it again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt "setuptools>=77" wheel torch torchvision
	SAM2_BUILD_CUDA=0 $(BIN)/pip install -q -c constraints.txt --no-build-isolation sam2
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e ".[test]"
	touch $@
