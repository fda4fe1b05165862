# Everything a person or CI runs. `make help` lists it.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3.13
UV := .tools/bin/uv
REQUIREMENTS := functions/requirements.txt
SAM := tools/sam-cli/.venv/bin/sam

SAM_LOCAL = $(and $(EVENT),--event "$(EVENT)") $(and $(HOST),--host) \
	$(and $(CREDENTIALS),--credentials "$(CREDENTIALS)") $(and $(STACK),--stack "$(STACK)") \
	$(and $(REGION),--region "$(REGION)")

export SAM_CLI_TELEMETRY := 0
export UV_PYTHON := $(PYTHON)

.PHONY: help setup demo test lint unit contract scenarios integration pages peers bench build \
	requirements local start-lambda sam-local test-state clean
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

tools/peers/node_modules: .venv/.synced tools/peers/package-lock.json tools/peers/uv.lock
	$(UV) sync --project tools/peers --frozen -q
	cd tools/peers && PATH="$(CURDIR)/.venv/bin:$$PATH" npm ci --ignore-scripts --silent --no-audit --no-fund
	@touch $@

tools/browser/.chromium: .venv/.synced tools/browser/package-lock.json tools/browser/unpack.mjs
	cd tools/browser && export PATH="$(CURDIR)/.venv/bin:$$PATH" && \
		npm ci --ignore-scripts --silent --no-audit --no-fund && node unpack.mjs
	@touch $@

setup: .venv/.synced $(SAM) tools/asl/node_modules ## install everything from the lock files

build: $(SAM) requirements ## build the functions as they ship (.aws-sam/build)
	PATH="$(CURDIR)/tools/sam-cli/.venv/bin:$$PATH" $(SAM) build --cached --parallel

requirements: $(UV) ## write functions/requirements.txt from uv.lock
	$(UV) export -q --frozen --no-default-groups --no-hashes --no-header --no-annotate \
		--no-emit-project > $(REQUIREMENTS)

test: setup lint unit contract integration scenarios ## everything that CI runs

lint: setup ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

unit: setup ## pure logic, sockets off
	.venv/bin/pytest tests/unit

contract: setup ## template, machines, contracts, roles and documents agree
	.venv/bin/pytest tests/contract

integration: setup tools/browser/.chromium ## parts on the embedded AWS, clients against local Slack and PagerDuty
	.venv/bin/pytest -n 2 --dist loadfile tests/integration

scenarios: setup ## stories on the embedded AWS, from the alarm to the last word in Slack
	.venv/bin/pytest -n 2 tests/scenarios

pages: setup ## write docs/runbooks and docs/permissions.md
	.venv/bin/python -m tools.pages

peers: tools/peers/node_modules ## install the tools that benchmarks compare with

bench: setup peers ## figures; never part of a test run
	.venv/bin/pytest -s tests/benchmark

clean: ## remove what was installed and built
	rm -rf .venv .tools .aws-sam tools/sam-cli/.venv tools/asl/node_modules tools/peers/.venv \
		tools/peers/node_modules tools/browser/node_modules tools/browser/.chromium build

local: setup build ## run FUNCTION=inspect_queue as deployed, from this tree; EVENT, HOST=1, CREDENTIALS=mine
	.venv/bin/python -m local.sam invoke "$(FUNCTION)" $(SAM_LOCAL)

start-lambda: setup build ## serve every function by `sam local start-lambda`; CREDENTIALS=mine
	.venv/bin/python -m local.sam start-lambda $(SAM_LOCAL)

sam-local: setup build ## test `sam local` itself in a container engine of its own (Linux, root)
	tools/engine/run .venv/bin/pytest tests/integration/test_sam_local.py

test-state: setup ## AWS's own evaluation of every machine, functions mocked (needs an account)
	TEST_STATE=1 .venv/bin/pytest tests/contract/test_teststate.py

demo: .venv/.synced ## saturate a queue on the embedded AWS, watch the runbook deal with it
	./runbook play queue-saturation --exit
