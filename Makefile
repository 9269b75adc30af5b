# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
# The other SGLang version that Governor is checked against, in an environment of its own.
LATEST := .venv-latest
BIN := $(VENV)/bin
UV := $(VENV)/uv/bin/uv
WORKERS ?= 2
MINUTES ?= 10
export OMP_NUM_THREADS ?= 1
# SGLang's sources take ten seconds to compile, in each of an engine's processes: keep the result.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup models demo serve test test-full-size test-sglang-latest bench fuzz readme lint format \
	requirements clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

setup: $(VENV)/.ready ## install the engine, the controller and the tools into .venv

$(UV):
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready: requirements/dev.txt pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --python $(BIN)/python -r requirements/dev.txt
	$(UV) pip install --python $(BIN)/python --no-deps -e .
	touch $@

models: setup ## train the tiny models (once; about two minutes, cached)
	$(BIN)/python -m governor_bench.tiny_models

demo: setup ## what Governor does for users, on a CPU, in a few minutes
	$(BIN)/governor demo --folder build/demo

serve: setup ## engine and controller on a CPU, left running for you to try
	$(BIN)/governor up

lint: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## everything that runs without a GPU, in WORKERS processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

$(LATEST)/.ready: requirements/sglang-latest.txt pyproject.toml | $(UV)
	test -x $(LATEST)/bin/python || \
		$(UV) venv --quiet --allow-existing --python $(PYTHON) $(LATEST)
	$(UV) pip install --python $(LATEST)/bin/python -r requirements/sglang-latest.txt
	$(UV) pip install --python $(LATEST)/bin/python --no-deps -e .
	touch $@

# These run in a reduced size in `make test`.
FULL_SIZE_TESTS := $(addprefix tests/emulated/test_,churn_on_emulated_engine.py many_engines.py)

test-full-size: setup ## hundreds of aborts and hang-ups, and several engines started together
	TEST_FULL_SIZE=1 $(BIN)/python -m pytest $(FULL_SIZE_TESTS)

# Hook signatures, start-up and refusals; what each step is shown; both loops against stock, with
# aborts in flight; request fields; faults; prefill and retraction by order; the emulated engine.
LATEST_TESTS := tests/platforms tests/engine tests/emulated \
	--ignore tests/emulated/test_eval_on_emulated_engine.py \
	$(addprefix tests/server/test_,startup.py equality.py request_fields.py faults.py \
	governed_prefill.py parallel.py)

test-sglang-latest: $(LATEST)/.ready ## what touches SGLang, on the newest version it is checked with
	$(LATEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		$(LATEST_TESTS)

bench: setup ## decision latency and overhead on this machine
	$(BIN)/governor bench decision --json build/bench/decision.json
	$(BIN)/governor bench overhead --json build/bench/overhead.json

fuzz: setup ## coverage-guided fuzzing of all that reads from outside, for MINUTES
	$(UV) pip install --quiet --python $(BIN)/python -r requirements/fuzz.txt
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

readme: setup ## write the README's figures from benchmarks/results
	$(BIN)/python -m governor_bench.readme

format: setup ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

TOOLS := cluster bench dev
requirements: $(UV) ## compile the requirement files anew from pyproject.toml
	$(UV) pip compile --quiet --no-header --upgrade --python-version 3.11 \
		pyproject.toml -o requirements/controller.txt
	$(UV) pip compile --quiet --no-header --upgrade --python-version 3.11 \
		$(addprefix --extra ,engine $(TOOLS)) pyproject.toml -o requirements/dev.txt
	$(UV) pip compile --quiet --no-header --upgrade --python-version 3.11 \
		$(addprefix --extra ,engine-latest $(TOOLS)) pyproject.toml \
		-o requirements/sglang-latest.txt
	$(UV) pip compile --quiet --no-header --upgrade --python-version 3.11 --extra fuzz \
		-c requirements/dev.txt pyproject.toml -o requirements/fuzz.txt

clean: ## remove the environment and everything built
	rm -rf $(VENV) $(LATEST) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
