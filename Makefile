# Works on a bare machine with CPython >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=

.PHONY: demo test lint venv wheel clean

venv: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: venv
	$(BIN)/spqr run -n $(WORKERS) $(ARGS)

test: venv lint
	$(BIN)/python -m pytest tests -n $(WORKERS) --dist worksteal

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: venv
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) dist .spqr spqr-report
