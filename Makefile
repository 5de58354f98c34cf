# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo

.PHONY: help demo test check bench clean models

help:
	@echo "make demo    set up the environment, make a character, render demo.mp4"
	@echo "make test    set up the environment, run every check and test"
	@echo "make check   format, lint, types and import contracts only"
	@echo "make bench   run the benchmarks; needs the data folder (TANGO_DATA_DIR); writes benchmarks/RESULTS.md"
	@echo "make clean   remove the environment and the output of the demo"

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# needed only by the tests: networks to compile, engines to run them, checkers
.venv/.tested: .venv/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[export,full,openvino,tensorrt-rtx]" --group dev
	@touch $@

# the networks that find people in video, once per machine; --from and mirrors: tango-rt models fetch --help
models: .venv/.ready
	$(BIN)/tango-rt models fetch

demo: models
	$(BIN)/tango-rt demo --out $(OUT)

check: .venv/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# tests that check the timing of a live stream run alone: next to other tests, frames would be late
test: check models
	$(BIN)/pytest -n auto --dist loadfile -m "not alone" --durations 20
	$(BIN)/pytest -m alone --durations 10

bench: .venv/.tested models
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf .venv $(OUT)
