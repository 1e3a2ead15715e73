# Pegel's tasks. Everything lands in .venv and in PEGEL_CACHE (default: the user's cache directory).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-unit test-peers lint bench pictures lock tools

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A stamp is written last, so a set-up that broke half-way is simply done again.
$(VENV)/.demo-ready: locks/demo.txt pyproject.toml
	@echo "installing Pegel into $(VENV), which takes a minute"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/demo.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test-ready: $(VENV)/.demo-ready locks/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/test.txt
	@touch $@

setup: $(VENV)/.demo-ready ## install Pegel into .venv

demo: $(VENV)/.demo-ready ## see the whole product on this machine
	$(BIN)/pegel demo

tools: $(VENV)/.demo-ready ## install the real components that the integration tests run
	@tests/install-tools
	@PYTHON=$(CURDIR)/$(BIN)/python tests/modelservers/install-mlserver >/dev/null
	@PYTHON=$(CURDIR)/$(BIN)/python tests/apiserver/install-kubernetes >/dev/null
	@PYTHON=$(CURDIR)/$(BIN)/python tests/rules/install-promtool >/dev/null
	@tests/images/install-builder >/dev/null
	@PYTHON=$(CURDIR)/$(BIN)/python benchmarks/install-evidently >/dev/null

lint: $(VENV)/.test-ready ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-unit: $(VENV)/.test-ready ## pure tests: no network, no process
	$(BIN)/python -m pytest -n auto -m "not integration"

test: $(VENV)/.test-ready tools lint ## everything that CI runs
	$(BIN)/python -m pytest

test-peers: $(VENV)/.test-ready ## the same figures as Evidently, scipy and NannyML (environments of 1 GB each)
	@PYTHON=$(CURDIR)/$(BIN)/python benchmarks/install-evidently >/dev/null
	@PYTHON=$(CURDIR)/$(BIN)/python benchmarks/install-nannyml >/dev/null
	$(BIN)/python -m pytest tests/peers/against_*.py

bench: $(VENV)/.test-ready ## measure the budgets, side by side (BENCH_SECONDS bounds each part)
	@benchmarks/install-tools
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

pictures: $(VENV)/.test-ready tools ## take the README's picture anew
	PEGEL_PICTURES=docs $(BIN)/python -m pytest tests/integration/test_demo.py -k whole

# Images have one Python and one system, and the versions that are tested.
LOCK_IMAGE := uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-header -c locks/demo.txt
lock: ## resolve the locked versions anew
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra demo pyproject.toml -o locks/demo.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra test -c locks/demo.txt pyproject.toml -o locks/test.txt
	$(LOCK_IMAGE) --extra exporter pyproject.toml -o locks/exporter.txt
	$(LOCK_IMAGE) --extra sidecar pyproject.toml -o locks/sidecar.txt
	$(LOCK_IMAGE) --extra cluster --extra rules --extra dashboards pyproject.toml -o locks/cluster.txt
	echo hatchling | $(LOCK_IMAGE) - -o locks/build.txt
