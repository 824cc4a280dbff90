# Two commands: `make serve` talks to nano, `make test` runs the CPU suite. Each builds .venv on first use.

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8000

# Linux wheels of torch on PyPI carry gigabytes of CUDA; without an NVIDIA driver the CPU build is taken instead.
TORCH := torch==2.13.0
ifeq ($(shell uname -s),Linux)
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
TORCH += --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif

.PHONY: serve chat test lint clean

serve: .venv/installed
	$(BIN)/ming serve --port $(PORT)

chat: .venv/installed
	$(BIN)/ming chat

# One thread a worker: torch's thread pools would only fight over the cores.
test: .venv/tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical

lint: .venv/tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.venv/torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ming-omni needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --retries 2 $(TORCH)
	@touch $@

.venv/installed: .venv/torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/tested: .venv/torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info
