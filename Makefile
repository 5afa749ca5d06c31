# Everything runs in .venv, made on first use with uv where it is on PATH, else with venv and pip.
#   make repro        the whole graph: data, training, evaluation
#   make help         all targets

SHELL := /bin/sh
BIN := .venv/bin
INSTALLED := .venv/.installed
# Another interpreter: make PYTHON=/path/to/python3.12 repro
PYTHON ?=
JOBS ?= 2

# dvc.yaml says plain `python`, so that no machine's path is in it: .venv comes first on PATH.
OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport VIRTUAL_ENV PYTHONHOME
# Nothing reports to outside, and uv takes the Python that is there instead of downloading one.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help env repro cache times test check format smoke figures site up down faults bench-runs lock clean distclean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED)  ## make or update the environment in .venv

# Quick when nothing has changed: the stamp is newer than what it was made from.
$(INSTALLED): requirements.lock pyproject.toml
	@PATH="$(OUTER_PATH)" PYTHON="$(PYTHON)" sh scripts/environment.sh
	@touch $@

repro: $(INSTALLED)  ## run the whole graph (what is up to date is taken from the cache) and print each stage's time
	@begin=$$(date +%s); $(BIN)/python -m pipelines.dvc_cache --quick && $(BIN)/python -m dvc repro && $(BIN)/python -m pipelines.times --since $$begin \
		&& echo 'Next: source .venv/bin/activate, then muomni examples: unseen questions, and the commands that ask them'

cache: $(INSTALLED)  ## hash dvc's cache and the outputs again; what is damaged is put aside, for make repro to make
	@$(BIN)/python -m pipelines.dvc_cache

times: $(INSTALLED)  ## print the time and memory of each stage's last run
	@$(BIN)/python -m pipelines.times

# A file's tests stay together, since they share what is expensive to set up. Each process takes up to 2 GB.
test: $(INSTALLED)  ## run the tests, in two processes (JOBS=1: in one)
	@$(BIN)/python -m pytest $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder)

check: $(INSTALLED)  ## lint, format, types, the graph's dependencies against the real imports, docstrings, documents, spelling, packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pipelines.check_graph
	$(BIN)/python -m pipelines.documents
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m pipelines.audit

format: $(INSTALLED)  ## put imports and formatting right, and the dependencies in dvc.yaml
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m pipelines.check_graph --write

figures: $(INSTALLED)  ## put figures, sizes, quoted code and the graph's picture in README and docs right
	@$(BIN)/python -m pipelines.documents --write

site: $(INSTALLED)  ## build the documents and the API reference as a site, build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

smoke: $(INSTALLED)  ## run the graph at profile smoke in a copy, some minutes (KEEP=--keep: leave it in .muomni/smoke)
	@$(BIN)/python -m pipelines.smoke $(KEEP)

up: $(INSTALLED)  ## start the Prefect server, its worker and the MLflow UI; Ctrl-C ends them
	@$(BIN)/muomni up $(UP)

down: $(INSTALLED)  ## end them where they run in the background (make up UP=--detach)
	@$(BIN)/muomni down

faults: $(INSTALLED)  ## kill every stage at 200 drawn places and compare what it writes; about an hour
	@$(BIN)/python benchmarks/faults.py

bench-runs: $(INSTALLED)  ## measure what runs from Prefect cost, and a queue of 20
	@$(BIN)/python benchmarks/runs.py

# One version of each package for both Pythons, with hashes, and no index address in the file. Versions that are in
# the file stay where they still fit; `make lock UPGRADE=--upgrade` takes the newest.
lock:  ## resolve pyproject.toml into requirements.lock (needs uv)
	@command -v uv >/dev/null || { echo "error: make lock needs uv on PATH: pip install uv" >&2; exit 2; }
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --fork-strategy fewest \
	    --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet $(UPGRADE) \
	    -o requirements.lock

clean:  ## remove caches of the tools and what the smoke run left
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .muomni/smoke *.egg-info
	find muomni pipelines tests -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## also remove .venv
	rm -rf .venv
