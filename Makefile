# Everything a newcomer types. Each target does its own set-up and may be repeated.

PYTHON ?= python3
SETUP := $(PYTHON) -B provision/host
BIN := .venv/bin
WORKERS ?= auto
# For folders that Python runs as a whole: their modules import one another by bare names.
MYPY_FOLDER := MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml \
	--explicit-package-bases --exclude __init__ --cache-dir ../../.mypy_cache
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-vagrant check vm box matrix book recordings bench prove
.PHONY: hard course grade hub clean tools quick quick-tests lint

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

setup: ## install what is missing: system packages, .venv, the guest if needed
	@$(SETUP) setup

lab: ## set up, then open JupyterLab on the notebooks
	@$(SETUP) lab

test: ## set up, then run every test
	@$(SETUP) test
	@$(BIN)/python -m pytest -n $(WORKERS) --durations=10

test-vagrant: ## vagrant up for real, under emulation, and what works in it (40 minutes)
	@$(SETUP) test-vagrant
	@$(BIN)/python -m pytest -s tests/vagrant/up_and_down.py

tools:
	@$(SETUP) tools

quick: ## lint, types, unit tests and two chapters on replay: for every save
	@$(MAKE) --no-print-directory -j2 --output-sync lint quick-tests

quick-tests: tools
	@$(BIN)/python -m pytest -q tests/unit "tests/notebooks/test_replay.py" \
		-k "not test_replay or (runs_from_top_to_bottom and (01 or 09))"

check: lint ## style, types, notebooks without outputs, who imports whom
	$(BIN)/python -m pytest -q tests/unit/test_layout.py

lint: tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd provision/host && $(MYPY_FOLDER)/host .
	cd benchmarks && MYPYPATH=.:.. ../$(BIN)/mypy --config-file ../pyproject.toml \
		--explicit-package-bases --cache-dir ../.mypy_cache/benchmarks .
ifneq ($(NOTEBOOKS),)
	$(BIN)/nbstripout --verify $(NOTEBOOKS)
endif

vm: ## build the guest that is traced where this kernel cannot be
	@$(SETUP) vm

box: ## build a Vagrant box for libvirt, from the guest's recipe
	@$(SETUP) box
	@$(BIN)/ebpflab vm box build/ebpflab.box

matrix: ## run all probes and chapters on each kernel, and write docs/compatibility.md
	@$(SETUP) test
	@$(BIN)/python tests/matrix/run_matrix.py

book: ## run every chapter, and make a site of them in build/book
	@$(SETUP) book
	@$(BIN)/sphinx-build -W --keep-going -c book . build/book
	@echo "The book: build/book/index.html"

recordings: ## renew the recordings of chapters that have changed
	@$(SETUP) vm
	@$(SETUP) tools
	@$(BIN)/ebpflab record

bench: ## compare with BCC's own loops and bpftrace; writes docs/benchmarks.md
	@$(SETUP) bench
	@$(BIN)/python benchmarks

prove: ## account for 50,000,000 numbered records; takes some minutes
	@$(SETUP) test
	@EBPFLAB_PROVE_RECORDS=50000000 $(BIN)/python -m pytest -s tests/contract/test_never_lost.py \
		-k local

hard: ## faults, fuzzing and a soak for an hour or more; writes docs/hard-life.md
	@$(SETUP) test
	@$(BIN)/python -m pip install -q -c constraints.txt atheris
	@$(BIN)/python tests/hard

course: ## the assignments as students get them, in course/release
	@$(SETUP) course
	@$(BIN)/python classroom/course/grade.py --release

grade: ## grade what is in course/submitted, each submission in a sandbox and a VM of its own
	@$(SETUP) course
	@$(BIN)/python classroom/course/grade.py

hub: ## a JupyterHub on loopback: each student a user, each student's labs in a VM
	@$(SETUP) hub
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyterhub -f classroom/hub/jupyterhub_config.py

clean: ## remove .venv and every cache in this folder (not the guest: `ebpflab vm rm`)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
