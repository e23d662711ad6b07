# make demo   sets up .venv, then trains and tests both streams on the built-in dataset
# make mine VIDEOS=DIR   the same with your own videos; MINE_FLAGS=... of scripts/quickstart.py
# make test   sets up .venv, then checks the style and runs all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=
VIDEOS ?=
MINE_FLAGS ?=

.PHONY: demo mine test setup clean

demo: setup
	$(BIN)/python scripts/demo.py $(DEMO_FLAGS)

mine: setup
	$(BIN)/python scripts/quickstart.py "$(VIDEOS)" $(MINE_FLAGS)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m ''

setup: $(VENV)/installed

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) checkpoint results datasets/motions_frames datasets/settings/motions
