# Everything sets itself up: `make test` works in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := envs dynamics controllers optimizers experiments
export OMP_NUM_THREADS := 1

.PHONY: compare test slow mutants golden lint bench setup peers clean

compare: $(VENV)/.ready
	$(BIN)/steersman compare tour --out results/tour

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

# Breaks sixty statements, one at a time, and counts what the tests notice: about half an hour on two cores.
mutants: $(VENV)/.ready
	$(BIN)/python tests/mutants

# Whole episodes, cheap controllers and small trainings against stored numbers, on the machine that stored them.
golden: $(VENV)/.ready
	$(BIN)/python tests/golden

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=-p steersman.%)

bench: $(VENV)/.ready
	$(BIN)/steersman bench envs --json results/bench/envs.json

setup: $(VENV)/.ready

# Packages that only benchmarks compare against, in an environment of their own: some pin what we do not.
peers:
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install -q controlgym==1.0.0
	# In a step of its own: controlgym asks for numpy 1, which it does not need and ANDES does not take.
	$(VENV)-peers/bin/python -m pip install -q andes==2.0.0
	$(VENV)-peers/bin/andes prepare

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off -q -c constraints.txt torch
	$(BIN)/python -m pip install --progress-bar off -q -c constraints.txt -e '.[dev]'
	mkdir -p .typing/steersman
	for p in $(PACKAGES); do ln -sfn ../../$$p .typing/steersman/$$p; done
	touch $@

clean:
	rm -rf $(VENV) .typing build *.egg-info
