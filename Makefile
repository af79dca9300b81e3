# The face of the project, for people and CI; `make help` lists what it does.
# `make hls MODEL=deit_s` is `.venv/bin/spvit hls --model deit_s`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
ENVIRONMENT := .venv/.installed

# --- the commands: spvit_fpga/commands.py lists them with their options, for make as for the console script ---

# Python answers before there is an environment: the commands, or why what was given cannot be meant.
ASK = "$(or $(wildcard $(PY)),$(PYTHON))" -m spvit_fpga.makefile
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
quoted = '$(subst ','\'',$(1))'
ANSWER := $(shell $(ASK) names $(MAKECMDGOALS) -- $(foreach name,$(GIVEN),$(call quoted,$(name)=$($(name)))))
ifeq ($(firstword $(ANSWER)),error:)
$(error $(wordlist 2,999,$(ANSWER)))
endif
ifeq ($(ANSWER),)
$(error Python 3.11 is needed and $(or $(PYTHON),no python3) is not it; name one: make PYTHON=/path/to/python3.11)
endif

# Make's variables reach the command in its environment: NAME=value is its --name value.
.PHONY: $(ANSWER)
$(ANSWER): $(ENVIRONMENT)
	@$(PY) -m spvit_fpga.makefile run $@

# --- working on the project ---

.PHONY: test
test: $(ENVIRONMENT) ## the tests, without the slow ones
	@$(PY) -m pytest -n logical --maxprocesses 8 --dist loadfile

.PHONY: test-slow
test-slow: $(ENVIRONMENT) ## all tests that need neither Vitis nor a board, with more examples for each property
	@$(PY) -m pytest -n logical --maxprocesses 8 --dist loadfile -m "not vitis and not board" --hypothesis-profile slow

.PHONY: check
check: $(ENVIRONMENT) ## formatters, linters and types; the C++ that a small model gets, too
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(find_cpp) -exec $(PY) .venv/bin/clang-format --dry-run -Werror {} +
	@$(MAKE) hls TARGET=zcu102 MODEL=micro >/dev/null
	@$(PY) .venv/bin/clang-tidy --quiet build/micro-zcu102/src/*.cpp -- -std=c++14 -isystem $(ap_types) -Wno-unknown-pragmas 2>&1 \
	    | { grep -v -e 'warnings generated' -e 'Processing file' || true; }

.PHONY: format
format: $(ENVIRONMENT) ## format everything, and mend what the linters can mend
	@$(PY) -m ruff check --fix --exit-zero .
	@$(PY) -m ruff format .
	@$(find_cpp) -exec $(PY) .venv/bin/clang-format -i {} +

.PHONY: clean
clean: ## remove build/ and the tools' caches, but not the environment
	@rm -rf build bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@$(ASK) help

find_cpp = find hls_templates sim tests \( -name '*.hpp' -o -name '*.h' -o -name '*.cpp' \)
ap_types = $(wildcard .venv/lib/python3.*/site-packages/hls4ml/templates/vivado/ap_types)

# The environment. `.installing` stays behind if the installation is killed half-way: then it starts afresh.
$(ENVIRONMENT): requirements.txt
	@[[ -n "$(PYTHON)" ]] && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	    echo "error: Python 3.11 is needed and $(or $(PYTHON),no python3) is not it; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing $$(grep -c == requirements.txt) Python packages into .venv: once, and for a few minutes"
	@[[ ! -e .venv/.installing ]] && $(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@touch .venv/.installing
	@$(PY) -m pip install --disable-pip-version-check --requirement requirements.txt | \
	    awk '/^(Collecting|Processing)/ { sub(".*/", "", $$2); print "  " $$2 } /^Installing/ { print "  unpacking" } { fflush() }' || \
	    { rm .venv/.installing; echo "error: the packages of requirements.txt were not installed; pip says why above" >&2; exit 2; }
	@[[ ! -e pyproject.toml ]] || $(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . # .venv/bin/spvit
	@mv .venv/.installing $@
