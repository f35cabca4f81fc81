# Everything is done in this checkout: .venv holds the dependencies, machine/tcg holds the built core.
#   make demo   set up, then the main job on the built-in guest
#   make test   set up, then the fast tests
# Needs python3 (3.11 or newer) with its headers, pip, gcc and make. Debian's python3 has no ensurepip, so
# the environment is made without pip and filled by the system's pip (22.3 or newer).

PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
STAMPS  := .stamps
PIP     := $(PYTHON) -m pip --python $(PY) install --quiet --disable-pip-version-check
PYTEST  := $(PY) -m pytest
JOBS    ?= 2

# `make SANITIZE=1 …` builds the core with the address and undefined-behaviour sanitizers.
SANITIZE ?=

CORE_SOURCES := $(shell find machine/tcg -path machine/tcg/_build -prune -o -type f \
	\( -name '*.c' -o -name '*.h' -o -name '*.inc' -o -name '*.decode' \) -print) \
	machine/tcg/build.py machine/tcg/decodetree.py machine/tcg/sources.py setup.py
C_SOURCES := $(shell find machine/tcg workbench/guests -path machine/tcg/_build -prune -o -type f \
	\( -name '*.c' -o -name '*.h' -o -name '*.inc' \) -print)
CORE_STAMP := $(STAMPS)/core$(if $(SANITIZE),-sanitize)

.PHONY: demo test test-slow test-all lint format build sanitize guest docs clean distclean

demo: build
	$(VENV)/bin/workbench demo --batch

test: build
	$(PYTEST) -n $(JOBS) -m "not slow" $(ARGS)

test-slow: build
	$(PYTEST) -n $(JOBS) -m slow --durations=15 $(ARGS)

test-all: build
	$(PYTEST) $(ARGS)

build: $(CORE_STAMP)

# Dependencies, once. The checkout itself is installed in place, without its core: that is the next stamp's.
$(STAMPS)/deps: pyproject.toml setup.py
	@mkdir -p $(STAMPS)
	@test -x $(PY) || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "installing dependencies into $(VENV)"
	@$(PIP) "setuptools>=77" "cffi>=1.16"
	@WORKBENCH_NO_CORE=1 $(PIP) --no-build-isolation --editable ".[test]"
	@touch $@

$(STAMPS)/dev: $(STAMPS)/deps
	@WORKBENCH_NO_CORE=1 $(PIP) --no-build-isolation --editable ".[dev]"
	@touch $@

# The core, whenever one of its sources changes. The two kinds of build replace each other.
$(CORE_STAMP): $(STAMPS)/deps $(CORE_SOURCES)
	@echo "building the core$(if $(SANITIZE), with sanitizers)"
	@rm -f $(STAMPS)/core $(STAMPS)/core-sanitize
	@WORKBENCH_SANITIZE=$(SANITIZE) $(PY) setup.py --quiet build_ext --inplace --force
	@ls -t machine/tcg/_core*.so | tail -n +2 | xargs -r rm -f # one under another ABI's name would be preferred
	@touch $@

lint: $(STAMPS)/dev build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(if $(C_SOURCES),$(VENV)/bin/clang-format --dry-run -Werror $(C_SOURCES))

format: $(STAMPS)/dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(if $(C_SOURCES),$(VENV)/bin/clang-format -i $(C_SOURCES))

# The fast tests on a core built with sanitizers; the next plain `make` builds the plain core again.
sanitize:
	$(MAKE) SANITIZE=1 build
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	$(PYTEST) -m "not slow" -p no:cacheprovider $(ARGS)

# The pages that are made of the code.
docs: build
	$(PY) -m workbench.reference docs/reference

# Builds the built-in guest anew; needs riscv64-linux-gnu-gcc. The result is checked in.
guest: $(STAMPS)/deps
	$(PY) -m workbench.guests.builtin.build

clean:
	rm -rf build machine/tcg/_build $(STAMPS)/core $(STAMPS)/core-sanitize
	find machine/tcg -name '_core*' -delete -o -name '*.o' -delete

distclean: clean
	rm -rf $(VENV) $(STAMPS) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
