# Works on a bare machine with CPython >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=
# what is installed beside the package; with `docs` among them `make docs` installs nothing more
EXTRAS ?= dev,languages
KNOWN_GOOD := spqr_checks/known_good.txt
LOWEST := constraints/lowest.txt
PYTEST := -m pytest tests -q -n $(WORKERS) --dist worksteal
QUICK := $(PYTEST) -m "not trains and not slow and not heavy"
# for other versions of libraries: all that neither trains for long nor starts whole runs
VERSIONS := $(PYTEST) -m "not trains and not slow"
# small networks are faster on one thread, and so are workers beside each other; what tests start
# is compiled once, whatever this shell says
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
# one data set and one concept through every step: align, draw, fine-tune, judge, score
SMALL := run -n $(WORKERS) --spqr-concepts hazard --spqr-languages en --spqr-domains photo \
	--spqr-datasets miniature:pastel --spqr-profiles lite --spqr-seeds 0 --spqr-min-tuning-seeds 1 \
	--spqr-report

.PHONY: demo browser test unlinted quick test-newest test-lowest lock lint docs venv wheel clean

venv: $(VENV)/installed

# the build backend comes from the known-good set too, hence no isolated build
$(VENV)/installed: pyproject.toml $(KNOWN_GOOD)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(KNOWN_GOOD) --upgrade pip hatchling editables
	$(BIN)/python -m pip install --quiet --constraint $(KNOWN_GOOD) --no-build-isolation --editable ".[$(EXTRAS)]"
	touch $@

demo: venv
	$(BIN)/spqr run -n $(WORKERS) $(ARGS)

test: venv lint
	$(MAKE) unlinted

# what .ci/run calls after lint
unlinted: venv
	$(TESTING) $(BIN)/python -m pytest tests -n $(WORKERS) --dist worksteal

# what says in minutes whether a change is sound; `make test` runs everything
quick: venv lint
	$(TESTING) $(BIN)/python $(QUICK)

# whatever is newest today: what fails here becomes an exclusion with a test
test-newest:
	rm -rf $(VENV)-newest
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-newest/bin/python -m pip install --quiet --editable ".[dev,languages]"
	$(VENV)-newest/bin/python -m pip list
	$(TESTING) $(VENV)-newest/bin/python $(VERSIONS)
	$(VENV)-newest/bin/spqr $(SMALL) $(VENV)-newest/report --spqr-store $(VENV)-newest/store

# the lower bounds of pyproject.toml, which must be true
test-lowest:
	rm -rf $(VENV)-lowest
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint $(LOWEST) --editable ".[dev]"
	$(VENV)-lowest/bin/python -m pip list
	$(TESTING) $(VENV)-lowest/bin/python $(VERSIONS)

# makes both sets anew, from the newest releases; run `make test` before you commit them
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "uv>=0.9"
	$(COMPILE) --universal --all-extras --constraints constraints/known-bad.txt --output-file $(KNOWN_GOOD)
	$(COMPILE) --resolution lowest-direct --extra dev --output-file $(LOWEST)

COMPILE := $(VENV)-lock/bin/uv pip compile pyproject.toml --quiet --upgrade --python-version 3.11 \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# the pages in a real browser: needs Chromium and npm on this machine
browser: venv
	$(BIN)/python -m pip install --quiet playwright
	npm install --no-save --no-package-lock --silent axe-core
	$(TESTING) $(BIN)/python -m pytest tests/browser -q -rs

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the pages of docs/ as a site, in site/; a link that leads nowhere is an error
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

$(VENV)/docs-installed: $(VENV)/installed
	$(if $(findstring docs,$(EXTRAS)),,$(BIN)/python -m pip install --quiet --constraint $(KNOWN_GOOD) \
		--no-build-isolation --editable ".[docs]")
	touch $@

wheel: venv
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-lowest $(VENV)-lock dist site .spqr spqr-report
