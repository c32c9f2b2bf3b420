# Uses .venv where there is one, otherwise the Python of the surroundings; `make check PYTHON=...` names another.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)

.PHONY: check format lint types audit test constraints

check: lint types audit test

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

# Skips, with a word, what is not installed or cannot be reached.
audit:
	$(PYTHON) .ci/audit.py

test:
	$(PYTHON) -m pytest

# torch first and by hand: its version is a decision, not a consequence. `+cpu` and the like name a build, not a version.
constraints:
	rm -rf build/constraints && python3 -m venv build/constraints
	build/constraints/bin/pip install --quiet torch==2.13.0
	build/constraints/bin/pip install --quiet '.[test,quickstart,peers,eval,qlora,slurm,browser]'
	build/constraints/bin/pip freeze --all --exclude pip --exclude smallmodels | sed 's/+[a-z0-9.]*$$//' > build/pins.txt
	(head -n 1 constraints.txt && cat build/pins.txt) > build/constraints.txt
	mv build/constraints.txt constraints.txt
