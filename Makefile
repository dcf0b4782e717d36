# Tandem's commands. Needed: Python 3.11, Java 17 (or 21), make, git. Everything else comes from requirements.lock.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

export TANDEM_HOME ?= $(CURDIR)/.tandem
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
# Without byte code every start of Airflow compiles it anew.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH

BIN := $(VIRTUAL_ENV)/bin
READY := .venv/.ready
ARGS ?=

DEBIAN := chromium fonts-dejavu-core nginx redis-server postgresql

.PHONY: help
help: ## Show these commands
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: demo
demo: $(READY) java ## Data, Airflow, publishing, edge and shop page on this machine (ARGS=--check: ask it and stop; KAFKA=1)
	@$(if $(KAFKA),export TANDEM_KAFKA="$${TANDEM_KAFKA:-127.0.0.1:9092}";) \
	exec $(BIN)/python -m deploy.demo $(ARGS)

.PHONY: airflow
airflow: $(READY) java ## Airflow with its web page, and the embedded servers; Ctrl-C stops both
	@exec $(BIN)/python -m deploy.airflow standalone

.PHONY: start stop status
start: $(READY) ## Start the embedded servers (a Redis per region, the object store) and leave them running
	@exec $(BIN)/python -m deploy.services start
stop: $(READY) ## Stop the embedded servers, and the broker
	@$(BIN)/python -m deploy.services stop
	@exec $(BIN)/python -m deploy.kafka stop
status: $(READY) ## Which embedded servers run
	@exec $(BIN)/python -m deploy.services status

.PHONY: kafka
kafka: $(READY) java ## Fetch the jars of a Kafka broker for this machine, once (then: python -m deploy.kafka start)
	@exec $(BIN)/python -m deploy.kafka fetch

.PHONY: test
test: lint java ## Lint, types, imports and all tests (ARGS: further arguments for pytest)
	@$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(ARGS)

.PHONY: lint
lint: $(READY) ## Lint, format, types and the table of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: bench
bench: $(READY) java ## All benchmarks (ARGS="--json FILE" with make bench-NAME)
	@for subject in $(filter-out __init__ _%,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
		echo "== $$subject"; $(BIN)/python -m benchmarks.$$subject $(ARGS); done

bench-%: $(READY) java ## One benchmark: make bench-edge
	@exec $(BIN)/python -m benchmarks.$* $(ARGS)

.PHONY: environment
environment: $(READY) ## Make the Python environment (.venv) from requirements.lock

$(READY): requirements.lock deploy/uv.txt pyproject.toml
	@python=""; for candidate in $(PYTHON) python3.11 python3 python; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 was not found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Making .venv from requirements.lock: about 200 packages, 2 GB, one to three minutes"; \
	"$$python" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/uv.txt
	@$(BIN)/uv pip install --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: java
java:
	@java="$${JAVA_HOME:+$$JAVA_HOME/bin/}java"; \
	version=$$("$$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' || true); \
	case "$$version" in 17|21) ;; *) \
		echo "Spark needs Java 17 (or 21); $$java gives $${version:-none}. Install it (Debian: openjdk-17-jre-headless) or set JAVA_HOME" >&2; \
		exit 1;; esac

.PHONY: system-deps
system-deps: ## Install the Debian packages that some tests need: browser, nginx, Redis 7, PostgreSQL (as root)
	@missing=""; for package in $(DEBIAN); do \
		dpkg-query --show --showformat='$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then echo "all there: $(DEBIAN)"; exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "as root: apt-get install$$missing" >&2; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install --yes --no-install-recommends -qq $$missing

.PHONY: lock
lock: $(READY) ## Write requirements.lock and deploy/uv.txt anew, keeping the versions that still fit
	@$(BIN)/uv pip compile --quiet pyproject.toml --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate \
		-o requirements.lock
	@grep -oE '^uv==[0-9.]+' deploy/uv.txt | $(BIN)/uv pip compile --quiet - --generate-hashes --no-header --no-annotate -o deploy/uv.txt

.PHONY: review
review: $(READY) ## Look at what is installed: one version and hashes each, licences, the size of an edge
	@$(BIN)/python -m deploy.review

.PHONY: clean
clean: ## Stop the embedded servers and remove what runs and tests left (.tandem, caches); keeps .venv
	@if [ -d "$(TANDEM_HOME)/run" ] && [ -f $(READY) ]; then \
		$(BIN)/python -m deploy.services stop; $(BIN)/python -m deploy.kafka stop; fi
	@rm -rf .tandem .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis spark-warehouse metastore_db derby.log
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
