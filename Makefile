# `make demo` and `make test` do all set-up on a fresh machine; a second call is quick.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= auto
# Packages are installed without bytecode: what a first process compiles, the next ones find.
unexport PYTHONDONTWRITEBYTECODE
# Workers take neighboring tests, which share a module's fixtures, and from one another what is left at the end.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test test-slow lint format clean

demo: $(READY)  ## render streets, train a small model on some of them, measure it on the others, which it never saw
	$(BIN)/python -m coopmap.train experiment=cyl_posefix preset=demo
	$(BIN)/python -m coopmap.evaluate run=latest split=test 'baselines=[mean,bound]'

test: $(READY)  ## all tests but the slow ones, on all cores; make test WORKERS=2 takes two
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## the tests that take minutes
	$(PYTEST) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

# of what pip says
ONE_LINE_PER_PACKAGE := /^(Collecting|Processing) / {sub(".*/", "", $$2); sub("-(py|cp)[0-9].*", "", $$2); print "  " ++n, $$2} \
	/^ *(Installing|Building|Successfully)/ {print substr($$0, 1, 78)} {fflush()}

$(READY): pyproject.toml constraints.txt .ci/install
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("coopmap needs Python 3.11 or newer; make PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV): about a minute, and longer where packages are still to be downloaded"
	@$(PYTHON) -m venv $(VENV)
	@set -o pipefail; .ci/install $(abspath $(BIN))/python --editable ".[dev]" | awk '$(ONE_LINE_PER_PACKAGE)'
	@touch $(READY)
