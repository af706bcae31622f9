# Every target works from a fresh clone: it needs Python 3.11 or later and the package registry, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
UV     := $(shell command -v uv 2>/dev/null)
ARGS   ?=
MINOR  := import sys; print("%d.%d" % sys.version_info[:2])
# A Python that is asked for must be the environment's; else whatever has made the environment stays.
HAS    := $(shell $(BIN)/python -c '$(MINOR)' 2>/dev/null)
WANTED := $(if $(filter file,$(origin PYTHON)),$(HAS),$(shell $(PYTHON) -c '$(MINOR)'))
FITS   := $(and $(HAS),$(filter $(HAS),$(WANTED)))
ifeq ($(FITS),)
$(shell rm -f $(STAMP))
endif

# Where it is set, each of the processes that tests start would compile the pipeline anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo up wheels test fuzz check bench chaos screenshots lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with the pinned, hashed dependencies
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try make PYTHON=python3.12")'
ifeq ($(FITS),)
	@test ! -d $(VENV) || echo "$(VENV) is of another Python, or of none any more: making it anew."
	@rm -rf $(VENV)
endif
ifeq ($(UV),)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the pinned dependencies into $(VENV); the first time takes about a minute."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
else
	@test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV)
	@uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r constraints.txt
	@uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
endif
	@touch $@

demo: $(STAMP) ## Send jobs by all three ways in, watch them travel, print their activities
	@$(BIN)/teamfit demo $(ARGS)

up: $(STAMP) ## Run the whole pipeline on this machine until Ctrl-C
	@$(BIN)/teamfit up $(ARGS)

# More runners than processors: most tests wait for servers, leases and processes for half of their time.
test: $(STAMP) ## Run the tests, on real servers
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(STAMP) ## Run the property tests with examples that no run has tried before
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -m "hypothesis and not chaos" --numprocesses 2 --timeout=1200 $(ARGS)

check: $(STAMP) ## Check style, types, imports between folders, dead code, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/deptry .

wheels: $(STAMP) ## Build the wheels of the pipeline, the transport and the client, into dist/
	@rm -f dist/*.whl
	$(BIN)/python -m hatchling build -t wheel -d dist
	cd streams/redis && $(CURDIR)/$(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/dist
	cd producers/wheel && $(CURDIR)/$(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/dist

bench: $(STAMP) ## Measure the transport and the pipeline; PEERS=dramatiq,celery (or all) compares
	$(BIN)/python -m infra.bench.transport $(if $(filter all,$(PEERS)),,--peers "$(PEERS)")
	$(BIN)/python -m infra.bench.pipeline $(ARGS)

# They mostly wait, so two share a machine. Named, since what prints their table is read from their folder.
CHAOS := tests/chaos/redis_transport tests/integration/redis_transport tests/conformance
chaos: $(STAMP) ## Break things on real processes; FAULT=name runs one row, TIMES=n sets how often
ifeq ($(FAULT),)
	TRANSPORT_RELIABILITY=docs/transport-reliability.md $(BIN)/python -m pytest -m chaos --numprocesses 2 --timeout=1800 $(CHAOS) $(ARGS)
endif
	$(BIN)/python -m tests.chaos.pipeline $(if $(FAULT),--fault $(FAULT),--write docs/reliability.md) $(if $(TIMES),--times $(TIMES))

screenshots: $(STAMP) ## Make the pictures of the console in docs/images, with the machine's Chromium
	@$(BIN)/python -m tests.browser.screenshots

lock: $(STAMP) ## Pin the newest versions that pyproject.toml allows, with hashes
	@test -n "$(UV)" || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(or $(UV),$(BIN)/uv) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --output-file constraints.txt
	@! grep -nE '://|--(extra-)?index-url|--find-links' constraints.txt

clean: ## Remove .venv and every cache
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
