# `make demo` and `make test` need Python 3.11 to 3.13 and make, and set up the rest in .venv.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: help demo test test-full lint docs bench bench-peers faults fuzz setup clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

demo:  ## a broker, a replier and a requestor on this machine: twenty packages and a summary
	@$(PYTHON) tools/install.py broker
	@$(RUN) -m tools.demo

WORKERS ?= 3
PYTEST := $(RUN) -m pytest --numprocesses=$(WORKERS) --dist=loadscope --no-loadscope-reorder
test: setup  ## the tests, against real Apache Kafka, in WORKERS processes
	$(PYTEST) -m "not full"

test-full: setup  ## the tests that take long: installations, many kills, trainings on JAX
	$(PYTEST) -m full

lint: setup  ## ruff and strict mypy
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

docs:  ## the documentation as a site with a search box, in site/; a broken link is an error
	@$(PYTHON) tools/install.py docs
	$(RUN) -m sphinx -W --keep-going -q -c docs -d .cache/doctrees . site

bench: setup  ## images a second and CPU time beside bare ONNX Runtime and a Keras loop
	$(RUN) -m bench

bench-peers: setup  ## the same beside FastStream, Quix Streams and MLServer, under load and killed: 20 minutes
	$(RUN) -m bench.peers

faults: setup  ## three brokers, everything killed in turn under load, and a table: up to 40 minutes
	$(RUN) -m tests.faults

FUZZ_SECONDS ?= 600
fuzz:  ## made-up records and replies for the decoders, FUZZ_SECONDS each: Linux only
	@$(PYTHON) tools/install.py fuzz
	$(RUN) -m fuzz decode_request -max_total_time=$(FUZZ_SECONDS)
	$(RUN) -m fuzz decode_reply -max_total_time=$(FUZZ_SECONDS)

setup:  ## everything that training, tests and benchmarks need
	@$(PYTHON) tools/install.py train broker google dev docs

clean:  ## remove what was set up here; the jars stay in the user's cache
	rm -rf .venv .venv-peers .cache/doctrees site
