# Every target works on a bare machine: it needs python3 (3.11 or newer) and pip, and makes its own virtual environment.
#
#   make adapt     install, then adapt the micro English Backpack with quickstart
#   make test      install, then run the tests
#   make test-versions   a smoke test with the oldest and the newest versions of the dependencies
#   make docs      install, then build the site strictly, into build/site (`python docs/render.py` renews its tables)
#   make cards     install, then bring code, figures and cards of model_cards/ up to date with the code here
#   make quality   lint and check types; `make style` also repairs what can be repaired
#   make clean     remove the virtual environments, caches and build products (not outputs/)
#
# PYTHON names the interpreter, VENV the environment, TESTS the tests to run.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests

export PATH := $(abspath $(VENV))/bin:$(PATH)
# glibc keeps the memory of freed tensors for the next ones, which come again each step, instead of faulting it in anew:
# training on a CPU takes a fifth less time.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 2147483647
# Pip is quiet about its caches and indexes; errors are still shown.
BIN := $(VENV)/bin
TORCH := $(VENV)-torch
# What is imported is compiled when it is, and the compiled kept; all of it, by pip, would take a minute.
export PYTHONDONTWRITEBYTECODE :=
QUIET := -qq --disable-pip-version-check --no-compile
PIP := $(BIN)/python -m pip install $(QUIET)
PACKAGES := 'import site; print(site.getsitepackages()[0])'
SOURCES := modeling_backpack sensia_trainer examples docs tests .ci

.PHONY: adapt test test-versions test-oldest test-newest docs cards quality style clean

adapt: $(VENV)/.installed-quickstart
	$(BIN)/sensia adapt quickstart

test: $(VENV)/.installed-test
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

test-versions: test-oldest test-newest

test-oldest test-newest: test-%: $(VENV)-%/.installed
	HF_HUB_OFFLINE=1 $(VENV)-$*/bin/pytest -n 0 tests/test_versions.py

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

cards: $(VENV)/.installed-test
	$(BIN)/python -m sensia_trainer release --refresh model_cards/*

quality: $(VENV)/.installed-quality
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python .ci/lint_model.py

style: $(VENV)/.installed-quality
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) $(TORCH) $(VENV)-oldest $(VENV)-newest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: an installation is repeated only when what is to be installed has changed.
# Some distributions ship venv without ensurepip; there the machine's own pip fills the environment.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; }
	@$(PIP) --upgrade pip || true  # the one that comes with Python takes twice as long, but will do
	@touch $@

# Torch is big: it is installed once, into an environment that the others read from.
$(TORCH)/.installed: constraints.txt
	@$(MAKE) --no-print-directory VENV=$(TORCH) $(TORCH)/.created
	@echo "Installing torch (a minute or two)"
	@$(TORCH)/bin/python -m pip install $(QUIET) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.installed-torch: $(TORCH)/.installed | $(VENV)/.created
	@$(TORCH)/bin/python -c $(PACKAGES) > "$$($(BIN)/python -c $(PACKAGES))/torch.pth"
	@touch $@

$(VENV)/.installed-quality: constraints.txt | $(VENV)/.created
	@echo "Installing the linters"
	@$(PIP) -c constraints.txt mypy ruff transformers-mlinter
	@touch $@

$(VENV)/.installed-%: setup.cfg pyproject.toml constraints.txt | $(VENV)/.installed-torch
	@echo "Installing sensia[$*] (a minute or two)"
	@$(PIP) -c constraints.txt -e ".[$*]"
	@touch $@

# Torch stays the pinned one in both; the newest set is looked up again whenever it is made anew (make clean).
$(VENV)-%/.installed: setup.cfg constraints.txt constraints-oldest.txt $(TORCH)/.installed
	@$(MAKE) --no-print-directory VENV=$(VENV)-$* TORCH=$(TORCH) $(VENV)-$*/.installed-torch
	@echo "Installing the $* versions (a minute or two)"
	@$(if $(filter oldest,$*),cp constraints-oldest.txt,grep '^torch==' constraints.txt >) $(VENV)-$*/constraints.txt
	@$(VENV)-$*/bin/python -m pip install $(QUIET) -c $(VENV)-$*/constraints.txt -e ".[peft]" pytest pytest-timeout pytest-xdist
	@touch $@
