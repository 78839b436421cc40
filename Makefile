# Two commands do everything on a fresh machine: `make reproduce` and `make test`.
# Needs Python 3.11 or newer with venv, make, and the package index.

PYTHON ?= python3
CONFIG ?= mnist
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: reproduce test lint bench bench-network clean

reproduce: $(VENV)/installed            ## environment, data, training, table, figures, claims, report
	$(BIN)/swabench reproduce --config $(CONFIG)

test: $(VENV)/installed-test            ## the fast tests first, then the slow ones
	$(BIN)/pytest -x -m "not slow"
	$(BIN)/pytest -x -m slow

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test           ## ratios against the usual way, in one run
	$(BIN)/python tests/bench/speed.py

bench-network: $(VENV)/installed-test   ## the same for training the network itself
	$(BIN)/python -m tests.bench.network

clean:                                  ## the environment and tool caches; never results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@
