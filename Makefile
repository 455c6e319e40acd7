# Each target sets up what it needs, once, in .venv, and calls one command.
#
#   make install  put what running Lathe needs into .venv, and run nothing
#   make demo    do the main job once, for real: optimize a small CNN, through the service
#   make serve   run the service on this machine, until Ctrl-C
#   make test    every check: style, types, imports, tests
#   make test-long   the same, and the tests that are marked long
#   make lint    the first three of them
#   make bench   measure the service against its floor
#   make bench-faults  kill, stop and starve the service under a load: ARGS='--jobs 10000 --faults 500'
#   make bench-peers   measure the passes against other tools; with digits: ARGS='--mnist FOLDER'
#   make bench-auto    measure the search against the best of other tools; with digits: ARGS='--mnist FOLDER'
#   make bench-compression   measure pruning, low rank and training on digits: ARGS='--mnist FOLDER'
#   make bench-training-memory  what training takes with ten times the samples: ARGS='--mnist FOLDER'
#   make bench-hostile     hold hostile files and ways out of the sandbox against runners: ARGS='--mutations 5000'
#   make bench-endurance   an hour of mixed load: what grows that should not
#   make clean   remove what these targets made

PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11, 3))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PINS := pyproject.toml constraints.txt
RUN_EXTRAS := worker,embedded,demo
# Half as many again as cores: tests of whole services wait for a third of their time.
WORKERS ?= $(shell expr $$(nproc) + $$(nproc) / 2)
# In groups, in the order that tests/spreading.py gives.
SPREAD = $(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help install demo serve test test-long short long lint collected bench bench-faults bench-peers bench-auto bench-compression bench-training-memory bench-hostile bench-endurance clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(VENV)/.stamp-demo

demo: $(VENV)/.stamp-demo
	@$(BIN)/python -m examples.demo

serve: $(VENV)/.stamp-demo
	@$(BIN)/lathe serve

# The checks of types take one core for most of a minute: tests run beside them. `make lint` by itself answers sooner.
test: $(VENV)/.stamp-test
	@$(MAKE) --no-print-directory -j 2 lint short

test-long: $(VENV)/.stamp-test
	@$(MAKE) --no-print-directory -j 2 lint long

short: collected
	$(SPREAD) -m "not long"

long: collected
	LATHE_TEST_EXAMPLES=12 LATHE_TEST_WALKS=8 LATHE_TEST_LIVES=100 LATHE_TEST_MUTATIONS=120 LATHE_TEST_CUTS=100 $(SPREAD)

# Tests are compiled once for all processes that will run them.
collected: $(VENV)/.stamp-test
	@found=$$($(BIN)/pytest --collect-only -qq 2>&1) || { echo "$$found"; exit 1; }

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.service

bench-faults: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.faults $(ARGS)

bench-peers: $(VENV)/.stamp-bench-peers
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-auto: $(VENV)/.stamp-bench-peers
	$(BIN)/python -m benchmarks.auto $(ARGS)

bench-compression: $(VENV)/.stamp-bench-peers
	$(BIN)/python -m benchmarks.compression $(ARGS)

bench-training-memory: $(VENV)/.stamp-bench-peers
	$(BIN)/python -m benchmarks.training_memory $(ARGS)

bench-hostile: $(VENV)/.stamp-test
	$(BIN)/python -m benchmarks.hostile $(ARGS)

bench-endurance: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks.endurance $(ARGS)

clean:
	rm -rf $(VENV) benchmarks/out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "Lathe needs Python 3.11.3 or newer: set PYTHON to one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-venv $(PINS)
	@echo "Installing what running Lathe needs into $(VENV): once, and no torch"
	@$(PIP_INSTALL) -e '.[$(RUN_EXTRAS)]'
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv $(PINS)
	@echo "Installing what the checks need into $(VENV), torch among it: once"
	@$(PIP_INSTALL) -e '.[$(RUN_EXTRAS),training,tracing,dev]'
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-bench: $(VENV)/.stamp-venv $(PINS)
	@echo "Installing what the benchmarks need into $(VENV): once"
	@$(PIP_INSTALL) -e '.[$(RUN_EXTRAS),bench-service]'
	@touch $@

$(VENV)/.stamp-bench-peers: $(VENV)/.stamp-venv $(PINS)
	@echo "Installing what the comparison needs into $(VENV), torch among it: once"
	@$(PIP_INSTALL) -e '.[worker,bench]'
	@touch $@
