# make demo: the whole chain on this machine.  make test: the tests.  Both set up .venv first when it is missing.
PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 --version >/dev/null 2>&1 && echo python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Model-written code runs in bubblewrap. Where it cannot be had (not root, or no user namespaces) the rehearsal, whose
# models write one-line functions, asks for the weaker mode by name.
SANDBOX := if ! $(BIN)/python -c 'import sys; from prism_nemo.sandbox import active_mode; sys.exit(active_mode() is None)'; \
	then echo "no bubblewrap here: code runs in the weaker sandbox mode 'rlimits' (prism doctor)"; export PRISM_SANDBOX=rlimits; fi

.PHONY: demo demo-hybrid test test-cluster check format lock clean

demo: $(READY)
	@$(SANDBOX); $(BIN)/prism run recipes/tiny_dense.py

demo-hybrid: $(READY)
	@$(SANDBOX); $(BIN)/prism run recipes/tiny_hybrid.py

test: $(READY)
	@$(SANDBOX); $(BIN)/python -m pytest -n 2 --dist loadfile -m "not cluster" $(ARGS)

test-cluster: $(READY)
	$(BIN)/python -m pytest -m cluster tests/cluster

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): requirements/main.txt requirements/bridge.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 12) else "Python 3.12 is needed, this is %d.%d; with pyenv: pyenv install 3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r requirements/main.txt -r requirements/bridge.txt -r requirements/dev.txt
	@-$(BIN)/python -W ignore -m compileall -q -j 0 $(VENV)/lib >/dev/null  # pip does it on one core
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get -qq update && apt-get -qq install -y bubblewrap libseccomp2 g++ >/dev/null; } || \
		echo "bubblewrap is not installed; install it for the full sandbox: apt-get install bubblewrap libseccomp2"
	touch $(READY)

# Megatron-Bridge's declared dependencies cannot be resolved together on Debian 12, so it is locked by itself.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-emit-index-url requirements/main.in -o requirements/main.txt
	$(BIN)/uv pip compile --quiet --no-deps --python-version 3.12 --generate-hashes --no-annotate --no-header --no-emit-index-url requirements/bridge.in -o requirements/bridge.txt
	$(BIN)/uv pip compile --quiet --python-version 3.12 --generate-hashes --no-annotate --no-header --no-emit-index-url requirements/dev.in -o requirements/dev.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis
