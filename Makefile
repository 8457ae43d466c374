# One command from a fresh clone to green: make test

# Tried in this order; the first that runs, is 3.11 or newer and can make a virtual environment is
# taken. Each is really run: a name on PATH may be a shim for an interpreter that is not there.
PYTHON ?= python3.13 python3.12 python3.11 python3
OLDEST = 3.11
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < tuple(map(int, "$(OLDEST)".split("."))))

BIN = .venv/bin
PIP_INSTALL = -m pip install -qq --disable-pip-version-check

# pyright: use the version that its wheel carries; do not ask the network for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.PHONY: help test demo lint format types check django6 network soak coverage lock clean
.PHONY: bench bench-smoke bench-limits
SEEDS ?= 20000
# Nodes of each simulated cluster, 3 to 5 by default: make soak NODES=100 SEEDS=2
NODES ?=
# Names of benchmarks, all by default; BENCH takes further options: make bench ONLY=join BENCH=--large
ONLY ?=
BENCH ?=

.NOTPARALLEL:

help:
	@echo "make test      run the tests (sets up .venv first)"
	@echo "make demo      run the example shop"
	@echo "make lint      ruff, formatting, import contracts"
	@echo "make format    rewrite the code as ruff wants it"
	@echo "make types     mypy and pyright, both strict"
	@echo "make check     lint, types and test"
	@echo "make django6   run the tests of the Django adapter under Django 6, if there is a Python 3.12 or newer"
	@echo "make network   run the tests on three hosts in network namespaces and those of hostile peers, the long ones too (as root)"
	@echo "make soak      run SEEDS=20000 simulated clusters and report what happened in them"
	@echo "make bench     measure everything beside Redis and other rivals; ONLY=name for one benchmark"
	@echo "make bench-limits  measure what nodes and sessions cost, and draw it"
	@echo "make coverage  run the tests and report branch coverage"
	@echo "make lock      renew requirements/dev.txt"
	@echo "make clean     remove .venv and everything built"

test: .venv/.ready
	@$(BIN)/python -m pytest

demo: .venv/.ready
	@$(BIN)/python examples/shop/run.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.ready
	$(BIN)/mypy
	$(BIN)/pyright

check: lint types test

# Django 6 needs Python 3.12, which need not be the one that .venv has, nor be on PATH.
django6: PYTHON = python3.13 python3.12 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[2-9].*/bin/python3)
django6: OLDEST = 3.12
django6: .venv/.ready
	@$(TRY_PYTHON); \
	if [ -z "$$python" ]; then \
		echo "Not tested under Django 6: no Python $(OLDEST) or newer with venv was found (tried: $(PYTHON))."; \
	else \
		$(BIN)/nox --session django6 --reuse-venv yes --force-python "$$(command -v "$$python")"; \
	fi

network: .venv/.ready
	@CANISTER_LONG_FAULTS=1 $(BIN)/python -m pytest tests/fault/test_namespaces.py tests/fault/test_hostile_peers.py

soak: .venv/.ready
	@$(BIN)/python -m canister.testing.simulation --seeds $(SEEDS) $(if $(NODES),--nodes $(NODES))

bench: .venv/.ready
	@$(BIN)/python -m benchmarks $(foreach name,$(ONLY),--only $(name)) $(BENCH)

bench-smoke: .venv/.ready
	@$(BIN)/python -m benchmarks --scale 500 --turns 2 $(foreach name,$(ONLY),--only $(name))

bench-limits: .venv/.ready
	@$(BIN)/python -m benchmarks.limits --plots docs/explanation $(BENCH)

coverage: .venv/.ready
	@$(BIN)/python -m pytest --cov --cov-report=term-missing

# The stamp is written last, so that a set-up that was broken off is begun again.
.venv/.ready: pyproject.toml requirements/dev.txt
	@$(FIND_PYTHON); \
	$(BIN)/python -c '' 2>/dev/null || { \
		echo "Setting up .venv with $$("$$python" --version), about a minute"; \
		"$$python" -m venv --clear .venv; \
	}
	@$(BIN)/python $(PIP_INSTALL) -r requirements/dev.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# The pins are made for the oldest Python supported, its first release: what it takes, the newer ones take.
lock: PYTHON = python3.11
lock:
	@$(FIND_PYTHON); \
	work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	"$$python" -m venv "$$work/venv" && \
	"$$work/venv/bin/python" $(PIP_INSTALL) --upgrade 'pip>=25.1' && \
	"$$work/venv/bin/python" $(PIP_INSTALL) --dry-run --ignore-installed --report "$$work/report.json" \
		--python-version $(OLDEST).0 --only-binary=:all: --target "$$work/none" \
		--group dev -e '.[uvloop,tls,asgi,demo,django,flask,quart,litestar,aiohttp,pyramid]' && \
	{ sed '/^[^#]/,$$d' requirements/dev.txt; \
	  "$$work/venv/bin/python" -c "$$PINS" "$$work/report.json"; } > "$$work/dev.txt" && \
	cat "$$work/dev.txt" > requirements/dev.txt

clean:
	rm -rf .venv .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf build dist htmlcov .coverage .coverage.*
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

export PINS
define PINS
import json, sys
found = json.load(open(sys.argv[1]))["install"]
packages = [one["metadata"] for one in found if "dir_info" not in one["download_info"]]
for package in sorted(packages, key=lambda package: package["name"].casefold()):
    print(package["name"], package["version"], sep="==")
endef

define TRY_PYTHON
set -e; python=; \
for candidate in $(PYTHON); do \
	if "$$candidate" -c '$(SUITABLE)' 2>/dev/null; then python=$$candidate; break; fi; \
done
endef

define FIND_PYTHON
$(TRY_PYTHON); \
if [ -z "$$python" ]; then \
	echo "No Python $(OLDEST) or newer with venv was found (tried: $(PYTHON))." >&2; \
	echo "Install one, or name yours: make test PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef
