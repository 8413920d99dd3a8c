# Everything that is done with this tree. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LINTERS := $(VENV)/.linters
PROTOS := $(sort $(wildcard proto/devicehost/v1/*.proto))
SERVICES := $(filter %_service.proto,$(PROTOS))
PROTO_OUT ?= proto

.PHONY: help demo test test-qemu lint format proto bench bench-qemu fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(INSTALLED) ## run a guest whose devices live in another process
	$(BIN)/python -m devicehost_client.demo

test: $(INSTALLED) $(LINTERS) ## run all tests
	$(BIN)/pytest $(TESTS)

test-qemu: $(INSTALLED) ## run those with Linux in QEMU, which are taken from Debian first
	PYTHONPATH=tests $(BIN)/python -m qemulab.environment
	$(BIN)/pytest $(or $(TESTS),tests/qemu)

lint: $(LINTERS) ## check style, types, the API's definition and that generated code is fresh
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	rm -rf build/proto && mkdir -p build/proto
	$(MAKE) --no-print-directory proto PROTO_OUT=build/proto
	for file in $$(cd build/proto && find . -type f); do cmp build/proto/$$file proto/$$file; done

format: $(LINTERS) ## put the code into the form that lint wants
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write proto

proto: $(LINTERS) ## generate code from the API's definition
	PATH=$(BIN):$$PATH python -m grpc_tools.protoc -Iproto \
	    --python_out=$(PROTO_OUT) --mypy_out=quiet:$(PROTO_OUT) $(PROTOS)
	PATH=$(BIN):$$PATH python -m grpc_tools.protoc -Iproto \
	    --grpc_python_out=$(PROTO_OUT) --mypy_grpc_out=quiet:$(PROTO_OUT) $(SERVICES)

bench: $(INSTALLED) ## measure, print a table, write build/bench.json and the picture (QUICK=1: neither all nor the picture)
	$(BIN)/python tests/bench $(if $(QUICK),--quick)

bench-qemu: $(INSTALLED) ## compare disks in a guest of QEMU, print a table, write build/bench-virtio.json (QUICK=1: a short look)
	PYTHONPATH=tests $(BIN)/python -m qemulab.compare $(if $(QUICK),--quick)

fuzz: $(INSTALLED) ## fuzz, guided by coverage (FUZZ=target, FUZZ_SECONDS=300 for each)
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),300) $(FUZZ)

clean: ## remove all that was made here
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# Debian has venv in a package of its own.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "needs Python 3.11 or newer; set PYTHON to one"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	    || { [ $$(id -u) = 0 ] && apt-get update -q && apt-get install -q -y python3-venv; } \
	    || { echo "needs venv: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

$(INSTALLED): pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[server,debug,unicorn]' --group test --group fuzz
	touch $@

$(LINTERS): $(INSTALLED)
	$(BIN)/pip install --quiet --group lint
	touch $@
