# All tasks of the project; `make` alone lists them.
# Each target creates .venv and installs the pinned packages when that is needed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types slow torture mutation gpu bench claims clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

install: $(READY) ## Create .venv and install the pinned packages

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY) ## Train a model, print ten translations and its BLEU score
	$(BIN)/mt train configs/demo.yaml --run $(DEMO)
	$(BIN)/mt eval $(DEMO) --show 10

# Two processes of one thread each: threads of several processes would slow each other.
test: lint types ## Lint, types and tests: what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not slow and not gpu and not torture"

lint: $(READY) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## Check types
	$(BIN)/mypy

slow: $(READY) ## The tests that take minutes
	$(BIN)/python -m pytest -m "slow and not gpu"

torture: $(READY) ## Crash and resume, many times (SEED=N replays)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load --maxschedchunk 1 \
		-m torture $(if $(SEED),--seed $(SEED))

mutation: $(READY) ## Break what the tests guard, and see that they notice
	$(BIN)/python scripts/mutation.py

gpu: $(READY) ## The tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

bench: $(READY) ## Measure the speed of this machine
	$(BIN)/python scripts/bench/training.py
	$(BIN)/python scripts/bench/preparing.py

claims: $(READY) ## Test common claims about the Transformer: docs/claims.md (QUICK=1: minutes)
	$(BIN)/python scripts/claims $(if $(QUICK),--size quick)

.PHONY: audit oldest
audit: $(READY) ## Look for known faults in the pinned packages
	$(BIN)/python scripts/audit.py

# The least torch that pyproject.toml allows, with all else as pinned.
OLDEST := .venv-oldest
$(OLDEST)/.installed: pyproject.toml constraints.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	torch=$$(sed -n 's/.*"torch>=\([0-9.]*\).*/\1/p' pyproject.toml); \
		sed "s/^torch==.*/torch==$$torch.*/" constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(OLDEST)/constraints.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(OLDEST)/constraints.txt -e '.[dev]'
	touch $(OLDEST)/.installed

oldest: $(OLDEST)/.installed ## The tests with the oldest torch allowed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not slow and not gpu and not torture"

clean: ## Delete caches and build output; runs/ and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find mt tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
