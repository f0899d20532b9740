PYTHON ?= python3
ARGS ?=
ROUNDS ?= 3000
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/ready
DEMO := .venv/demo
VENV := .venv/made

PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=10

# The tests start hundreds of Pythons, which would compile greenpg again each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test modes faults lint types format conformance bench plots upstream frameworks matrix cluster release-check docs soak clean

demo: $(DEMO)
	$(BIN)/greenpg demo $(ARGS)

test: $(READY)
	$(PYTEST) -m "not modes and not faults" tests/unit tests/db tests/green tests/docs $(ARGS)

modes: $(READY)
	$(PYTEST) -m modes tests/green $(ARGS)

faults: $(READY)
	$(PYTEST) -m faults tests/green $(ARGS)

lint: types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: $(READY)
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

conformance: $(READY)
	$(BIN)/greenpg conformance --all --strict $(ARGS)

bench: $(READY)
	$(BIN)/greenpg bench $(ARGS)

plots: $(READY)
	mkdir -p build
	$(BIN)/greenpg bench --json build/plots.json --plots docs/plots $(ARGS)

upstream: $(READY)
	$(BIN)/python -m tests.upstream $(ARGS)

frameworks: $(READY)
	$(BIN)/pytest -m "not further" tests/frameworks $(ARGS)

matrix: $(READY)
	$(BIN)/python -m tests.matrix $(ARGS)

cluster: $(READY)
	$(BIN)/python -m tests.cluster $(ARGS)

release-check: $(READY)
	$(BIN)/python -m tests.release $(ARGS)

docs: $(READY)
	$(BIN)/sphinx-build -E -n -W --keep-going docs docs/_build $(ARGS)

soak: $(READY)
	$(BIN)/python -m greenpg_conformance.storm.storm --rounds $(ROUNDS) $(ARGS)
	$(BIN)/python -m greenpg_conformance.storm.storm --rounds $(ROUNDS) --pairs $(ARGS)
	$(BIN)/python -m greenpg_conformance.storm.storm --driver psycopg --rounds $(ROUNDS) $(ARGS)
	$(BIN)/python -m greenpg_conformance.storm.storm --driver psycopg --rounds $(ROUNDS) --pairs $(ARGS)
	$(BIN)/python -m greenpg_conformance.storm.pool_soak $(ARGS)
	$(BIN)/python -m greenpg_conformance.storm.starved $(ARGS)
	GREENPG_COPY_MEGABYTES=500 $(BIN)/greenpg conformance --all --strict -k 'copy.*_memory*'

clean:
	rm -rf .venv build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml | $(VENV)
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $(DEMO) $(READY)

$(DEMO): pyproject.toml | $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[demo]'
	touch $(DEMO)

# Debian ships python3 without ensurepip, which is also slower; an old pip has no --python.
$(VENV):
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-compile pip || \
		$(BIN)/python -m ensurepip
	touch $(VENV)
