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

# What make starts ends with it, also where make itself is killed. (Ctrl-C reaches both.)
WITH_MAKE := $(shell setpriv --pdeathsig TERM true 2>/dev/null && echo setpriv --pdeathsig TERM)

.DEFAULT_GOAL := help
.PHONY: help setup models demo serve test test-full-size test-sglang-latest test-sglang-kits bench \
	fuzz readme lint format requirements clean

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

demo: setup ## what users get with and without Governor, on a CPU that plays a GPU
	exec $(WITH_MAKE) $(BIN)/governor demo --folder build/demo

# POLICY, ENGINE_PORT, CONTROLLER_PORT, LOG_DIR and ENGINE_ARGS say how; README, "Two commands".
serve: setup ## engine and controller on a CPU, left running for you to try
	exec $(WITH_MAKE) $(BIN)/governor up $(if $(ENGINE_PORT),--port $(ENGINE_PORT)) \
		$(if $(CONTROLLER_PORT),--controller-port $(CONTROLLER_PORT)) \
		$(if $(POLICY),--policy '$(POLICY)') $(if $(LOG_DIR),--log-dir '$(LOG_DIR)') \
		$(if $(ENGINE_ARGS),-- $(ENGINE_ARGS))

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
	$(addprefix tests/server/test_,startup.py equality.py request_fields.py request_headers.py faults.py \
	governed_prefill.py load_reports.py parallel.py weight_update.py)

test-sglang-latest: $(LATEST)/.ready ## what touches SGLang, on the newest version it is checked with
	$(LATEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		$(LATEST_TESTS)

# One process: engines of kits take turns, and a kit's own patience suits an idle machine.
KITS := -m pytest -v tests/kits/all_kits.py
test-sglang-kits: setup $(LATEST)/.ready ## SGLang's own test kits, stock and governed, both versions
	rc=0; $(BIN)/python $(KITS) || rc=$$?; $(LATEST)/bin/python $(KITS) || rc=$$?; exit $$rc

bench: setup ## decision latency and overhead on this machine
	exec $(WITH_MAKE) $(BIN)/governor bench decision --json build/bench/decision.json
	exec $(WITH_MAKE) $(BIN)/governor bench overhead --json build/bench/overhead.json

fuzz: setup ## coverage-guided fuzzing of all that reads from outside, for MINUTES
	$(UV) pip install --quiet --python $(BIN)/python -r requirements/fuzz.txt
	exec $(WITH_MAKE) $(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

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
