# Everything a newcomer needs; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a process: tests run on all cores, and small tensors gain nothing from more.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORKERS ?= 2
# What `make check` tests: units, without the sums, forces, reports, models and whole runs.
CHECKED := tests/unit --ignore=tests/unit/lattice --ignore=tests/unit/forcefield --ignore=tests/unit/report

.PHONY: help install train check test test-slow lint format benchmark
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 22

install: $(STAMP) ## Set up .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit( \
		"potnet needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d: run make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	@touch $@

train: $(STAMP) ## Train on the bulk moduli that ship with the package (ARGS="key=value ..." to change settings)
	$(BIN)/python -m potnet.train experiment=mp_bulk_modulus $(ARGS)

check: lint ## Lint, format, types and the tests of what people change most
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow" $(CHECKED)

test: lint ## Lint, format, types and all fast tests
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

test-slow: $(STAMP) ## The tests that take minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m slow

lint: $(STAMP) ## Lint, format check and types, changing nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP) ## Format the code and sort imports
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

benchmark: $(STAMP) ## Lattice sums and the training step, against other libraries where they are installed
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/lattice_sums.py
	$(BIN)/python benchmarks/training_step.py
