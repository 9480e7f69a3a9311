# Needs Python 3.11 or newer with pip, and make. Everything goes into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types suites unit cluster mutants simulate soak bench pictures clean

demo: .venv/.for-demo # the main job, on the store in memory
	$(BIN)/osdisco demo

test: lint types suites # everything that must hold

lint: .venv/.for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.for-test
	$(BIN)/mypy

suites: .venv/.for-test # real servers: see "Run the suites" in CONTRIBUTING.md
	$(BIN)/pytest -n $(JOBS) --dist loadfile

unit: .venv/.for-test # the tests that need no server
	$(BIN)/pytest --no-servers

cluster: .venv/.for-test # the storms on clusters of three, with what they measured; needs Docker
	$(BIN)/pytest tests/cluster -rP --show-capture=stdout

mutants: .venv/.for-test # known mistakes, each of which its test must notice
	OSDISCO_MUTANT_SEEDS=$(OSDISCO_MUTANT_SEEDS) $(BIN)/python tests/mutants/run.py

simulate: .venv/.for-test # recipes and discovery by SEEDS seeds on all cores; keeps the result in docs/simulation.md and .json
	$(BIN)/python tests/simulate.py --seeds $(SEEDS)

# Most tests of servers wait for them. -n 0 is one process, in which failures can be looked into by --pdb.
JOBS ?= 2
SEEDS ?= 5000
OSDISCO_MUTANT_SEEDS ?= 1000

soak: .venv/.for-test # ten minutes of churn on real servers, at whose end memory, tasks and sockets are as they were
	$(BIN)/python tests/soak.py --seconds $(SOAK_SECONDS)

SOAK_SECONDS ?= 600

bench: .venv/.for-bench # half an hour on a quiet machine with etcd and Consul; keeps the figures in docs/benchmarks.*
	$(BIN)/python -m benchmarks --start --json docs/benchmarks.json
	$(BIN)/python -m benchmarks.report docs/benchmarks.json docs/benchmarks.md

pictures: # docs/pictures, by Graphviz's `dot`
	$(PYTHON) docs/pictures/draw.py

clean:
	rm -rf .venv .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PIP := $(BIN)/python -m pip install --quiet

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "osdisco needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.for-demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[cli]'
	@touch $@

.venv/.for-test: pyproject.toml | $(BIN)/python
	$(PIP) 'pip>=25.1' # the first that knows dependency groups
	$(PIP) --editable '.[all]' --group dev
	@touch $@ .venv/.for-demo

.venv/.for-bench: .venv/.for-test
	$(PIP) --group bench
	@touch $@

.NOTPARALLEL:
