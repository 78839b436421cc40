# Two commands do everything on a fresh machine: `make reproduce` and `make test`.
# Needs Python 3.11 or newer with venv, make, and the package index.

PYTHON ?= python3
CONFIG ?= mnist
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
SHARD  ?= 1/1

.PHONY: reproduce test lint bench bench-network bench-places torture clean

reproduce: $(VENV)/installed            ## environment, data, training, table, figures, claims, report
	$(BIN)/swabench reproduce --config $(CONFIG)
ifeq ($(CONFIG),mnist)
	@if $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then \
	    $(BIN)/swabench reproduce --config network; fi
endif

test: $(VENV)/installed-test            ## the fast tests first, then the slow ones
	$(BIN)/pytest -x -n $(JOBS) -m "not slow"
	$(BIN)/pytest -x -n $(JOBS) -m slow

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test           ## ratios against the usual way, in one run
	$(BIN)/python tests/bench/speed.py

bench-network: $(VENV)/installed-test   ## the same for training the network itself
	$(BIN)/python -m tests.bench.network

bench-places: $(VENV)/installed-test    ## what processes and Ray cost, beside one process
	$(BIN)/python -m tests.bench.places

torture: $(VENV)/installed-test         ## kills, failing writes, damaged files; SHARD=1/20 for a part
	$(BIN)/python -m tests.torture --shard $(SHARD) --jobs $(JOBS) --output results/faults/faults.json

clean:                                  ## the environment and tool caches; never results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@
