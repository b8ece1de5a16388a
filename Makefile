# All tasks of development. Each target installs what it uses; Python 3.11 or later and make are enough.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
JOBS   ?= 3

# Without compiled files, each of the very many processes that the tests start would compile the library again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow gates lint types bench bench-suite bench-suite-compare bench-baseline golden docs ci clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

demo: $(VENV)/.ready ## Run a real pool under a real load, with the dashboard (ARGS="--headless --duration 10")
	@$(BIN)/pool-monitor demo $(ARGS)

test: $(VENV)/.ready-dev ## Run the tests (ARGS="-k name" for some of them, JOBS=0 for one at a time)
	@echo "All tests take about 5 minutes on 2 processors; a test that hangs is ended after 75 seconds." >&2
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-slow: $(VENV)/.ready-dev ## Run the slow tests
	@$(BIN)/python -m pytest -m slow $(ARGS)

gates: $(VENV)/.ready-dev ## Run the slow tests that must pass before a change is merged
	@$(BIN)/python -m pytest -n 2 -m gate $(ARGS)

lint: $(VENV)/.ready-dev ## Check style and the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.ready-dev ## Check types
	@$(BIN)/mypy

bench: $(VENV)/.ready-bench ## Run the benchmarks, with other libraries in the same run for comparison
	@$(BIN)/python -m benchmarks $(ARGS)

bench-suite: $(VENV)/.ready-dev ## Measure hot paths and compare with the stored baseline: about a minute
	@$(BIN)/python -m benchmarks.suite run $(ARGS)

bench-suite-compare: $(VENV)/.ready-dev ## Compare the last run of bench-suite with the baseline again
	@$(BIN)/python -m benchmarks.suite compare

bench-baseline: $(VENV)/.ready-dev ## Measure and store a new baseline; run it on a quiet machine
	@$(BIN)/python -m benchmarks.suite baseline

golden: $(VENV)/.ready-dev ## Redraw the golden files; read the diff before you commit it
	@POOL_MONITOR_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_view_overview.py tests/test_view_listings.py \
		tests/test_view_period_report.py tests/test_view_errors.py tests/test_view_resources.py \
		tests/test_alert_formats.py tests/test_rule_file.py

docs: $(VENV)/.ready-dev ## Regenerate the tables in the docs from the code
	@$(BIN)/python docs/generate.py

ci: lint types test gates ## Run everything that must pass before a change is merged

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "pool_monitor needs Python 3.11 or later; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml
	@echo "setting up $(VENV) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/bin/python pyproject.toml
	@echo "setting up $(VENV) with what the tests need ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-bench: $(VENV)/.ready-dev
	@echo "setting up $(VENV) with the libraries for comparison ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@
