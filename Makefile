# make test: everything from nothing: virtual environment, packages, lint, tests.
PYTHON ?= python3
VENV ?= .venv

.PHONY: help install test lint clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(VENV)/.installed ## virtual environment with all packages, in $(VENV)

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -r requirements-dev.txt
	touch $@

test: install lint ## lint and run all tests
	$(VENV)/bin/python -m pytest -q --durations=5

lint: install
	$(VENV)/bin/ruff check .

clean: ## delete the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
