# make run    monitor five real demo services on http://localhost:8000
# make test   run every test against real servers; installs what it needs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run stack test test-versions pictures docs bench lint format tools browser programs clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## monitor five real demo services; ARGS="--chaos" breaks them in turn
	@echo "starting the demo (Ctrl-C stops it)"
	@exec $(BIN)/connection-exporter demo $(ARGS)

stack: $(VENV)/.run tools ## the demo with Prometheus and Alertmanager; prints each notification; ARGS="--chaos"
	@echo "starting the stack (Ctrl-C stops it)"
	@exec $(BIN)/python scripts/stack.py $(ARGS)

test: $(VENV)/.dev tools browser programs ## run every test on two cores; ARGS is passed to pytest, WORKERS=0 uses one process
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-versions: tools browser programs ## test with the lowest and newest version of each dependency, on each Python here
	@$(PYTHON) scripts/test-versions $(ARGS)

pictures: $(VENV)/.dev browser ## take the pictures of the docs from the live demo
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python scripts/pictures.py

docs: $(VENV)/.dev ## build the documentation as a site, with search, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "open site/index.html"

bench: $(VENV)/.dev tools ## measure the cost, with the peers in the same run; ARGS="--only checks"
	@scripts/install-tools --bench
	PATH="$(CURDIR)/.tools/peers/bin:$(CURDIR)/.tools/bin:$$PATH" $(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy, import-linter and the style of the texts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python grafana/build.py --check
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python scripts/prose.py

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tools: ## Prometheus, Alertmanager and their tools, unpacked in .tools
	@scripts/patiently "getting the tools" scripts/install-tools

browser: ## Chromium, for the tests of the status page
	@scripts/install-chromium

programs: ## what else the tests run and this machine lacks (PgBouncer, iptables …), unpacked in .tools
	@scripts/install-programs

clean: ## remove everything that make has created
	rm -rf $(VENV) .tools build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/pip:
	@echo "making a virtual environment in $(VENV) (once, 5 to 20 s)"
	@PYTHON="$(PYTHON)" scripts/patiently "making it" scripts/make-venv $(VENV)

$(VENV)/.run: $(VENV)/bin/pip pyproject.toml
	@echo "installing connection-exporter, PostgreSQL and Redis for the demo, and rich, into $(VENV) (once, about 30 s)"
	@scripts/patiently installing $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,terminal]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "installing what the tests need (once, about a minute)"
	@scripts/patiently installing $(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@
