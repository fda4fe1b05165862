# Everything a person or CI runs. `make help` lists it.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3.13
UV := .tools/bin/uv
RUN := $(UV) run --frozen --no-sync
SAM := tools/sam-cli/.venv/bin/sam

export SAM_CLI_TELEMETRY := 0
export UV_PYTHON := $(PYTHON)

.PHONY: help setup demo test lint unit contract scenarios integration bench build requirements clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(UV): tools/uv.txt
	$(PYTHON) -m venv .tools
	.tools/bin/pip install -q --disable-pip-version-check --require-hashes -r tools/uv.txt
	@touch $@

.venv/.synced: $(UV) pyproject.toml uv.lock
	$(UV) sync --frozen -q
	@touch $@

$(SAM): $(UV) tools/sam-cli/uv.lock
	$(UV) sync --project tools/sam-cli --frozen -q
	@touch $@

tools/asl/node_modules: .venv/.synced tools/asl/package-lock.json
	cd tools/asl && $(CURDIR)/.venv/bin/npm ci --silent --no-audit --no-fund
	@touch $@

setup: .venv/.synced $(SAM) tools/asl/node_modules ## install everything from the lock files
