# Needs make, bash and Python 3.9 or later, nothing else: environments are made as they are needed, in .venv*/.
SHELL = bash
PYTHON = python3
VENV = .venv
DIRECTORY =
MARK =
TESTS =
# What is run on the oldest Python, too: all that is more about Python than about files, hosts and pages.
INTERPRETER = tests/unit tests/cli tests/worker tests/trust tests/submission tests/hostile

.PHONY: help demo test pytest lint docs bench dist pyz sbom audit clean
MAKEFLAGS += --no-print-directory

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 16

demo: $(VENV)/.rich ## checksum and compress a few hundred files with several workers (DIRECTORY=... of your own)
	@$(VENV)/bin/python workflows/demo.py $(DIRECTORY)

# Types are checked on the oldest Python, whose standard library is the one to hold to. The tests on real clusters and
# file servers, of the engine's protocol (killed at each call, falsified replies, storms, models) and of browsers and
# documents are about those, where the interpreter matters little: one is enough for them. They wait much, so that three
# parts run at a time; what they print is mixed line by line. Guests and clusters have daemons that are missed
# within seconds: what computes lets them go first. Those that measure turns and rates among hosts come last.
test: ## all checks, then all tests on the newest Python here, and most on the oldest (as root: installs Slurm, SGE, strace ... for them)
	@.ci/packages
	@set -e; oldest=$$(.ci/pythons | head -n 1); newest=$$(.ci/pythons | tail -n 1); \
	$(MAKE) lint $$oldest; \
	$(MAKE) environment $$newest; \
	$(MAKE) -j 3 -k $$newest OLDEST="$$oldest" NEWEST="$$newest" $(PARTS); \
	$(MAKE) $$newest test-alone

PARTS = test-hosts test-engine test-others test-clusters test-snakemake test-oldest
RUN = set -o pipefail; $(VENV)/bin/python -u -m pytest
COMPUTE = set -o pipefail; nice -n 3 $(VENV)/bin/python -u -m pytest
LINEWISE = 2>&1 | grep --line-buffered ^
NO_CLUSTER = not nfs and not slurm and not sge
.PHONY: environment $(PARTS) test-alone
environment: $(VENV)/.test
test-hosts: environment
	@$(RUN) -m 'nfs and not alone' $(LINEWISE)
test-clusters: environment
	@$(RUN) -m 'slurm or sge' $(LINEWISE)
test-engine: environment
	@$(COMPUTE) -m '$(NO_CLUSTER)' tests/engine tests/worker $(LINEWISE)
test-snakemake: environment
	@$(COMPUTE) -m '$(NO_CLUSTER)' tests/snakemake $(LINEWISE)
test-others: environment
	@$(COMPUTE) -m '$(NO_CLUSTER)' --ignore=tests/engine --ignore=tests/worker --ignore=tests/snakemake $(LINEWISE)
test-oldest:
	@test "$(OLDEST)" = "$(NEWEST)" || nice -n 3 $(MAKE) pytest $(OLDEST) MARK='$(NO_CLUSTER) and not slow' TESTS='$(INTERPRETER)'
test-alone: environment
	@$(RUN) -m alone

pytest: $(VENV)/.test ## the tests alone, on python3 (PYTHON=... VENV=... for another, MARK='not slow', TESTS=tests/unit for some)
	@$(VENV)/bin/python -m pytest -m '$(MARK)' $(TESTS)

lint: $(VENV)/.test ## style, types, and who may import whom
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

docs: $(VENV)/.docs ## the documentation site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml
	@echo build/site/index.html

bench: $(VENV)/.test ## the measurements that benchmarks/ describes
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r benchmarks/requirements.txt
	@$(VENV)/bin/python benchmarks/bench.py --save

# The day of the last change, if nobody says another: who builds the same again gets the same bytes.
dist pyz sbom: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 1580601600))
dist: $(VENV)/.dist ## wheel and sdist, checked, in dist/
	@rm -f dist/*.whl dist/*.tar.gz
	@$(VENV)/bin/python -m build
	@$(VENV)/bin/twine check --strict dist/*.whl dist/*.tar.gz

pyz: $(VENV)/.dist ## the command as one file, dist/ddmq-hpc.pyz
	@PYTHONHASHSEED=0 $(VENV)/bin/python recipes/pyz.py

sbom: $(VENV)/.dist ## what the package needs, and what the one file contains, as CycloneDX in dist/
	@mkdir -p build dist
	@sed "s/^dynamic = .*/version = \"$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' ddmq_hpc/__init__.py)\"/" pyproject.toml >build/named.toml
	@$(PYTHON) -m venv --clear --without-pip .venv-bare
	@$(VENV)/bin/python -m pip --python .venv-bare install -qq --disable-pip-version-check .
	@$(VENV)/bin/cyclonedx-py environment --output-reproducible --pyproject build/named.toml -o dist/ddmq-hpc.cdx.json .venv-bare
	@$(VENV)/bin/cyclonedx-py requirements --output-reproducible --pyproject build/named.toml -o dist/ddmq-hpc.pyz.cdx.json \
	    recipes/pyz-requirements.txt

# Strict: what pypi.org could not be asked about is not called sound.
audit: $(VENV)/.dist ## known vulnerabilities of what the package needs and of what the one file contains (asks pypi.org)
	@$(VENV)/bin/pip-audit --strict .
	@$(VENV)/bin/pip-audit --strict --no-deps --disable-pip -r recipes/pyz-requirements.txt

clean: ## remove environments and caches
	rm -rf .venv* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# $(VENV)/.EXTRA: the environment has this project, editable, with what EXTRA of pyproject.toml lists.
$(VENV)/.%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9) and "Python 3.9 or later is needed: say PYTHON=python3.x")'
	@$(VENV)/bin/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[$*]'
	@touch $@
