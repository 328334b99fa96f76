# `make burst` runs a whole burst in the sandbox, `make test` passes the tests. Both do all their own set-up.
PYTHON ?= python3
FLUX ?= auto
SEEDS ?= 300
SEED_BASE ?= 1
# With machines a schedule takes half a minute: as many as SEEDS, forty at most.
MACHINE_SEEDS ?= $(shell test $(SEEDS) -lt 40 && echo $(SEEDS) || echo 40)
BIN := .venv/bin

.PHONY: help burst doctor teardown down lead-gke test lint fuzz races bench bench-queue bench-compute bench-nodes chaos setup setup-test clean
help:
	@echo "make burst      a whole burst on this machine, in the sandbox (FLUX=real|standin chooses the Flux)"
	@echo "make doctor     say of the sandbox that runs what is right, what is wrong, what to do; nothing is made"
	@echo "make teardown   drain, stop and delete what the burst made; the sandbox stays up"
	@echo "make down       take the sandbox away"
	@echo "make lead-gke   a lead in GKE and a burst from it, in a sandbox of their own (fetches kubernetes.core)"
	@echo "make test       every test and check"
	@echo "make lint       the checkers alone"
	@echo "make races      100 times two controllers that claim the same jobs and hosts at once; make test does 10"
	@echo "make fuzz       50,000 inputs that are nearly right, of which make test tries a sample"
	@echo "make bench      every measurement beside a peer; bench-queue: the Flux side alone (needs the real Flux),"
	@echo "                bench-compute: the Compute Engine side alone (fetches google.cloud to compare with),"
	@echo "                bench-nodes: tunnels and machines alone (compares with gcloud where it is installed)"
	@echo "make chaos      kills and random faults, SEEDS=N of them (300) from SEED_BASE=S (1) on, and MACHINE_SEEDS=N (40) with"
	@echo "                machines and the real Flux; tables say what was survived"

setup:
	@$(PYTHON) tools/setup.py requirements-sandbox.txt

setup-test:
	@$(PYTHON) tools/setup.py requirements-test.txt

burst: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo burst --flux $(FLUX)

doctor: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo doctor

teardown: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo teardown

down: setup
	@$(BIN)/python -m sandbox down

lead-gke:
	@$(PYTHON) tools/setup.py requirements-gke.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sandbox.demo lead-gke --flux $(FLUX)

test: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/quality

races: setup-test
	@FLUX_BURST_RACES=100 $(BIN)/python -m pytest tests/contract/test_flux_claims.py

fuzz: setup-test
	@FLUX_BURST_FUZZ_INPUTS=50000 $(BIN)/python -m pytest tests/fuzz -n 2 --dist load

bench: bench-queue bench-compute bench-nodes

bench-queue: setup-test
	@$(BIN)/python tests/bench/bench_queue.py

bench-compute: setup-test
	@$(BIN)/python tests/bench/bench_compute.py

bench-nodes: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/bench/bench_nodes.py

chaos: setup-test
	@PATH="$(CURDIR)/$(BIN):$$PATH" FLUX_BURST_KILLS=all SEEDS=$(SEEDS) SEED_BASE=$(SEED_BASE) MACHINE_SEEDS=$(MACHINE_SEEDS) \
		$(BIN)/python -m pytest tests/chaos -n 2 --dist loadfile -rP

clean: down
	rm -rf .venv .cache
