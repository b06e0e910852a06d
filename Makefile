# VELOX. `make day` on a bare machine (Python 3.11 or newer, git, make) sets everything up and runs one trading day.
#
#   make day [DATE=2024-01-15] [SPEED=max|1.0|600] [CONFIG=config/system_simulated.yaml] [SCENARIO=crash] [DATA=PATH]
#   make test [COVERAGE=yes] [WORKERS=2] [EXAMPLES=same] | unit | coverage | check | format | compiled | screenshots | clean
#   make kill-matrix     every blow to what Prefect runs, the long outages too: about ten minutes
#   make simulate [WORLD=day|flatten] [SEEDS=200] [FIRST_SEED=1]

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup day test unit coverage kill-matrix check format simulate compiled screenshots lock clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.velox-ready
TYPED := velox_core flows tasks deployments benchmarks
# uv trusts its own list of authorities; behind a company's proxy the machine's list is the one that knows the proxy
ifeq ($(origin SSL_CERT_FILE),undefined)
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export SSL_CERT_FILE := /etc/ssl/certs/ca-certificates.crt
endif
endif
# Reading a package's source again costs each process of a day or a test two to ten seconds; the bytecode stays in .venv
# and in __pycache__, which git does not see.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= 2
SEEDS ?= 200
FIRST_SEED ?= 1
WORLD ?= day

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(READY)

# The lock names every package with its hashes, uv included, so a machine gets what was tested or nothing.
$(READY): requirements.lock pyproject.toml
	@python=""; \
	for candidate in "$${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "setup: Python 3.11 or newer was not found. Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "setup: $$("$$python" --version) cannot make virtual environments: the venv module is missing. Install it (Debian, Ubuntu: apt-get install python3-venv) and run make again." >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "setup: making $(VENV) with $$("$$python" --version)"; rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi
	@wanted="$$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)"; \
	if [ "$$($(BIN)/uv --version 2>/dev/null | cut -d' ' -f2)" != "$$wanted" ]; then \
	  echo "setup: installing uv $$wanted"; \
	  sed -n '/^uv==/,/^    # via/p' requirements.lock > $(VENV)/uv.lock; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock; \
	fi
	@echo "setup: installing the packages of requirements.lock"
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" UV_COMPILE_BYTECODE_TIMEOUT=600 \
	  $(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)
	@echo "setup: ready"

day: $(READY)
	@$(BIN)/velox day $(if $(CONFIG),--config '$(CONFIG)') $(if $(DATE),--date '$(DATE)') $(if $(SPEED),--speed '$(SPEED)') \
	  $(if $(SCENARIO),--scenario '$(SCENARIO)') $(if $(DATA),--data '$(DATA)')

# What decides about orders and money has to be covered to 95 %; CI runs `make test COVERAGE=yes`.
COVERED := velox_core.domain velox_core.risk velox_core.risk_manager velox_core.order_manager
COVERAGE_GATE := $(addprefix --cov=,$(COVERED)) --cov-branch --cov-fail-under=95

# A file's tests stay with one worker; tests/conftest.py puts the long files first, so that no worker ends alone.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(if $(COVERAGE),$(COVERAGE_GATE) --cov-report=)

unit: $(READY)
	$(BIN)/python -m pytest tests/unit

coverage: $(READY)
	$(BIN)/python -m pytest tests/unit $(COVERAGE_GATE) --cov-report=term-missing:skip-covered

# What the quick tests leave out of the blows to flow, serve, worker and server while the engine holds positions.
kill-matrix: $(READY)
	VELOX_KILL_MATRIX=full $(BIN)/python -m pytest --numprocesses=4 --dist=load tests/integration/test_prefect_kills.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

simulate: $(READY)
	$(BIN)/python -m tests.simulation.run --world $(WORLD) --seeds $(SEEDS) --first-seed $(FIRST_SEED)

# The hot modules as machine code, for long replays; needs a C compiler. Nothing else uses it.
compiled: $(READY)
	$(BIN)/python -m benchmarks.compiled

# The pictures of README and docs, from a real day; needs chromium.
screenshots: $(READY)
	$(BIN)/python docs/screenshots.py

# After a change of the dependencies in pyproject.toml. No index address and no machine path may be in the lock.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --quiet --output-file requirements.lock

# The embedded Redis is stopped, nothing of var and logs is removed.
clean:
	@if [ -x $(BIN)/python ] && [ -d "$${VELOX__VAR:-var}/redis" ]; then \
	  $(BIN)/python -c 'import sys; from pathlib import Path; from velox_core.redis_server import EmbeddedRedis; EmbeddedRedis(Path(sys.argv[1]).resolve() / "redis").stop()' "$${VELOX__VAR:-var}"; \
	fi
	rm -rf build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis velox.egg-info
