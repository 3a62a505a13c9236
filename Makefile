# Everything a fresh machine with Python 3.11+ and make needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check slow bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)  ## tune the shipped base on sample rows, measure it, answer five rows, write a report
	rm -rf runs/demo
	$(BIN)/treetune demo

test: $(READY)  ## all tests that belong in a commit
	$(BIN)/python -m pytest -m "not slow"

check: $(READY)  ## lint and types
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

bench: $(READY)  ## the five real data sets: base, tuned, random initialisation, baselines
	$(BIN)/python benchmarks/five_tasks.py

clean:
	rm -rf $(VENV) build dist
