# `make demo` and `make test` need Python 3.11 or newer, git and make; all else lands in .venv here.
# A Linux machine without an NVIDIA GPU saves gigabytes with the CPU build of torch:
#   make demo TORCH_INDEX=<address of PyTorch's CPU wheels, which pytorch.org lists>

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
TORCH_INDEX ?=

.PHONY: demo test test-all lint format evaluate-deps clean
.DEFAULT_GOAL := demo

# What a render needs; `--force` so that a demo is repeatable.
demo: $(VENV)/installed
	$(BIN)/acestep generate songs/night-drive.yaml --output night-drive.flac --force
	@printf '%s\n' '' \
	  'That is a sketch by pocket, the small model that is built in. Next:' \
	  '  hear it       play night-drive.flac with any player' \
	  '  roll again    source .venv/bin/activate' \
	  '                acestep generate songs/night-drive.yaml -n 4 --seed 1 -o takes/' \
	  '  compare them  acestep show takes/' \
	  '                acestep listen takes/ --open' \
	  '  the guide     docs/guide.md, from an idea to an album' \
	  '  real models   acestep models pull turbo, 6.3 GB' >&2

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n logical -m "not slow"

test-all: $(VENV)/installed-ray
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The analysers of pocket/evaluate.py.
evaluate-deps: $(VENV)/installed-dev
	$(PIP) --editable ".[evaluate]"

# torch first and by itself: whichever build of it is chosen here stays. Its download is shown, for it is by far the
# largest.
$(VENV)/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("acestep needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo 'Fetching PyTorch into $(VENV): hundreds of megabytes (for an NVIDIA GPU, gigabytes), once; some minutes.' >&2
	$(PYTHON) -m venv $(VENV)
	$(filter-out --quiet,$(PIP)) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	@echo 'Fetching the other libraries that a render needs; about a minute.' >&2
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo 'Fetching what the tests need; some minutes.' >&2
	$(PIP) --editable ".[dev]"
	@touch $@

# The tests of albums on a cluster start one.
$(VENV)/installed-ray: $(VENV)/installed-dev
	@echo 'Fetching Ray, on which the tests of albums on a cluster run; about a minute.' >&2
	$(PIP) --editable ".[ray]"
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
