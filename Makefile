# The face of the project, for people and CI; `make help` lists what it does.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
ENVIRONMENT := .venv/.installed

# --- variables: which a target needs, and which it takes besides; options, refusals and `make help` come from here ---

FLOW := CKPT EMA POS CALIB KEEP THRESHOLD
needs.hls := MODEL TARGET
takes.hls := $(FLOW)
needs.csim := MODEL TARGET
takes.csim := $(FLOW) IMAGES TOP CXX
needs.estimate := MODEL TARGET
takes.estimate := $(FLOW) KEPT CLOCK
needs.schedule := MODEL TARGET
takes.schedule := $(FLOW) TOP CLOCK
needs.explore := MODEL TARGET
takes.explore := $(FLOW) LATENCY_MS CLOCK
needs.report := MODEL TARGET
takes.report := $(FLOW) CLOCK
needs.train := MODEL
takes.train := DATA CKPT EMA POS KEEP OUT RESUME TARGET BUDGET COST RECIPE DEVICE PROGRESSIVE
needs.finetune := MODEL
takes.finetune := DATA CKPT EMA POS KEEP OUT RESUME RECIPE EPOCHS DEVICE
takes.ablation := MODEL DATA OUT RECIPE DEVICE
needs.visualize := MODEL
takes.visualize := CKPT EMA POS KEEP THRESHOLD IMAGES DATA OUT
needs.eval := MODEL
takes.eval := TARGET $(FLOW) DATA DEVICE CSIM CLOCK
needs.export := MODEL FORMAT
takes.export := $(FLOW) OUT
needs.latency := MODEL
takes.latency := $(FLOW) IMAGES DEVICE
needs.synth := MODEL TARGET
takes.synth := $(FLOW) TOP IMAGES HLS
needs.cosim := MODEL TARGET
takes.cosim := $(FLOW) TOP IMAGES HLS
needs.bitstream := MODEL TARGET
takes.bitstream := $(FLOW) TOP IMAGES HLS
needs.deploy := MODEL TARGET
takes.deploy := $(FLOW)
needs.notebook := MODEL TARGET
takes.notebook := $(FLOW) IMAGES CXX
takes.bench := CXX

# `$(call options,MODEL CKPT)`: --model X --ckpt Y, of those that are set; CXX reaches the commands in their environment
quoted = '$(subst ','\'',$(1))'
option = --$(shell tr A-Z_ a-z- <<< $(1))$(if $(filter-out $(SWITCHES),$(1)), $(call quoted,$($(1))))
options = $(strip $(foreach name,$(filter-out CXX,$(1)),$(if $(strip $($(name))),$(call option,$(name)))))
all_options = $(call options,$(needs.$(1)) $(takes.$(1)))
SWITCHES := PROGRESSIVE EMA

TARGETS := $(patsubst needs.%,%,$(filter needs.%,$(.VARIABLES)))
ALL := PYTHON $(sort $(foreach name,$(filter needs.% takes.%,$(.VARIABLES)),$($(name))))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN := $(firstword $(filter-out $(ALL),$(GIVEN)))
ifneq ($(UNKNOWN),)
CLOSE := $(shell "$(PYTHON)" -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 2))' \
    $(call quoted,$(UNKNOWN)) $(ALL) 2>/dev/null)
$(error there is no variable $(UNKNOWN)=; $(if $(CLOSE),did you mean $(subst $() ,= or ,$(CLOSE))=?,make help lists them all))
endif

FIRST := $(firstword $(filter $(TARGETS),$(MAKECMDGOALS)))
MISSING := $(strip $(foreach name,$(filter $(needs.$(FIRST)),TARGET MODEL),$(if $(strip $($(name))),,$(name)=)))
ifneq ($(MISSING),)
$(error make $(FIRST) needs $(subst = ,= and ,$(MISSING)), for example: make $(FIRST) $(if \
    $(filter TARGET,$(needs.$(FIRST))),TARGET=zcu102 MODEL=deit_s,MODEL=deit_digits))
endif

ODD := $(firstword $(foreach name,$(SWITCHES),$(if $(filter-out 1,$($(name))),$(name))))
ifneq ($(ODD),)
$(error $(ODD)=$($(ODD)) must be 1, or be left away)
endif

IDLE := $(filter-out PYTHON $(foreach goal,$(MAKECMDGOALS),$(needs.$(goal)) $(takes.$(goal))),$(GIVEN))
ifneq ($(and $(FIRST),$(IDLE)),)
$(warning make $(FIRST) takes no $(subst = ,= and no ,$(strip $(IDLE:%=%=))); make help says who takes what)
endif

##@ From a checkpoint to the accelerator

.PHONY: hls
hls: $(ENVIRONMENT) ## quantize the model and generate its Vitis HLS project in build/<model>-<target>/
	@$(PY) -m hw.generate $(call all_options,hls) --check
	@$(PY) -m quant.quantize $(call all_options,hls)
	@$(PY) -m hw.generate $(call all_options,hls)

.PHONY: csim
csim: $(ENVIRONMENT) ## compile and run that C++, and compare each tap with the golden: csim.json
	@$(PY) -m sim.csim $(call all_options,csim)

.PHONY: estimate
estimate: $(ENVIRONMENT) ## cycles, latency and resources in closed form, before any weights: estimate.json
	@$(PY) -m hw.model.estimate $(call all_options,estimate)

.PHONY: schedule
schedule: $(ENVIRONMENT) ## II, period, depth and critical recurrence of each loop, by an open model of synthesis: schedule.json
	@$(PY) -m hw.generate $(call options,MODEL TARGET $(FLOW)) --check
	@$(PY) -m quant.quantize $(call options,MODEL TARGET $(FLOW))
	@$(PY) -m hw.schedule $(call all_options,schedule)

.PHONY: explore
explore: $(ENVIRONMENT) ## the fastest engine that fits the board with head-room; with LATENCY_MS= the keep ratios too: explore.json
	@$(PY) -m hw.model.explore $(call all_options,explore)

.PHONY: report
report: $(ENVIRONMENT) ## one page to look at: where the time goes, what it takes, beside the paper: report.html
	@$(PY) -m sim.report.page $(call all_options,report)

##@ Training

.PHONY: train
train: $(ENVIRONMENT) ## train a model down to its keep ratios, to BUDGET=, or layer to phase: build/train/<model>.safetensors
	@$(PY) -m spvit.train $(call all_options,train)

.PHONY: finetune
finetune: $(ENVIRONMENT) ## quantization-aware fine-tuning: float weights that know that they will be rounded: build/train/<model>-tuned.safetensors
	@$(PY) -m quant.finetune $(call all_options,finetune)

.PHONY: ablation
ablation: $(ENVIRONMENT) ## the paper's ablations on a small model, each variant trained at equal cost: build/ablation/
	@$(PY) -m spvit.ablation $(call all_options,ablation)

.PHONY: visualize
visualize: $(ENVIRONMENT) ## pictures: tokens kept per stage, heat maps per head, accuracy against cost: build/pictures/<model>/
	@$(PY) -m spvit.visualize $(call all_options,visualize)

.PHONY: eval
eval: $(ENVIRONMENT) ## accuracy, cost and tokens of the float and the 16-bit model on DATA=, resumed where it was stopped: eval.json, eval.md
	@$(PY) -m sim.evaluate $(call all_options,eval)

##@ Off the FPGA

.PHONY: export
export: $(ENVIRONMENT) ## the model for other tools: ONNX with tokens really removed, QONNX, integers as .npz: build/export/<model>/
	@$(PY) -m quant.exports.command $(call all_options,export)

.PHONY: latency
latency: $(ENVIRONMENT) ## pruned beside unpruned on this CPU, by ONNX Runtime and PyTorch: latency-cpu.json
	@$(PY) -m sim.cpu_latency $(call all_options,latency)

##@ With AMD's tools

vendor = $(PY) -m hw.vendor.synth $(1) $(call options,$(needs.$(1)) $(filter-out IMAGES,$(takes.$(1))))
vectors = $(PY) -m sim.vectors $(call options,$(needs.$(1)) $(filter-out HLS,$(takes.$(1))))

.PHONY: synth
synth: $(ENVIRONMENT) ## Vitis HLS: simulate, synthesize and export; its figures beside the estimate: reports.json
	@$(call vendor,synth) --check
	@$(call vectors,synth)
	@$(call vendor,synth)

.PHONY: cosim
cosim: $(ENVIRONMENT) ## Vitis HLS: the RTL against the golden (and synth, when needed)
	@$(call vendor,cosim) --check
	@$(call vectors,cosim)
	@$(call vendor,cosim)

.PHONY: bitstream
bitstream: $(ENVIRONMENT) ## Vivado: block design, implementation, bitstream (and synth, when needed): bitstream/
	@$(call vendor,bitstream) --check
	@$(call vectors,bitstream)
	@$(call vendor,bitstream)

##@ Onto the board

.PHONY: deploy
deploy: $(ENVIRONMENT) ## pack what the board needs, to be installed there with one command: deploy.tar.gz
	@$(PY) -m hw.deploy $(call all_options,deploy)

.PHONY: notebook
notebook: $(ENVIRONMENT) ## the latency notebook on the emulated device; on the board Jupyter runs it: latency.json
	@$(PY) -m sim.notebook $(call all_options,notebook)

##@ Working on the project

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

.PHONY: bench
bench: $(ENVIRONMENT) ## the benchmarks: bench.json
	@$(PY) -m sim.bench

.PHONY: clean
clean: ## remove build/ and the tools' caches, but not the environment
	@rm -rf build bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -v takes='$(foreach goal,$(TARGETS) ablation bench,$(goal): $(needs.$(goal):%=%=) $(takes.$(goal):%=[%=]);)' ' \
	    BEGIN { FS = ":.*## "; split(takes, lists, ";"); \
	        for (i in lists) { split(lists[i], parts, ": "); sub(/^ +/, "", parts[1]); of[parts[1]] = parts[2] } } \
	    /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2; if ($$1 in of) printf "  %15s %s\n", "", of[$$1] }' Makefile
	@printf '\nVariables; those in brackets may be left away\n'
	@printf '  %-11s %s\n' \
	    TARGET= 'the board: zcu102, zcu104, kv260, ultra96v2, u50, or a .toml' \
	    MODEL= 'a name of the registry (deit_t, deit_s, ...) or the path of a .toml' \
	    CKPT= 'weights, .safetensors or .pth; without it, seeded random ones' \
    EMA= '1: the running mean of the weights, where the checkpoint has it beside them' \
    POS= 'interpolate: resize the positions of a checkpoint of another image size, as timm does' \
	    CALIB= 'images to calibrate with: a folder, or digits:train' \
	    KEEP= 'none, or kept fractions of the patches, one per selector: 0.629,0.396,0.249' \
	    THRESHOLD= 'keep probability of the selectors, or calibrate: fit it to KEEP= (default: trained ones keep theirs)' \
    DATA= 'what is trained or evaluated on: digits, or a folder with train/<class>/ and val/<class>/' \
	    DEVICE= 'where train and eval compute: cpu, cuda (default: a GPU if there is one)' \
	    CSIM= 'images that eval gives to the C-simulation, too: 10' \
	    FORMAT= 'what export writes: onnx, qonnx, npz' \
	    BUDGET= 'what train may spend per image, in place of KEEP=: 2.64GMACs, or with TARGET= 6ms, 1.2Mcycles' \
	    COST= 'how train counts towards BUDGET=, a function of yours: file.py:function' \
	    RECIPE= 'a .toml with rates and the like for train and finetune; .venv/bin/python -m spvit.train --help lists them' \
	    EPOCHS= 'how often finetune sees the training images (default: once); train has it in its recipe' \
	    PROGRESSIVE= '1: train seeks the places of the selectors and their rates, layer to phase' \
	    OUT= 'the .safetensors file that training writes; the folder of ablation, visualize and export' \
	    RESUME= 'the .state of a training that was interrupted, to go on from' \
	    KEPT= 'patches that an image has left after each selector, for estimate: 123,78,49' \
	    CLOCK= 'MHz of the accelerator, for estimate, schedule, explore and report' \
	    LATENCY_MS= 'what an image may take, for explore' \
	    IMAGES= 'images for csim, the notebook, visualize and latency: a folder, an image, or digits:test' \
	    TOP= 'one unit alone for csim, schedule, synth, cosim: msa_block, ...' \
	    CXX= 'the compiler of the C-simulation: g++ (default), clang++, "ccache g++"' \
	    HLS= 'which form of Vitis HLS: vitis-run, v++ or vitis_hls' \
	    PYTHON= 'the Python 3.11 that makes the environment'

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
	@mv .venv/.installing $@
