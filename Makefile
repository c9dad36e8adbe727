# Each target does its own set-up: a virtual environment in .venv, with the versions of the lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests beside one another. An idle process takes over what another has still to do; slow tests of a
# file stay together, for what they share is dear, and the longest file's name comes first.
PROCESSES ?= 2
# Tests start Python hundreds of times, and each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES)

.PHONY: install demo test test-slow check format lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("asha-ray needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV) || { echo 'venv is missing: apt-get install python3-venv'; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@# librosa and our own kernels are compiled when they are first used. Processes that do it at once
	@# each take half a minute, and may mix up what they write (numba issue 10128).
	$(BIN)/python -c 'import asha_ray.audio.tracker; from asha_ray.video.convert import prepare; prepare()'
	@touch $@

demo: install
	$(BIN)/asha-ray demo --out demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install
	$(PYTEST) --dist worksteal -m "not slow and not gpu"

test-slow: install
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "slow and not gpu" \
		--timeout 900 tests/integration

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# No hashes and no local versions: torch's wheels differ between the CPU and CUDA builds of a version.
lock: install
	$(BIN)/pip-compile --quiet --extra dev --strip-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.lock pyproject.toml
	sed -i 's/+cpu$$//; /^#/d' requirements.lock

clean:
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache build dist
