# `make demo` runs the main job, `make test` passes the tests; each sets up what it needs in .venv.
# Needs only Python 3.11 or newer (PYTHON=...), make and a package registry.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help env demo test test-slow lint format docs bench clean

help:
	@echo "make env        set up .venv (done by the others when needed)"
	@echo "make demo       learn digits by Hamiltonian dynamics, record, summarise, draw (runs/)"
	@echo "make test       lint, types, import contracts and the test suite"
	@echo "make test-slow  the tests that take longer"
	@echo "make lint       ruff, mypy --strict, import contracts"
	@echo "make docs       build the site into docs/_build, warnings as errors"
	@echo "make bench      benchmarks, as ratios"

env: $(READY)

# torch first: what depends on it must find the pinned build installed
$(READY): pyproject.toml tools/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nlsim needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint tools/constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint tools/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	@mkdir -p runs
	$(BIN)/nlsim run scenarios/hamiltonian/digits.toml --out runs/digits.nc --force
	@$(BIN)/nlsim plot runs/digits.nc -o runs/digits.png

test: lint
	$(PYTEST) -n auto -m "not slow"

test-slow: $(READY)
	$(PYTEST) -n auto -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

bench: $(READY)
	$(BIN)/python tools/bench/step.py

clean:
	rm -rf .venv docs/_build docs/reference/generated runs
