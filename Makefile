# Everything a person or CI does here starts with `make`. `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help venv demo test lint lock bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

venv: $(VENV)/.ok ## Set up .venv from requirements.lock

$(VENV)/.ok: requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once; about two minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Shoal needs Python 3.11 or later, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## Run the main job on real data
	@$(BIN)/shoal demo --yes

lint: venv ## Style, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=tests/kubernetes $(BIN)/mypy -p cluster
	$(BIN)/lint-imports

format: venv ## Lay out the code and fix what can be fixed without thinking
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-fast: venv ## Tests for after each change: no cluster, no JVM, no Kubernetes; under two minutes
	@$(BIN)/python tests/lanes/fast.py $(PYTEST_ARGS)

coverage: venv ## Tests of `make test-fast` with the lines that they run: a table, and .coverage-html/
	@$(BIN)/python tests/lanes/fast.py --cov=shoal --cov-report=term:skip-covered \
		--cov-report=html:.coverage-html $(PYTEST_ARGS)

.PHONY: format test-fast coverage docs

# In an environment of its own, as the site needs nothing of ours but its source.
.venv-docs/.ok: requirements-docs.lock
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

docs: .venv-docs/.ok ## Build the site in site/, with every internal link checked
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "site/index.html"

# Tests wait more than they compute: two lanes on two cores. LANES=0 runs one test after the other.
LANES ?= 2
test: venv lint ## Run all tests that this machine can run (LANES=2 beside each other)
	$(BIN)/python tests/lanes/whole.py $(LANES) $(PYTEST_ARGS)

lock: ## Rewrite the requirements*.lock files from pyproject.toml (needs uv on PATH)
	uv pip compile pyproject.toml --group dev --extra all --generate-hashes --no-annotate --no-header \
		--python-version 3.11 --no-emit-index-url --upgrade -o requirements.lock
	uv pip compile pyproject.toml tests/versions/tools.in --resolution lowest-direct $(OLD) -o tests/versions/oldest.lock
	uv pip compile pyproject.toml tests/versions/tools.in --override tests/versions/plain.in $(OLD) \
		-o tests/versions/plain.lock
	uv pip compile pyproject.toml tests/versions/tools.in $(subst 3.11,3.12,$(OLD)) --universal \
		-o tests/versions/newer.lock
	for group in bench docs; do \
		uv pip compile --group $$group --generate-hashes --no-annotate --no-header --python-version 3.11 \
			--no-emit-index-url --upgrade -o requirements-$$group.lock || exit 1; \
	done

OLD := --generate-hashes --no-annotate --no-header --python-version 3.11 --no-emit-index-url --only-binary :all: --upgrade

versions: skew ## Run tests with the oldest versions that pyproject.toml admits, with a Dask without expressions, with newer Pythons (ONLY=python3.13)
	$(PYTHON) tests/versions/run.py $(ONLY)

skew: venv ## Use clusters of Shoal 0.1.0 with today's, and the other way round, on one ledger
	$(BIN)/python tests/versions/skew.py

.PHONY: versions skew

KUBE := PYTHONPATH=tests/kubernetes $(BIN)/python -m cluster

kube: venv ## Start a real Kubernetes for tests (SHAPE=node|fleet, NAME=, ARGS=--audit)
	@$(KUBE) up $(if $(SHAPE),--shape $(SHAPE)) $(if $(NAME),--name $(NAME)) $(ARGS)

kube-status: venv ## Say what of Kubernetes can run here, and what runs
	@$(KUBE) status

kube-down: venv ## End what `make kube` started (NAME= one alone)
	@$(KUBE) down $(if $(NAME),--name $(NAME))

kube-build: venv ## Compile Kubernetes, etcd, CoreDNS and kwok (once, ten minutes)
	@$(KUBE) build

kube-images: venv ## Build the project's images for tests and load them into what runs
	@$(KUBE) images

.PHONY: kube kube-status kube-down kube-build kube-images

soak: soak-tables soak-filters soak-steps soak-queue soak-clusters soak-kills soak-usage soak-fleet soak-operator soak-more others soak-quick-start ## Everything that is killed, at full length (hours)

SOAK := $(BIN)/python tests/surface/write_soak.py

SOAK_TABLES ?= 50
soak-tables: venv ## Kill writers 600 times, run long random sequences, TPC-H at scale 1; writes docs/soak.md
	@export SHOAL_SOAK=$(SOAK_TABLES) SHOAL_TPCH_SCALE=1; \
		$(BIN)/python -m pytest --timeout 3600 --junitxml=.soak-tables.xml -o junit_family=xunit1 \
		tests/tables/test_exactly_once.py tests/tables/test_model.py tests/tables/test_tpch.py \
		tests/tables/test_run_keys.py; \
		code=$$?; $(BIN)/python tests/tables/write_soak.py .soak-tables.xml; rm -f .soak-tables.xml; exit $$code

SOAK_FILTERS ?= 2000
soak-filters: venv ## Draw 2,000 tables with 100 filters each, against Spark and pandas; writes docs/soak.md
	SHOAL_FILTER_TABLES=$(SOAK_FILTERS) $(SOAK) filters tests/tables/test_filter_property.py

SOAK_LIVES ?= 2400
soak-steps: venv ## Draw a hundred thousand steps of whatever may happen to a home; writes docs/soak.md
	SHOAL_SOAK_LIVES=$(SOAK_LIVES) $(SOAK) steps -o timeout=7200 tests/governing/test_random_steps.py \
		tests/governing/test_random_steps_local.py

soak-queue: venv ## 32 processes on one ledger for a minute
	SHOAL_TEST_PROCESSES=32 SHOAL_TEST_SECONDS=60 $(SOAK) queue -s tests/homes/test_contention.py

# Daft needs an older pyarrow than ours, so it is measured in an environment of its own.
.venv-bench/.ok: requirements-bench.lock
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

bench: venv .venv-bench/.ok ## Measure against peers and write docs/benchmarks.md (SHOAL_BENCH_ROWS= for less)
	@for file in tests/bench/bench_*.py; do echo "$$file"; $(BIN)/python "$$file" || exit 1; done
	@$(BIN)/python tests/bench/write_docs.py

.PHONY: soak soak-tables soak-filters soak-steps soak-queue soak-clusters soak-kills soak-quick-start

clean: ## Remove what `make` built
	rm -rf $(VENV) .venv-bench .venv-docs site .coverage .coverage-html .pytest_cache .mypy_cache .ruff_cache

SOAK_DASK  ?= 300
SOAK_SPARK ?= 60
soak-clusters: venv ## Start clusters by the hundred; writes docs/soak.md
	SHOAL_SOAK_DASK=$(SOAK_DASK) SHOAL_SOAK_SPARK=$(SOAK_SPARK) $(SOAK) clusters -o timeout=7200 \
		tests/surface/test_faults.py

SOAK_KILLS ?= 100
SOAK_SPARK_KILLS ?= 3
soak-kills: venv ## Kill and interrupt at every moment that has a name; writes docs/soak.md
	SHOAL_SOAK_KILLS=$(SOAK_KILLS) SHOAL_SOAK_SPARK_KILLS=$(SOAK_SPARK_KILLS) $(SOAK) kills -o timeout=7200 \
		tests/homes/test_crash_points.py tests/cli/test_interrupts.py \
		tests/cli/test_disk_full.py tests/cli/test_two_users.py

SOAK_USAGE ?= 10000
soak-usage: venv ## Draw 10,000 steps of what people do with clusters; writes docs/soak.md
	SHOAL_USAGE_STEPS=$(SOAK_USAGE) $(SOAK) usage --numprocesses $(LANES) --maxschedchunk 1 tests/usage

SOAK_FLEET ?= 200x1000x10
soak-fleet: venv ## Govern 1,000 clusters of 10 workers on simulated nodes (SOAK_FLEET=users x clusters x workers); writes docs/soak.md
	SHOAL_FLEET=$(SOAK_FLEET) $(SOAK) fleet -s -o timeout=7200 tests/kubernetes/test_home_fleet.py

soak-operator: venv ## What every home owes, all of it, where dask-kubernetes' operator makes the pods
	SHOAL_SOAK_OPERATOR=1 $(SOAK) operator -o timeout=7200 tests/kubernetes/test_home_behaviour_by_the_operator.py

soak-more: venv ## Whatever carries the mark soak: more tools, engines, moments and signals than `make test` takes
	$(SOAK) more -m soak -o timeout=7200 tests

others: venv ## Run Dask's own tests and Spark's doctests on clusters of ours; writes docs/soak.md
	$(SOAK) others -o timeout=7200 tests/others/dasks_own.py tests/others/spark_doctests.py

.PHONY: soak-usage soak-fleet soak-operator soak-more others

soak-quick-start: venv ## Time the quick start from an empty home and an empty folder
	SHOAL_SOAK_QUICK_START=1 $(SOAK) quick-start tests/docs/test_examples.py -k empty_home
