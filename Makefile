# Two commands are all a newcomer needs: `make quickstart` and `make test`. Wants Python 3.11 or newer, and make.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STORE ?= distillbench-runs
# Two busy torch threads on a shared machine spin; one is faster.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help quickstart test vllm pytest lint type imports docs blocks format clean

help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

quickstart: $(VENV)/.installed ## Install, run the quick start, print its table and where the report is
	$(BIN)/distillbench --store $(STORE) run examples/quickstart.yaml

test: lint type imports pytest ## The whole test suite, lint, types and imports

vllm: $(VENV)/.installed-dev ## The tests of the vllm engine, on a real vLLM in an environment of its own
	$(BIN)/tox -e vllm

pytest: $(VENV)/.installed-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev ## Style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.installed-dev ## Types, strictly
	$(BIN)/mypy

imports: $(VENV)/.installed-dev ## Which package may import which
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.installed-dev ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

blocks: $(VENV)/.installed-dev ## Write what the docs say of options, commands and hooks anew, from the code
	$(BIN)/python docs/generated.py

format: $(VENV)/.installed-dev ## Put every file into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and what tools left; results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch by itself and first: pip then takes the build that fits this machine, and nothing later replaces it.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -qq --constraint constraints.txt pip
	$(BIN)/python -m pip install -qq --constraint constraints.txt torch
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --constraint constraints.txt --group dev
	touch $@
