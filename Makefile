# Everything below works on a fresh machine with Python >= 3.11 and nothing else; see `make help`.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
SIM_VENV := .venv-sim
DEPENDENCIES := pyproject.toml constraints.txt
PYTEST_ARGS ?=
OVERRIDES ?=
FROM ?=

# The first interpreter that is new enough and can make environments, or the one named by `make PYTHON=...`.
define MAKE_ENVIRONMENT
@for python in $(or $(PYTHON),python3 python python3.14 python3.13 python3.12 python3.11); do \
  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
    echo "Making $(@D:/bin=) with $$($$python --version)."; exec $$python -m venv $(@D:/bin=); \
  fi; \
done; \
echo "No Python >= 3.11 with its venv module was found: install one, or name it with make PYTHON=/path/to/python." >&2; \
exit 2
endef

define INSTALL
@echo "Installing airi-sim[$(EXTRAS)] into $(@D) (once; minutes on a slow network)."
@$(@D)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
@touch $@
endef

.PHONY: help demo test test-sim check check-style check-format check-types check-floors bench performance docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.demo  ## one policy in two worlds, side by side, in a minute
	@$(VENV)/bin/airi compare experiment=quickstart $(OVERRIDES)

test: $(VENV)/.test  ## every test, the measured world included
	@$(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

test-sim: $(SIM_VENV)/.test  ## the simulator's tests, in an environment without torch
	@! $(SIM_VENV)/bin/python -c 'import torch' 2>/dev/null || { echo "torch is installed in $(SIM_VENV): make clean" >&2; exit 1; }
	@$(SIM_VENV)/bin/python -c 'import airi_sim'
	@$(SIM_VENV)/bin/python -m pytest -n 2 -m "not real and not slow" $(PYTEST_ARGS)

check: $(addprefix check-,style format types floors)  ## style, format, types, floors

check-style: $(VENV)/.test
	@$(VENV)/bin/ruff check

check-format: $(VENV)/.test
	@$(VENV)/bin/ruff format --check

check-types: $(VENV)/.test
	@$(VENV)/bin/mypy

check-floors: $(VENV)/.test
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.demo  ## speed of the engine on named traces (OVERRIDES='bench.cases=all': on all of them)
	@$(VENV)/bin/airi bench $(OVERRIDES)

performance: $(VENV)/.demo  ## measure everything of docs/performance.md anew (half an hour) and put it there
	@$(VENV)/bin/airi bench bench.cases=all bench.repeat=5 hydra.run.dir=runs/performance $(OVERRIDES)
	@$(VENV)/bin/python docs/performance.py runs/performance

docs: $(VENV)/.test  ## draw the picture of the README anew (of FROM=<comparison>, else of a fresh one), list the policies, run the examples
	@$(VENV)/bin/python docs/img/readme.py $(FROM)
	@$(VENV)/bin/python docs/policies.py
	@$(VENV)/bin/python -m pytest tests/docs $(PYTEST_ARGS)

clean:  ## remove the environments and caches, keep runs
	rm -rf $(VENV) $(SIM_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(VENV)/bin/python $(SIM_VENV)/bin/python:
	$(MAKE_ENVIRONMENT)

$(VENV)/.demo: EXTRAS := real
$(VENV)/.demo: $(DEPENDENCIES) | $(VENV)/bin/python
	$(INSTALL)

$(VENV)/.test: EXTRAS := real,test,dev
$(VENV)/.test: $(DEPENDENCIES) | $(VENV)/bin/python
	$(INSTALL)
	@touch $(VENV)/.demo

$(SIM_VENV)/.test: EXTRAS := test
$(SIM_VENV)/.test: $(DEPENDENCIES) | $(SIM_VENV)/bin/python
	$(INSTALL)
