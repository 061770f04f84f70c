# One command each: a virtual environment is made quietly the first time any of them runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format types contracts vm bench swaps jobs migrations crash replay kills soak powercuts outage fuzz clean

help: ## what can be made here
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@echo "emptybox: preparing $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

demo: $(STAMP) ## a push becoming a running version, twice, and a broken one rolled back (STAY=1 leaves it up)
	@$(BIN)/emptybox demo $(if $(STAY),--stay)

test: $(STAMP) ## all tests
	@$(BIN)/python -m pytest -q -n 4 --dist loadgroup $(ARGS)

format: $(STAMP) ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: $(STAMP) ## ruff: format and rules
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

contracts: $(STAMP) ## the import rule of docs/architecture.md
	@$(BIN)/lint-imports

check: lint types contracts test ## everything the gate asks for

vm: $(STAMP) ## the systemd service on an emulated Debian: installed, watched, upgraded, backed up, removed
	@$(BIN)/python -m pytest -q -s tests/system/test_machine.py $(ARGS)

bench: $(STAMP) ## measured comparisons; results belong in docs/benchmarks.md
	@$(BIN)/python -m benchmarks $(ARGS)

swaps: $(STAMP) ## real servers swapped 100 times each under load; fails when a new connection is lost
	@$(BIN)/python -m benchmarks.swaps $(ARGS)

jobs: $(STAMP) ## a job every second for SECONDS (300), the agent killed at random: none lost, none doubled
	@JOBS_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest -q -s tests/system/test_jobs_sample.py $(ARGS)

migrations: $(STAMP) ## migrations of SECONDS (120) under load: no request is lost, or every one gets the page
	@EMPTYBOX_MIGRATION_SECONDS=$(or $(SECONDS),120) $(BIN)/python -m pytest -q -o timeout=600 tests/system/test_migrations.py -k "long" $(ARGS)

crash: $(STAMP) ## kill -9 at every durable operation of deploys of every kind (an hour; ARGS="upgrade --whom agent" for some)
	@$(BIN)/python -m tests.crash $(ARGS)

replay: $(STAMP) ## what a power cut could leave of deploys of every kind, and what the next agent makes of it (ARGS="upgrade" for some)
	@$(BIN)/python -m tests.crash replay $(ARGS)

kills: $(STAMP) ## kill -9 at random times under load and pushes: COUNT (500) of the agent, TREES (100) of everything, SEED
	@$(BIN)/python -m tests.endurance.kills --count $(or $(COUNT),500) --trees $(or $(TREES),100) --seed $(or $(SEED),20261121)

soak: $(STAMP) ## COUNT (1000) good, bad and hostile deploys under load, SEED: nothing grows
	@$(BIN)/python -m tests.endurance.soak --count $(or $(COUNT),1000) --seed $(or $(SEED),20261121)

powercuts: $(STAMP) ## COUNT (60) power cuts of an emulated machine that deploys, SEED: what was flushed is all there is
	@$(BIN)/python -m tests.endurance.powercuts --count $(or $(COUNT),60) --seed $(or $(SEED),20261121)

outage: $(STAMP) ## HOURS (2) without Git, in real time: nothing is lost, nothing grows
	@$(BIN)/python -m tests.endurance.outage --hours $(or $(HOURS),2)

fuzz: $(STAMP) ## hostile webhook deliveries for SECONDS (60): no 500, no unbounded memory
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt atheris 2>/dev/null || true
	@$(BIN)/python -m tests.fuzz.webhooks $(or $(SECONDS),60)

clean: ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
