# `make demo` and `make test` need nothing before them: they install what is missing.
VENV := .venv
PY := $(VENV)/bin/python
# A plain `torch` would bring several GB of CUDA; give TORCH=… to choose another build.
TORCH ?= torch==2.13.0
SOURCES := orchestrator remote jobs benchmarks tests scripts

.PHONY: help demo test check fix bench campaign faults docs clean
help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

demo: $(VENV)/ready   ## the whole story on this machine: rent, train, kill the box, resume, pull, tear down
	$(PY) jobs/demo/story.py

test: $(VENV)/ready check   ## everything that CI runs
	$(PY) -m pytest -n 2 --dist worksteal -m "not (e2e or rented or long)" --durations=25 tests
	$(PY) -m pytest -n 4 --dist worksteal -m "(e2e or rented) and not long" --durations=25 tests   # these wait more than they work

faults: $(VENV)/ready   ## every fault of every emulated cloud through a whole run, and whatever else is long: more than an hour
	$(PY) -m pytest -n 4 --dist worksteal -m "rented or long" tests

check: $(VENV)/ready   ## ruff, mypy strict, import rules
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/test_architecture.py
	$(PY) scripts/write_cli_docs.py --check

fix: $(VENV)/ready   ## format, and mend what ruff can
	$(VENV)/bin/ruff format $(SOURCES)
	$(VENV)/bin/ruff check --fix $(SOURCES)

bench: $(VENV)/ready   ## measurements, side by side
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/planning.py
	$(PY) benchmarks/transfer.py --link loopback --tree lora -n 3 --saves 3   # without options: all of docs/benchmarks.md, an hour and a half

# NAME is one of tests/sim/campaign.py: make campaign NAME=ambiguous-creates SEEDS=200
SEEDS ?= 200
campaign: $(VENV)/ready   ## a long seeded campaign; writes campaigns/NAME.json
	PYTHONPATH=.:tests $(PY) -m sim.campaign $(NAME) --seeds $(SEEDS)

docs: $(VENV)/ready   ## write docs/cli.md from the command line itself
	$(PY) scripts/write_cli_docs.py

clean:           ## remove what was installed and made here
	rm -rf $(VENV) .demo build *.egg-info

$(VENV)/ready: pyproject.toml scripts/install.sh
	TORCH="$(TORCH)" VENV="$(VENV)" scripts/install.sh
	@touch $@
