# Everything runs in .venv, which the first target creates. PYTHON picks the interpreter it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE
# Test processes; each computes with one thread.
JOBS ?= auto

.PHONY: demo test test-slow lint install install-det clean

install: $(VENV)/installed

# Rebuilt when the dependencies change; the editable install needs no rebuild when the code does.
$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[demo,dev]"
	touch $@

# What the tests of the detector need besides; detectron2 is installed without a compiler.
$(VENV)/installed-det: $(VENV)/installed tools/install_detectron2.py
	$(BIN)/python -m pip install --quiet -e ".[demo,dev,det]"
	$(BIN)/python tools/install_detectron2.py
	touch $@

install-det: $(VENV)/installed-det

demo: install-det
	$(BIN)/pomp demo --output runs/demo

test: install-det
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist worksteal

test-slow: install-det
	$(BIN)/python -m pytest -m slow --timeout 0

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build runs .pytest_cache .mypy_cache .ruff_cache
