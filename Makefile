# `make burst` runs a whole burst in the sandbox, `make test` passes the tests. Both do all their own set-up.
PYTHON ?= python3
FLUX ?= auto
SEEDS ?= 300
SEED_BASE ?= 1
BIN := .venv/bin

.PHONY: help burst teardown down test lint bench bench-queue bench-compute bench-nodes chaos setup setup-test clean
help:
	@echo "make burst      a whole burst on this machine, in the sandbox (FLUX=real|standin chooses the Flux)"
	@echo "make teardown   drain, stop and delete what the burst made; the sandbox stays up"
	@echo "make down       take the sandbox away"
	@echo "make test       every test and check"
	@echo "make lint       the checkers alone"
	@echo "make bench      every measurement beside a peer; bench-queue: the Flux side alone (needs the real Flux),"
	@echo "                bench-compute: the Compute Engine side alone (fetches google.cloud to compare with),"
	@echo "                bench-nodes: tunnels and machines alone (compares with gcloud where it is installed)"
	@echo "make chaos      kills and random faults, SEEDS=N of them (300) from SEED_BASE=S (1) on; a table says what was survived"

setup:
	@$(PYTHON) tools/setup.py requirements-sandbox.txt

setup-test:
	@$(PYTHON) tools/setup.py requirements-test.txt

burst: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo burst --flux $(FLUX)

teardown: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo teardown

down: setup
	@$(BIN)/python -m sandbox down

test: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/quality

bench: bench-queue bench-compute bench-nodes

bench-queue: setup-test
	@$(BIN)/python tests/bench/bench_queue.py

bench-compute: setup-test
	@$(BIN)/python tests/bench/bench_compute.py

bench-nodes: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/bench/bench_nodes.py

chaos: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" FLUX_BURST_KILLS=all SEEDS=$(SEEDS) SEED_BASE=$(SEED_BASE) \
		$(BIN)/python -m pytest tests/chaos -n 2 --dist loadfile -rP

clean: down
	rm -rf .venv .cache
