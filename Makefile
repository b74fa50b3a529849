PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test kodak types lint

demo: .venv/installed
	$(BIN)/python -m laconic.tools.demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup

# The README's figure and table, and a report: make kodak KODAK=folder (assets/kodak.sha256 says which files)
kodak: .venv/installed-dev
	$(BIN)/laconic eval $(KODAK) -o results/kodak
	$(BIN)/laconic plot results/kodak --published assets/published/*.json --max-rate 2
	$(BIN)/laconic report results/kodak --published assets/published/*.json

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
	ln -s $(addprefix ../../../,$(wildcard codec/*.py) codec/py.typed codec/media codec/dataset entropy models tools assets) build/types/laconic/

lint: .venv/installed-dev types
	$(BIN)/ruff check codec entropy models tools tests
	$(BIN)/mypy
