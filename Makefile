# Everything sets itself up: a machine needs Python 3.11 or later and make.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
FOUR = supervised or feature_matching or m2 or fixmatch

.PHONY: demo test test-slow test-newest lint docs

demo: $(INSTALLED)
	$(BIN)/python -m experiments.digits_demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# The newest jax that is supported, on Python 3.12 or later: four methods and the command line.
test-newest:
	$(MAKE) VENV=.venv-newest CONSTRAINTS=constraints-jax012.txt newest

newest: $(INSTALLED)
	$(BIN)/python -m pytest tests/test_conformance.py -k "$(FOUR)"
	$(BIN)/python -m pytest tests/test_cli.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: fails on a warning, a link or an anchor that leads nowhere.
docs: $(INSTALLED)-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(INSTALLED)-docs: $(INSTALLED) constraints-docs.txt
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --constraint constraints-docs.txt --editable '.[docs]'
	touch $(INSTALLED)-docs

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ssl_gen needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $(INSTALLED)
