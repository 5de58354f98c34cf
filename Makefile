# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= demo

# set by .ci/run: what the tests side by side reach, in one sum over `test` and `slow`
COVER ?=
COVERED := $(if $(COVER),--cov --cov-append --cov-report=)
MIN_COVERAGE := 94

.PHONY: help demo test slow check covered bench clean models

help:
	@echo "make demo    set up the environment, make a character, render demo.mp4"
	@echo "make test    set up the environment, run every check, and every test but the slow ones"
	@echo "make slow    the other tests: large networks, compilers, hostile packs, real clips (over 10 s each)"
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
	$(BIN)/mypy -n auto
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_words.py

# tests that check the timing of a live stream run alone: next to other tests, frames would be late
test: check models
	$(BIN)/pytest -n auto --dist loadfile -m "not alone and not slow" --durations 20 $(COVERED)
	$(BIN)/pytest -m "alone and not slow" --durations 10

slow: .venv/.tested models
	$(BIN)/pytest -n auto --dist loadfile -m "slow and not alone" --durations 20 $(COVERED)
	$(BIN)/pytest -m "slow and alone" --durations 10 || test $$? -eq 5  # there may be none

covered:
	$(BIN)/coverage report --fail-under=$(MIN_COVERAGE) --format=total

bench: .venv/.tested models
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf .venv .coverage $(OUT)
