# whoneeds: the one door for people who use or build it. `make` alone prints this list.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.complete: python_lib/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable python_lib
	cd python_lib && ../$(BIN)/python -m pip install --quiet --group dev
	touch $@

.PHONY: venv
venv: $(VENV)/.complete ## make the virtual environment with everything in it

.PHONY: vocabulary
vocabulary: venv ## write docs/vocabulary.md from the records
	$(BIN)/python -m whoneeds.model.vocabulary > docs/vocabulary.md
