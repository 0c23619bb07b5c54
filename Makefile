# Every target works on a bare machine: it needs python3 (3.11 or newer) and pip, and makes its own virtual environment.
#
#   make adapt     install, then adapt the micro English Backpack with examples/recipes/quickstart.yaml
#   make test      install, then run the tests
#   make quality   lint; `make style` also repairs what can be repaired
#   make clean     remove the virtual environment, caches and build products (not outputs/)
#
# PYTHON names the interpreter, VENV the environment, TESTS the tests to run.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests

export PATH := $(abspath $(VENV))/bin:$(PATH)
# Pip is quiet about its caches and indexes; errors are still shown.
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
SOURCES := modeling_backpack sensia_trainer examples tests .ci

.PHONY: adapt test quality style clean

adapt: $(VENV)/.installed-quickstart
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no examples/adapt.py examples/recipes/quickstart.yaml

test: $(VENV)/.installed-test
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $(BIN)/pytest -n 2 --dist loadfile $(TESTS)

quality: $(VENV)/.installed-quality
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python .ci/lint_model.py

style: $(VENV)/.installed-quality
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: an installation is repeated only when what is to be installed has changed.
# Some distributions ship venv without ensurepip; there the machine's own pip fills the environment.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || \
	    { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; }
	@touch $@

$(VENV)/.installed-torch: constraints.txt | $(VENV)/.created
	@echo "Installing torch (a minute or two)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.installed-quality: constraints.txt | $(VENV)/.created
	@echo "Installing the linters"
	@$(PIP) -c constraints.txt ruff transformers-mlinter
	@touch $@

$(VENV)/.installed-%: setup.cfg pyproject.toml constraints.txt | $(VENV)/.installed-torch
	@echo "Installing sensia[$*] (a minute or two)"
	@$(PIP) -c constraints.txt -e ".[$*]"
	@touch $@
