# `make demo` and `make test` do all set-up on a fresh machine; a second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= auto
# Workers take neighboring tests, which share a module's fixtures, and from one another what is left at the end.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test test-slow lint format clean

demo: $(READY)  ## render the town, train the tiny model, evaluate it on frames it never saw
	$(BIN)/python -m coopmap.train experiment=cyl_posefix

test: $(READY)  ## all tests but the slow ones, on all cores; make test WORKERS=2 takes two
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## the tests that take minutes
	$(PYTEST) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("coopmap needs Python 3.11 or newer; make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)
