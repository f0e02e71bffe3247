# SPDX-License-Identifier: GPL-2.0-only
# check   the conformance cases on the running kernel
# test    the project's own tests
# vm      the cases on the kernels of kernels.txt, in guests (VM names kernels or options)
# drills  the project's tests that boot guests, which take minutes
# bench   what write-protecting empty memory costs, now and later (SIZE=2G)
# bench-selftests  the suite's speed beside the kernel's own selftests
# fuzz    random programs for SECONDS in each world, on all cores
# mutants  how many faults planted in a kernel the cases find, which takes an hour or more
# reach   which lines of the kernel's uffd-wp code the cases run, and its selftests
# ARGS    goes to pytest, or to the benchmark: make check ARGS='-k none_pte -x'

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready
TESTS  := $(VENV)/ready-for-tests
PLOT   := $(VENV)/ready-to-plot
RUN    := results/$(shell date +%Y%m%dT%H%M%S)-$(shell echo $$PPID)

SECONDS ?= 600

.PHONY: check test vm drills bench bench-selftests fuzz mutants reach clean

check: $(READY)
	@mkdir -p $(RUN) && ln -sfn $(notdir $(RUN)) results/latest
	$(VENV)/bin/python -m pytest -n auto -q --stream=$(RUN)/stream.jsonl \
		--junitxml=$(RUN)/junit.xml $(ARGS)

test: $(TESTS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests -m 'not vm' -o faulthandler_timeout=600 $(ARGS)

vm:
	./run-in-vm.sh $(VM) -- $(ARGS)

drills: $(TESTS)
	$(VENV)/bin/python -m pytest -q tests -m vm -o faulthandler_timeout=0 $(ARGS)

bench: $(PLOT)
	$(VENV)/bin/python -m bench $(if $(SIZE),--size $(SIZE)) $(ARGS)

bench-selftests: $(READY)
	$(VENV)/bin/python -m bench.selftests $(ARGS)

fuzz: $(READY)
	@mkdir -p $(RUN)
	$(VENV)/bin/python -m pytest -n auto -q -o faulthandler_timeout=0 \
		--stream=$(RUN)/stream.jsonl --fuzz=$(SECONDS) uffd_tests/test_programs.py $(ARGS)

mutants: $(READY)
	$(VENV)/bin/python -m mutants $(ARGS)

reach: $(READY)
	$(VENV)/bin/python -m mutants.reach

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"the suite needs Python 3.11 or later: make PYTHON=python3.NN")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(VENV)/bin/python -m helpers.headers
	@touch $@

$(TESTS): $(READY) tests/requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

$(PLOT): $(READY) bench/requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) build results
