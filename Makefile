# Everything a developer runs. Caches live in $XDG_CACHE_HOME/malote (see docs/development.md), never here.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lock-installed
TESTS ?= tests/unit tests/integration

.PHONY: help
help: ## What can be run here
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "installing Python packages into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: venv
venv: $(STAMP) ## The virtual environment with everything in it

.PHONY: demo
demo: $(STAMP) ## YAML in, signed mail out, on this machine (ONESHOT=1: end after the last step)
	@$(BIN)/malote-dev demo $(if $(ONESHOT),--oneshot)

.PHONY: lint
lint: $(STAMP) ## Linters, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: unit
unit: $(STAMP) ## The tests that need no cluster and no socket of others
	$(BIN)/pytest tests/unit

.PHONY: test
test: lint ## Linters, types, unit and integration tests (a real API server, real sockets)
	$(BIN)/pytest $(TESTS)

.PHONY: e2e
e2e: $(STAMP) ## The same story on a real node (root, Debian; installs what it needs)
	tests/e2e/prepare
	$(BIN)/pytest tests/e2e

.PHONY: bench
bench: $(STAMP) ## The relay against Postfix + OpenDKIM and Haraka (Debian packages, npm; QUICK=1: only what has marks), into build/bench/
	$(BIN)/python -m tests.bench.relay $(if $(QUICK),--quick)

.PHONY: reliability
reliability: $(STAMP) ## The relay killed, its disk full and slow, its clock moved, its power lost, into build/bench/
	$(BIN)/python -m tests.reliability

.PHONY: bench-operator
bench-operator: $(STAMP) ## How long a tenant waits for the operator, into build/bench/
	$(BIN)/python -m tests.bench.operator

.PHONY: conformance
conformance: $(STAMP) ## Every case of the SMTP conformance suite, for the relay and, beside it, Postfix (Debian, root)
	$(BIN)/python -m tests.conformance.relay

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz all targets in turn, SECONDS each (TARGET: one of them); what breaks one is kept in tests/fuzz/corpus
	@$(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3,<4' || echo "without atheris: by hypothesis"
	@for target in $(or $(TARGET),$$($(BIN)/python -m tests.fuzz --list)); do \
		echo "$$target"; $(BIN)/python -m tests.fuzz $$target --seconds $(or $(SECONDS),60) || exit 1; done

.PHONY: lock
lock: $(STAMP) ## Resolve the lock files anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra dev --no-emit-package malote -o requirements/dev.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra relay --extra operator --no-emit-package malote -o requirements/image.lock pyproject.toml

.PHONY: clean
clean: ## Remove what was built here
	rm -rf build $(VENV)
