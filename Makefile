# Works on a bare machine with CPython >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=

.PHONY: demo test quick lint docs venv wheel clean

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

# what says in minutes whether a change is sound; `make test` runs everything. Small networks are
# faster on one thread, and so are workers beside each other
quick: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -q -m "not trains and not slow" -n $(WORKERS) --dist worksteal

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages of docs/ as a site, in site/; a link that leads nowhere is an error
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

wheel: venv
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) dist site .spqr spqr-report
