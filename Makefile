# All set-up is here: every target makes .venv by itself, and again when pyproject.toml has changed.

PYTHON ?= python3.11
HTTP_PORT ?= 8000
# Wheels of torch for the CPU: a tenth of those with CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Whole files, as their tests share servers and models; in the order of their names, of which the last are short.
PYTEST_FLAGS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help serve test test-torch lint bench bench-gpu clean

help:
	@echo "make serve [HTTP_PORT=8000]   serve the OCR pipeline on 127.0.0.1"
	@echo "make test                     ruff, mypy and pytest, two files of tests at a time"
	@echo "make test-torch               the tests of models with torch, which \`make test\` skips: it downloads 0.2 GB"
	@echo "make bench                    benchmarks against what one would write without asyncline (wrk for REST)"
	@echo "make bench-gpu                the CUDA lane beside a raw CUDA-graph loop; needs a GPU"
	@echo "make clean                    remove .venv and caches"

serve: $(VENV)/.ocr
	@exec $(BIN)/asyncline serve ops.ocr:graph --config config/ocr.yml --http-port $(HTTP_PORT)

test: lint
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-torch: $(VENV)/.dev-torch
	$(BIN)/python -m pytest tests/backends

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ocr
	$(BIN)/python -m loadtest.bench

bench-gpu: $(VENV)/.torch
	$(BIN)/python -m loadtest.gpu

# One file for each set of extras: newer than pyproject.toml where that set is installed as it says.
$(VENV)/.ocr $(VENV)/.dev $(VENV)/.torch: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.dev-torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --extra-index-url $(TORCH_INDEX) torch==2.13.0
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
