PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test types lint

demo: .venv/installed
	$(BIN)/python -m laconic.tools.demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt "setuptools>=77"
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

types:
	rm -rf build/types && mkdir -p build/types/laconic
	ln -s $(addprefix ../../../,$(wildcard codec/*.py) codec/py.typed entropy models tools assets) build/types/laconic/

lint: .venv/installed-dev types
	$(BIN)/ruff check codec entropy models tools tests
	$(BIN)/mypy
