# Everything a fresh machine with Python 3.11+ and make needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check slow docs bench clean

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

docs: $(READY)  ## the pages as HTML, in build/docs
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs

bench: $(READY)  ## the five real data sets: base, tuned, random initialisation, baselines
	$(BIN)/python benchmarks/five_tasks.py

clean:
	rm -rf $(VENV) build dist
