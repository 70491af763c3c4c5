# Needs make and Python 3.9 or later, nothing else: environments are made as they are needed, in .venv*/.
PYTHON = python3
VENV = .venv
DIRECTORY =
MARK =

.PHONY: help demo test pytest lint bench clean
MAKEFLAGS += --no-print-directory

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 16

demo: $(VENV)/.rich ## checksum and compress a few hundred files with several workers (DIRECTORY=... of your own)
	@$(VENV)/bin/python workflows/demo.py $(DIRECTORY)

# Types are checked on the oldest Python, whose standard library is the one to hold to. The tests on real clusters and
# file servers are about those, where the interpreter matters little: one is enough for them.
test: ## all checks, then all tests on the oldest and the newest Python here (as root: installs Slurm, SGE, strace ... for them)
	@.ci/packages
	@set -e; oldest=$$(.ci/pythons | head -n 1); newest=$$(.ci/pythons | tail -n 1); \
	$(MAKE) lint $$oldest; \
	test "$$oldest" = "$$newest" || $(MAKE) pytest $$oldest MARK='not slurm and not sge and not nfs'; \
	$(MAKE) pytest $$newest

pytest: $(VENV)/.test ## the tests alone, on python3 (PYTHON=... VENV=... for another, MARK='not slow' for some)
	@$(VENV)/bin/python -m pytest -m '$(MARK)'

lint: $(VENV)/.test ## style, types, and who may import whom
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: $(VENV)/.test ## the measurements that benchmarks/ describes
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r benchmarks/requirements.txt
	@$(VENV)/bin/python benchmarks/bench.py --save

clean: ## remove environments and caches
	rm -rf .venv* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# $(VENV)/.EXTRA: the environment has this project, editable, with what EXTRA of pyproject.toml lists.
$(VENV)/.%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "Python 3.9 or later is needed: say PYTHON=python3.x")'
	@$(VENV)/bin/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[$*]'
	@touch $@
