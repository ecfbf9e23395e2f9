# Headrace's verbs. Every one first sees to it that .venv is there and up to date, with what it needs.
#
#   make setup    .venv with Headrace (editable), all extras and the developers' tools
#   make demo     New York's flights of 2013 as a stream: features, a model with and without them, a figure
#   make test     the whole test suite, documentation included; fetches and starts the servers it needs
#   make spark    Spark for the tests, 450 MB
#   make servers  Kafka's jars (with Maven) and redis-server (from Debian) for the tests
#   make kernels  compiles what counts events, and the modules, for `make test`
#   make check    format, lint, types and the dependency rule
#   make bench    every benchmark, one JSON line per case; one of them: make bench ONLY=operator
#   make bench-peers   what the benchmarks compare with, each in an environment of its own below .peers/
#   make up       a live flow in containers: Kafka, Redis, two workers, a city's rides, Grafana (docker-compose.yml)
#   make down     stops it; what it has written stays
#   make format   rewrites the code in its format and fixes what the linter can

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    ?= .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.headrace-installed
DEMO    := $(VENV)/.headrace-demo-installed
SPARK   := $(VENV)/.headrace-spark-installed
# Processes of `make test`: one more than most cores, as many tests wait for servers. Five were slower on two cores.
WORKERS ?= 3

# A benchmark is a file benchmarks/NAME.py; the names are those of the design.
BENCHES := operator flow freshness lookup server materialize backfill training stateful checkpoint growth scaleout
ONLY    ?= $(foreach name,$(BENCHES),$(if $(wildcard benchmarks/$(name).py),$(name)))

export TZ := UTC

.PHONY: setup spark demo servers kernels test check bench bench-peers up down format

setup: $(STAMP)

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Headrace needs Python 3.11 or newer, got {sys.version.split()[0]} from $(PYTHON): make setup PYTHON=/path/to/python3.12")'
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python -e '.[$(EXTRAS)]'; \
else $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'; fi
@touch $@
endef

$(STAMP): EXTRAS := all,dev
$(STAMP): pyproject.toml
	$(install)

# Spark is large, and only tests and benchmarks need it. It is installed by itself, as others may be at work in .venv.
spark: $(SPARK)

$(SPARK): $(STAMP)
	@wanted=$$($(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*(each for each in extras["spark"] if not each.startswith("headrace")))') && \
	if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python "$$wanted"; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$wanted"; fi
	@touch $@

# Who wants to see the demo first gets its packages alone; where all are there, they serve.
$(DEMO): EXTRAS := demo
$(DEMO): pyproject.toml
	$(install)

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO))
	@$(BIN)/headrace demo

servers:
	@$(PYTHON) tests/servers/install.py

# Compiled once, and then read by every process of the tests. The modules too: where PYTHONDONTWRITEBYTECODE is set, as in
# many containers, each process would compile all that it imports, 0.3 s of a worker's start.
kernels: setup
	$(BIN)/python -m compileall -q src features flows materialize serving stores tests
	$(BIN)/python -m headrace.flows.warm

test: setup servers kernels spark
	$(BIN)/python -m pytest -q -ra -n $(WORKERS) --dist worksteal --durations=10

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup servers spark
	@set -e; for name in $(ONLY); do $(BIN)/python -m benchmarks.$$name; done

# Each peer has pins of its own, which need not agree with ours. A benchmark leaves out what is not installed.
bench-peers: $(patsubst benchmarks/peers/%.txt,.peers/%/.installed,$(wildcard benchmarks/peers/*.txt)) .peers/flink/.installed
	@command -v wrk >/dev/null || (apt-get update -qq && apt-get install -qq -y --no-install-recommends wrk) >/dev/null 2>&1 \
	|| echo 'bench-peers: wrk is not here and cannot be installed; benchmarks of requests/s are left out (apt-get install wrk)' >&2

.peers/%/.installed: benchmarks/peers/%.txt
	@$(PYTHON) -m venv .peers/$*
	@.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.peers/flink/.installed: benchmarks/peers/flink/pom.xml
	@if command -v mvn >/dev/null; then \
	mvn -q -B -f $< -DoutputDirectory=$(CURDIR)/.peers/flink/jars dependency:copy-dependencies && touch $@; \
	else echo 'bench-peers: mvn is not here, so Flink is left out (apt-get install maven default-jdk-headless)' >&2; fi

up:
	docker compose up --build --detach --wait
	@echo "Grafana http://localhost:3000   metrics http://localhost:9400/metrics   Kafka localhost:9092   Redis localhost:6379"

down:
	docker compose down
