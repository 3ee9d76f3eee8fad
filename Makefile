# Generation, training and tests, with nothing but Python >= 3.10 and make installed.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# Build of PyTorch: cpu, cuda, or auto, which is cuda if this machine has an NVIDIA GPU.
TORCH   ?= auto
# The environment of `make test-peers`.
PEERS   := .venv-peers

# Input and output of `make shards`.
SCALES  ?= 4
OUTPUT  ?= shards
INPUT   ?= $(if $(wildcard OST),OST,$(SAMPLES))
SAMPLES := build/sample_photos
# Output folder of `make demo`.
DEMO    := build/demo
# Each option is passed on only if it is set.
OPTIONS := $(if $(SIZE),--size $(SIZE)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(METHOD),--method $(METHOD)) \
           $(if $(CODEC),--codec $(CODEC)) $(if $(DEGRADATION),--degradation $(DEGRADATION)) \
           $(if $(VARIANTS),--variants $(VARIANTS)) $(if $(WORKERS),--workers $(WORKERS)) \
           $(if $(EXCLUDE),--exclude "$(EXCLUDE)") $(if $(VAL),--val "$(VAL)") \
           $(if $(filter-out 0,$(FORCE)),--force)

# Otherwise make would ignore a misspelt setting.
NAMES := PYTHON VENV PEERS TORCH SCALES OUTPUT INPUT SIZE SAMPLE METHOD CODEC DEGRADATION VARIANTS WORKERS EXCLUDE VAL FORCE
UNKNOWN := $(foreach name,$(filter-out $(NAMES) SHELL,$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)=))
$(if $(strip $(UNKNOWN)),$(error unknown setting $(strip $(UNKNOWN)); the settings are $(NAMES)))
# A space would divide the names of files in it.
$(foreach name,VENV PEERS,$(if $(word 2,$($(name))),$(error $(name)=$($(name)) contains a space; pass a path without)))

.DEFAULT_GOAL := help
.PHONY: help install demo shards test test-quick test-scale test-peers lint format bench bench-peers gpu bench-scale drill docs diagram release-check completion clean

help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  e.g. make shards INPUT=~/photos SCALES="2 4" SIZE=512 SAMPLE=0.1 METHOD=cubic CODEC=npy WORKERS=8 OUTPUT=shards'

install: $(STAMP) ## Create .venv and install the project into it; TORCH=cpu or cuda: the build of PyTorch (default: by the GPU)

# In WSL, libcuda comes with the driver. nvidia-smi creates the devices if nothing has used them yet.
GPU = $(or $(wildcard /dev/nvidia[0-9]* /usr/lib/wsl/lib/libcuda.so*),$(shell nvidia-smi -L 2>/dev/null | grep '^GPU'))
INSTALL = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is required; pass its name, e.g. make PYTHON=python3.12")' && \
    $(PYTHON) -m tools.install --torch "$(TORCH)" $(if $(GPU),--gpu)
# The stamp contains the build of PyTorch that is installed; TORCH= replaces it by another.
$(STAMP): $(if $(filter auto $(shell cat $(STAMP) 2>/dev/null),$(TORCH)),,again)
.PHONY: again
again:

# Spandrel: networks of other architectures. Its requirement torchvision is omitted: it would have to match the PyTorch
# build, and trainer does not need it. einops, another one, is a requirement of the extra dev.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard srshards/native/*.[ch])
	@echo "Installing everything into $(VENV). This takes 2 to 5 minutes the first time, and a few GB."
	@$(INSTALL) $(VENV) "-e .[all,docs,dev]" "--no-deps spandrel"

.PHONY: photos
photos: $(STAMP)
ifeq ($(INPUT),$(SAMPLES))
	@echo "INPUT= is not set and ./OST does not exist: using the colour photographs of scikit-image."
	@$(BIN)/python -m shardgen.sample_photos $(SAMPLES)
endif

.PHONY: plan-demo
plan-demo:
	@echo "From 9 sample photos to an upscaled one, in $(DEMO):"
	@echo "  shards, 1,000 training steps, evaluation, an upscaled photo, two reports"
	@echo "Takes about 3 minutes on 2 quiet cores$(if $(wildcard $(STAMP)),, after the installation)."
	@echo

demo: plan-demo $(STAMP) ## Try everything on sample photos: shards, a short training, its evaluation, an upscaled photo, reports
	@$(BIN)/python -m shardgen.sample_photos $(SAMPLES)
	@echo; echo "1/5  Shards: tiles of 256 px, LR by area"
	@$(BIN)/python -m shardgen generate -i $(SAMPLES) -o $(DEMO)/shards -s 4 --fit tile --size 256 --tile-step 128 \
	    --method area --auto
	@echo; echo "2/5  Training: ultra_lite, from scratch"
	@rm -rf $(DEMO)/runs/demo
	@$(BIN)/python -m trainer --shards $(DEMO)/shards/scale_4x --model ultra_lite --steps 1000 --val-every 250 \
	    --out $(DEMO)/runs --run demo
	@echo; echo "3/5  Evaluation on the validation photo"
	@$(BIN)/python -m trainer evaluate --weights $(DEMO)/runs/demo/best.pth --shards $(DEMO)/shards/scale_4x
	@echo; echo "4/5  The validation photo, upscaled"
	@$(BIN)/python -m trainer upscale --weights $(DEMO)/runs/demo/best.pth $(SAMPLES)/food/coffee.png -o $(DEMO) --compare
	@echo; echo "5/5  Reports"
	@$(BIN)/python -m shardgen report $(DEMO)/shards -o $(DEMO)/shards.html
	@$(BIN)/python -m trainer report $(DEMO)/runs/demo -o $(DEMO)/training.html
	@echo; echo "Done. To look at:"
	@echo "  $(DEMO)/coffee_4x_compare.png  a photo that was not trained on, upscaled: bicubic | network"
	@echo "  $(DEMO)/shards.html            report of the training data"
	@echo "  $(DEMO)/training.html          report of the training"
	@echo; echo "The same with photos of your own, hundreds or more:"
	@echo "  make shards INPUT=~/photos"
	@echo "  $(BIN)/python -m trainer --shards shards/scale_4x --run mine"
	@echo "  $(BIN)/python -m trainer upscale --weights runs/mine/best.pth photo.jpg -o enlarged"

shards: photos ## Generate shards from the photos in INPUT (default: ./OST, or sample photos), e.g. SCALES="2 4"
	@$(BIN)/python -m shardgen generate -i "$(INPUT)" -o "$(OUTPUT)" -s $(SCALES) $(OPTIONS) --auto

# The tests open the reports in Chromium: an installed one, else Debian's package (as root), else Playwright's.
.PHONY: browser
browser: $(STAMP)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "Installing Chromium for the tests of the reports."; \
	    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	  else $(BIN)/python -m playwright install chromium; fi

# Three workers for any number of cores, because some tests start servers, clusters and process groups, or wait.
test: $(STAMP) browser ## Run all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-quick: $(STAMP) ## Run the quick tests: no browser, cluster or store, few processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not (browser or cluster or store or slow)"

test-scale: $(STAMP) ## Run the long test of the Ray engine, with nodes that die and data in an object store
	$(BIN)/python -m pytest -s tests/scale

test-peers: $(PEERS)/.installed ## Train BasicSR from shards, compare recipes and metrics with published code; in its own .venv-peers
	$(PEERS)/bin/python -m pytest --confcutdir=tests/peers tests/peers

$(PEERS)/.installed: pyproject.toml constraints.txt tests/peers/requirements.txt tests/peers/frameworks.txt
	@echo "Installing BasicSR, Real-ESRGAN and pyiqa with PyTorch into $(PEERS). This takes a few minutes the first time."
	@$(INSTALL) $(PEERS) "-e . -r tests/peers/requirements.txt" "--no-deps --no-build-isolation -r tests/peers/frameworks.txt"

drill: $(STAMP) ## Inject every fault of docs/reference/drill.md (takes over an hour); exit code 1 if any has harmful effects
	$(BIN)/python -m tests.drill -o docs/reference/drill.md

docs: $(STAMP) ## Build the documentation site in build/site, with warnings as errors, e.g. about broken links
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "Open build/site/index.html in a browser."

lint: $(STAMP) ## Check style, format, types and import directions, without changes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code and apply automatic lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: photos ## Benchmark generation on the photos in INPUT (results in benchmarks/results)
	$(BIN)/python -m benchmarks.bench_generate --photos "$(INPUT)"
	$(BIN)/python -m benchmarks.bench_plan --photos "$(INPUT)"

bench-peers: photos $(PEERS)/.installed ## Benchmark the data time of BasicSR: PNG folders, LMDB and shards, on the photos in INPUT
	$(PEERS)/bin/python -m benchmarks.bench_basicsr --photos "$(INPUT)"

# Needs no .venv if $(PYTHON) has everything already, unless there is a .venv and PYTHON is not set.
# By another name, because make would run a line that contains MAKE even with -n.
SUBMAKE = $(MAKE) --no-print-directory
gpu: ## On a machine with a GPU: run the tests that need one, and measure training on it, for at most 8 minutes
	@[ -n "$(GPU)" ] || { echo "this machine has no NVIDIA GPU, which make gpu needs" >&2; exit 2; }
	@python="$(PYTHON)"; why=; \
	  if $(if $(filter file,$(origin PYTHON)),[ -e $(STAMP) ] ||) ! why=$$("$$python" -c 'import benchmarks.bench_gpu' 2>&1); \
	  then [ -z "$$why" ] || echo "$$python cannot be used: $$(echo "$$why" | tail -n 1)"; \
	    $(SUBMAKE) install && python=$(BIN)/python || exit; fi; \
	  $(if $(filter $(SAMPLES),$(INPUT)),"$$python" -m shardgen.sample_photos $(SAMPLES) &&) \
	  "$$python" -m benchmarks.bench_gpu --photos "$(INPUT)"

bench-scale: $(STAMP) ## Benchmark scaling of time and memory: millions of photos, 100,000 shards, 10^9 samples
	$(BIN)/python -m benchmarks.bench_scale

diagram: $(STAMP) ## Draw docs/images/architecture.svg from the imports in the code
	$(BIN)/python -m tools.diagram

release-check: docs ## Check the current commit before its release: versions, packages, licences, examples and documentation
	$(BIN)/python -m tests.release
	$(BIN)/python -m pytest -q tests/test_examples.py tests/test_docs_links.py

# Completion scripts generated by click, which call the commands.
COMPLETION := $(abspath $(VENV))/completion
completion: $(STAMP) ## Show how to enable completion of shardgen and trainer in bash, zsh or fish
	@mkdir -p "$(COMPLETION)"
	@activate=activate; case "$${SHELL##*/}" in \
	  zsh) shell=zsh; file="~/.zshrc, below compinit" ;; \
	  fish) shell=fish; file="~/.config/fish/config.fish"; activate=activate.fish ;; \
	  *) shell=bash; file="~/.bashrc (bash 4.4 or newer)" ;; \
	esac; \
	_SHARDGEN_COMPLETE=$${shell}_source $(BIN)/shardgen > "$(COMPLETION)/shardgen.$$shell" && \
	_TRAINER_COMPLETE=$${shell}_source $(BIN)/trainer > "$(COMPLETION)/trainer.$$shell" && \
	echo "# Add these lines to $$file:" && \
	echo "source '$(COMPLETION)/shardgen.$$shell'" && echo "source '$(COMPLETION)/trainer.$$shell'" && \
	echo "# Completion works for commands on the PATH, e.g. after:" && \
	echo "source '$(abspath $(BIN))/$$activate'"

clean: ## Remove build outputs except shards: environments, build, dist and caches
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
