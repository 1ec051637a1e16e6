# Two commands for a newcomer: `make demo` restores a photo, `make test` runs every check.
# Both make .venv with the versions of constraints.txt; nothing outside this folder is touched.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --progress-bar off $(PIP_ARGS)
# torch first and by its exact version: a looser request takes the newest build there is, on Linux
# with several GB of CUDA libraries.
TORCH := $(shell grep '^torch==' constraints.txt)

# One thread a process: the tests run in two processes, and more threads only get in their way.
# glibc keeps large blocks instead of clearing fresh ones for every layer: half the time.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 \
	MALLOC_TRIM_THRESHOLD_=1073741824

.PHONY: help demo test lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    restore the photos of examples/ into out/"
	@echo "make test    ruff, pyright and the test suite"
	@echo "make lint    ruff and pyright only"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove .venv, out/ and caches"
	@echo "Another Python than python3: make demo PYTHON=python3.12"

demo: $(VENV)/.core
	$(BIN)/panini restore examples/astronaut_lq.png -o out --overwrite
	$(BIN)/panini restore examples/face_lq.png --aligned -o out --overwrite
	@echo
	@echo "The photos as they were: $(CURDIR)/examples/astronaut_lq.png and face_lq.png"
	@echo "The photos restored:     $(CURDIR)/out/astronaut_lq.png and face_lq.png"

test: lint
	$(TEST_ENV) $(BIN)/pytest -n 2

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) out .pytest_cache .ruff_cache .hypothesis build dist src/*.egg-info

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: install Python 3.11 or newer, or name one: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version), but Panini needs Python 3.11 or newer; name another: make demo PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)."
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.made constraints.txt
	@echo "Installing PyTorch, the largest part: a minute or more."
	$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.core
