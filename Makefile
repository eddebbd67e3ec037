# Everything sets itself up: Python 3.11 or newer, git and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Address of PyTorch's own index of builds without CUDA (see docs/start.md): make TORCH_INDEX=... demo
TORCH_INDEX ?=

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The requirement of torch, as pyproject.toml has it.
TORCH := $(BIN)/python -c 'import tomllib; print(*(r for r in \
	tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if r.startswith("torch")))'

# Compiled modules are kept, or each process that a test starts compiles them anew.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

.PHONY: demo test check coverage docs format clean

demo: $(READY)
	$(BIN)/overpaint demo --out demo-output

test: $(READY)
	$(PYTEST)

# What every commit must pass.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(PYTEST) -m "not slow and not browser"

# Lines and branches that the fast tests reach; pages in build/coverage.
coverage: $(READY)
	$(PYTEST) -m "not slow" --cov --cov-report=term \
	  --cov-report=html:build/coverage

# The documentation, in build/site; no page loads anything from another host.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
# A pip of 2023 tries hundreds of versions of boto3 before it finds those that belong together.
	$(PIP) install --upgrade "pip>=24.1"
ifeq ($(TORCH_INDEX),)
	@echo 'Installing into $(VENV), which prints nothing for some minutes; on Linux it can download 3 GB, see docs/start.md'
else
	$(PIP) install --index-url $(TORCH_INDEX) "$$($(TORCH))"
endif
	$(PIP) install --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build demo-output runs cache
