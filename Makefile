# The main job and the tests, from nothing but Python >= 3.10 and make.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

# What `make shards` makes, and from what.
SCALES  ?= 4
OUTPUT  ?= shards
INPUT   ?= $(if $(wildcard OST),OST,$(SAMPLES))
SAMPLES := build/sample_photos
# What `make demo` makes, in about two minutes on 2 quiet cores.
DEMO    := build/demo
# Each of these is passed on only when it is named.
OPTIONS := $(if $(SIZE),--size $(SIZE)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(METHOD),--method $(METHOD)) \
           $(if $(CODEC),--codec $(CODEC)) $(if $(DEGRADATION),--degradation $(DEGRADATION)) \
           $(if $(VARIANTS),--variants $(VARIANTS)) $(if $(WORKERS),--workers $(WORKERS)) \
           $(if $(EXCLUDE),--exclude "$(EXCLUDE)") $(if $(filter-out 0,$(FORCE)),--force)

# A misspelt name would be passed over, and the run would not be the one that was wanted.
NAMES := PYTHON VENV SCALES OUTPUT INPUT SIZE SAMPLE METHOD CODEC DEGRADATION VARIANTS WORKERS EXCLUDE FORCE
UNKNOWN := $(foreach name,$(filter-out $(NAMES) SHELL,$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)=))
$(if $(strip $(UNKNOWN)),$(error No such setting: $(strip $(UNKNOWN)) There are $(NAMES)))

.DEFAULT_GOAL := help
.PHONY: help install demo shards test test-scale lint format bench bench-gpu bench-scale drill completion clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  e.g. make shards INPUT=~/photos SCALES="2 4" SIZE=512 SAMPLE=0.1 METHOD=cubic CODEC=npy WORKERS=8 OUTPUT=shards'

install: $(STAMP) ## Create .venv and install the project into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one: make PYTHON=python3.12")'
	@echo "Installing into $(VENV): PyTorch and all else, some minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@# Only the tests need it, and they do without its requirement torchvision, which has to be the build that goes with
	@# the PyTorch here.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps spandrel
	@touch $@

.PHONY: photos
photos: $(STAMP)
ifeq ($(INPUT),$(SAMPLES))
	@echo "No INPUT= and no ./OST: taking the colour photographs that scikit-image carries."
	@$(BIN)/python -m shardgen.sample_photos $(SAMPLES)
endif

demo: $(STAMP) ## Sample photos to shards, a short training, its evaluation, one enlarged photo
	@$(BIN)/python -m shardgen.sample_photos $(SAMPLES)
	@echo; echo "1. Shards: tiles of 256 px, LR by area"
	@$(BIN)/python -m shardgen generate -i $(SAMPLES) -o $(DEMO)/shards -s 4 --fit tile --size 256 --tile-step 128 \
	    --method area --auto
	@echo; echo "2. Training: ultra_lite, from random weights"
	@rm -rf $(DEMO)/runs/demo
	@$(BIN)/python -m trainer --shards $(DEMO)/shards/scale_4x --model ultra_lite --steps 1000 --val-every 250 \
	    --out $(DEMO)/runs --run demo
	@echo; echo "3. Evaluation on the photo that was kept out of training"
	@$(BIN)/python -m trainer evaluate --weights $(DEMO)/runs/demo/best.pth --shards $(DEMO)/shards/scale_4x
	@echo; echo "4. That photo, enlarged"
	@$(BIN)/python -m trainer upscale --weights $(DEMO)/runs/demo/best.pth $(SAMPLES)/food/coffee.png -o $(DEMO) --compare

shards: photos ## Make shards of the photos in INPUT (./OST, or sample photos) for SCALES="2 4"
	@$(BIN)/python -m shardgen generate -i "$(INPUT)" -o "$(OUTPUT)" -s $(SCALES) $(OPTIONS) --auto

# The tests open the reports in a real Chromium: this machine's, Debian's where it may be installed, else Playwright's.
.PHONY: browser
browser: $(STAMP)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    echo "Installing Chromium, which the tests of the reports open."; \
	    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	  else $(BIN)/python -m playwright install chromium; fi

# Two at a time, however many cores there are: some start servers, clusters and groups of processes of their own.
test: $(STAMP) browser ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-scale: $(STAMP) ## Run the long test of the Ray engine: nodes die again and again, photos and shards in a store
	$(BIN)/python -m pytest -s tests/scale

drill: $(STAMP) ## Do every fault as often as docs/drill.md says, in an hour or more; exit code 1 if one of them does harm
	$(BIN)/python -m tests.drill -o docs/drill.md

lint: $(STAMP) ## Check style, format, types and the direction of imports; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: photos ## Measure the generator on the photos in INPUT (results in benchmarks/results)
	$(BIN)/python -m benchmarks.bench_generate --photos "$(INPUT)"
	$(BIN)/python -m benchmarks.bench_plan --photos "$(INPUT)"

bench-gpu: photos ## Measure training on a GPU: the stream, resident samples, the ceiling (results in benchmarks/results)
	$(BIN)/python -m benchmarks.bench_gpu --photos "$(INPUT)"

bench-scale: $(STAMP) ## Measure how time and memory grow with the work: millions of photos, 100,000 shards, 10^9 samples
	$(BIN)/python -m benchmarks.bench_scale

# Scripts that ask the commands themselves; click makes them.
COMPLETION := $(abspath $(VENV))/completion
completion: $(STAMP) ## Say how to have bash, zsh or fish complete the words of shardgen and trainer
	@mkdir -p $(COMPLETION)
	@activate=activate; case "$${SHELL##*/}" in \
	  zsh) shell=zsh; file="~/.zshrc, below compinit" ;; \
	  fish) shell=fish; file="~/.config/fish/config.fish"; activate=activate.fish ;; \
	  *) shell=bash; file="~/.bashrc (bash 4.4 or newer)" ;; \
	esac; \
	_SHARDGEN_COMPLETE=$${shell}_source $(BIN)/shardgen > $(COMPLETION)/shardgen.$$shell && \
	_TRAINER_COMPLETE=$${shell}_source $(BIN)/trainer > $(COMPLETION)/trainer.$$shell && \
	echo "# Put these lines into $$file:" && \
	echo "source '$(COMPLETION)/shardgen.$$shell'" && echo "source '$(COMPLETION)/trainer.$$shell'" && \
	echo "# They complete the commands that are on the PATH, e.g. after:" && \
	echo "source '$(abspath $(BIN))/$$activate'"

clean: ## Remove what make and python -m build made, except shards: .venv, build, dist and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
