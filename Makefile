# Everything works from a clean clone: each target makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Shapes and types of every call are checked at run time; that costs time, and `make check` leaves it out.
TYPED := --jaxtyping-packages=retrograd,beartype.beartype

.PHONY: demo test check integrations fuzz format static install

demo: $(INSTALLED)
	$(BIN)/retrograd demo

# The tests that take less than a few seconds each.
check: static
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not sweep"

# Every mechanism at least once. PYTEST_OPTIONS is for `.ci/run`.
test: static
	$(BIN)/pytest -n 2 --dist loadfile -m "not sweep" $(TYPED) $(PYTEST_OPTIONS)

# Sweeps: every combination of what `make test` runs once, a kill at every place, more examples of hypothesis.
integrations: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile -m "sweep or hypothesis" --hypothesis-profile=thorough $(TYPED) $(PYTEST_OPTIONS)

# More than 100,000 damaged files; a table at the end says what the readers did with them.
fuzz: $(INSTALLED)
	$(BIN)/pytest tests/fuzz --fuzz-inputs=3300

static: $(INSTALLED)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(INSTALLED)

# torch first and by its exact version: left to a dependency, pip would take a build with several GB of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'retrograd needs Python 3.11 or newer; set PYTHON=...'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
