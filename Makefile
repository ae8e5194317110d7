# whoneeds: the one door for people who use it and people who build it. `make` alone prints this list.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
ZIPAPP := roles/tracer/files/whoneeds.pyz
LOCAL := $(CURDIR)/.whoneeds/local

# How long `make discover` traces this machine, and how long the lab works before it is judged.
TRACE_S ?= 60
LOAD_S ?= 300
# Arguments for any test run: make test-lib ARGS="-k flows"
ARGS ?=

# The collection is used from this checkout: Ansible finds it through a link with the path it expects.
COLLECTIONS := $(CURDIR)/.cache/collections
export ANSIBLE_COLLECTIONS_PATH := $(COLLECTIONS)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONDONTWRITEBYTECODE := 1
PYTEST := $(BIN)/python -m pytest -c python_lib/pyproject.toml --rootdir . -p no:cacheprovider

.PHONY: help
help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# ---------------------------------------------------------------- set-up

$(VENV)/.run: python_lib/pyproject.toml
	@echo "setting up $(VENV) (only the first time)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable python_lib
	cd python_lib && $(BIN)/python -m pip install --quiet --group run
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	cd python_lib && $(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(COLLECTIONS)/ansible_collections/whoneeds/discovery:
	@mkdir -p $(@D)
	@ln -sfn $(CURDIR) $@

.PHONY: install venv zipapp vocabulary
install: $(VENV)/.run $(COLLECTIONS)/ansible_collections/whoneeds/discovery zipapp ## make the virtual environment with what the product needs
venv: install $(VENV)/.dev ## the same, with what building and testing it needs

zipapp: $(VENV)/.run ## build the one file that goes to traced hosts
	@$(BIN)/python python_lib/build_zipapp.py --out $(ZIPAPP)

vocabulary: $(VENV)/.run ## write docs/vocabulary.md from the records
	$(BIN)/python -m whoneeds.model.vocabulary > docs/vocabulary.md

# ---------------------------------------------------------------- using it

.PHONY: discover
discover: install ## trace this machine for TRACE_S seconds and publish what needs what into inventories/local
	$(BIN)/ansible-playbook whoneeds.discovery.discover -i inventories/local \
	  -e whoneeds_dir=$(LOCAL) -e whoneeds_trace_s=$(TRACE_S) $(if $(filter 0,$(shell id -u)),,-e whoneeds_become=false)
	@$(BIN)/whoneeds deps --store $(LOCAL)/store
	@echo
	@echo "facts:      .whoneeds/local/facts.json"
	@echo "inventory:  .venv/bin/ansible-inventory -i inventories/local --graph   (whoneeds_* groups and the variable 'whoneeds')"
	@echo "overlay:    .whoneeds/local/overlay                                    (the same as plain inventory files)"

.PHONY: lab
lab: venv ## as root: start a fleet of real hosts, discover it over ssh for LOAD_S seconds, and score the answer
	$(BIN)/python -m tests.lab run --lifetime 3600 -- $(BIN)/python -m tests.lab.exercise --load $(LOAD_S) --out build/lab

# ---------------------------------------------------------------- checking it

CHECKED := python_lib/src python_lib/build_zipapp.py tests
RUFF := $(BIN)/ruff

.PHONY: format static test-lib test-plugins test-gates test-matrix test-campaigns test-lab check test test-long conformance test-spark bench bench-scale
format: venv ## let ruff put the code in order
	$(RUFF) format --config python_lib/pyproject.toml $(CHECKED)
	$(RUFF) check --config python_lib/pyproject.toml --fix $(CHECKED)

static: venv ## formatting, lint, types, import contracts
	$(RUFF) format --config python_lib/pyproject.toml --check --quiet $(CHECKED)
	$(RUFF) check --config python_lib/pyproject.toml --quiet $(CHECKED)
	cd python_lib && $(BIN)/mypy && $(BIN)/lint-imports

test-lib: venv ## the library: real sockets, processes and files on this machine
	$(PYTEST) tests/lib $(ARGS)

test-plugins: venv ## plugins and roles, run for real on this machine
	$(PYTEST) tests/unit tests/roles $(ARGS)

test-gates: venv ## ansible-test sanity, ansible-lint, documentation, building the collection
	$(BIN)/python -m tests.gates

test-matrix: venv ## hostile text on every ansible-core that this machine can install
	$(BIN)/python -m tests.matrix --quick

test-campaigns: venv ## hard cases with real processes; kills, power cuts and fuzzing, a small count of each
	$(PYTEST) tests/evidence tests/campaigns $(ARGS)

test-lab: venv ## as root: the lab's hosts, discovered over ssh and scored
	$(PYTEST) tests/lab $(ARGS)

test-spark: venv ## the line on a real Spark cluster of this machine, row for row beside DuckDB (needs Java 17)
	$(BIN)/python -m tests.spark

check: static test-lib test-plugins test-gates ## what must be green before a change is done

test: venv ## everything that needs no second machine, two lanes at a time
	$(BIN)/python -m tests.lanes static test-lab test-lib test-matrix test-plugins test-gates test-campaigns

test-long: venv ## kills, power cuts and fuzzing at full count, every core in full, and the lab for five minutes
	for campaign in kill power fuzz; do $(BIN)/python -m tests.campaigns $$campaign; done
	HASTY_EVERY_S=60 $(PYTEST) tests/evidence/test_one_host.py
	$(BIN)/python -m tests.matrix
	$(MAKE) lab

conformance: venv ## flows of captures beside what Zeek's conn.log says: make conformance DATA=folder
	@test -n "$(DATA)" || { echo "name a folder with captures, conn.logs and index.json: make conformance DATA=folder"; exit 2; }
	$(BIN)/python -m tests.conformance $(DATA)

bench: venv ## what a sample and what events cost, beside other tools, in one run
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.short
	$(BIN)/python -m tests.bench.packets
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.meter

bench-scale: venv ## what the line costs as evidence grows to 52 hosts x 11 weeks, taking a segment in, and a join of 10 M x 10 M rows
	$(BIN)/python -m tests.bench.scale
	$(BIN)/python -m tests.bench.ingest
	$(BIN)/python -m tests.bench.join
