# Needs Python 3.11 or newer with pip, and make. Everything goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE := # tests start many processes, which would compile everything each time

ifneq ($(wildcard .servers),) # binaries of etcd and Consul that somebody has put here
export OSDISCO_TEST_SERVERS ?= $(CURDIR)/.servers
endif

.PHONY: demo test lint types suites unit cluster faults mutants simulate soak leaks fuzz bench docs pictures lock sbom clean

demo: .venv/.for-demo # the main job with calls that survive, and how a search cluster's state reaches its readers, on the store in memory
	$(BIN)/osdisco demo
	$(BIN)/osdisco demo --cluster

test: lint types suites # everything that must hold

lint: .venv/.for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive osdisco backends benchmarks

types: .venv/.for-test
	$(BIN)/mypy

suites: .venv/.for-test # real servers: see "Run the suites" in CONTRIBUTING.md
	$(BIN)/pytest -n $(JOBS) --dist loadfile

unit: .venv/.for-test # the tests that need no server
	$(BIN)/pytest --no-servers

cluster: .venv/.for-test # the storms on clusters of three, with what they measured; needs Docker
	$(BIN)/pytest tests/cluster -rP --show-capture=stdout

faults: .venv/.for-test # every test that holds a fault, FAULTS_ROUNDS times; keeps what passed in docs/reliability.md and .json
	$(BIN)/python tests/reliability.py --rounds $(FAULTS_ROUNDS) -q

FAULTS_ROUNDS ?= 3

mutants: .venv/.for-test # known mistakes, each of which its test must notice; MUTANT_SHARE=3 tries one of three
	OSDISCO_MUTANT_SEEDS=$(OSDISCO_MUTANT_SEEDS) OSDISCO_MUTANT_SHARE=$(MUTANT_SHARE) $(BIN)/python tests/mutants/run.py

simulate: .venv/.for-test # recipes and discovery by SEEDS seeds on all cores; keeps the result in docs/simulation.md and .json
	$(BIN)/python tests/simulate.py --seeds $(SEEDS)

# Most tests of servers wait for them. -n 0 is one process, in which failures can be looked into by --pdb.
JOBS ?= 2
SEEDS ?= 5000
OSDISCO_MUTANT_SEEDS ?= 1000
MUTANT_SHARE ?= 1

soak: .venv/.for-test # ten minutes of churn on real servers, at whose end memory, tasks and files are as they were
	$(BIN)/python tests/soak.py --seconds $(SOAK_SECONDS)

SOAK_SECONDS ?= 600

leaks: .venv/.for-test # LEAK_CYCLES a transport, a third of them cancelled, and that churn; keeps the result in docs/leaks.json
	$(BIN)/python tests/leaks/run.py --cycles $(LEAK_CYCLES) --seconds $(SOAK_SECONDS) --json docs/leaks.json

LEAK_CYCLES ?= 10000

fuzz: .venv/.for-fuzz # what reads others' bytes, each for FUZZ_SECONDS, guided by coverage; what is found is in build/fuzz
	$(BIN)/python tests/security/fuzz.py --seconds $(FUZZ_SECONDS)

FUZZ_SECONDS ?= 60

bench: .venv/.for-bench # an hour on a quiet machine with etcd and Consul; keeps the figures in docs/benchmarks.*
	$(BIN)/python -m benchmarks --start --json docs/benchmarks.json
	$(BIN)/python -m benchmarks.report docs/benchmarks.json docs/benchmarks.md

docs: .venv/.for-docs # site/, by mkdocs: a broken link or a docstring that cannot be read is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: # docs/pictures, by Graphviz's `dot`
	$(PYTHON) docs/pictures/draw.py

# What is installed for tests, and what of it comes with osdisco: versions and hashes, for all Pythons that are supported.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock'
RUNTIME := etcd etcd-gateway consul health opensearch cli mesh prometheus otel serve

lock: .venv/.for-release # requirements/*.txt after a change of pyproject.toml; UPGRADE=--upgrade takes what is newest
	$(LOCK) $(UPGRADE) pyproject.toml $(RUNTIME:%=--extra %) --output-file requirements/runtime.txt
	$(LOCK) $(UPGRADE) pyproject.toml --all-extras --group dev --constraint requirements/runtime.txt \
		--output-file requirements/test.txt
	$(LOCK) $(UPGRADE) --group fuzz --output-file requirements/fuzz.txt
	$(LOCK) $(UPGRADE) --group docs --constraint requirements/test.txt --output-file requirements/docs.txt

sbom: .venv/.for-release # dist/sbom.json: all that osdisco comes with, all drivers included, as CycloneDX
	rm -rf dist/environment
	$(PYTHON) -m venv --without-pip dist/environment
	$(BIN)/uv pip install --quiet --python dist/environment --require-hashes --requirement requirements/runtime.txt
	$(BIN)/uv pip install --quiet --python dist/environment --no-deps .
	rm dist/environment/lib/*/site-packages/osdisco-*.dist-info/direct_url.json # this machine's path
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/sbom.json dist/environment
	rm -rf dist/environment

clean:
	rm -rf .venv .servers build .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PIP := $(BIN)/python -m pip install --quiet

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "osdisco needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/.for-demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[cli,mesh,opensearch]'
	@touch $@

.venv/.for-test: pyproject.toml requirements/test.txt | $(BIN)/python
	$(PIP) --require-hashes --requirement requirements/test.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ .venv/.for-demo

.venv/.for-bench: .venv/.for-test | .venv/.knows-groups
	$(PIP) --group bench
	@touch $@

.venv/.for-docs: requirements/docs.txt .venv/.for-test
	$(PIP) --require-hashes --requirement requirements/docs.txt
	@touch $@

.venv/.for-fuzz: requirements/fuzz.txt .venv/.for-test
	$(PIP) --require-hashes --requirement requirements/fuzz.txt
	@touch $@

.venv/.for-release: pyproject.toml | .venv/.knows-groups
	$(PIP) --group release
	@touch $@

.venv/.knows-groups: | $(BIN)/python
	$(PIP) 'pip>=25.1' # the first that knows dependency groups
	@touch $@

.NOTPARALLEL:
