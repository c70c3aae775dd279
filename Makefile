PYTHON ?= python3
FUNCTION ?= handler
IMAGE ?= $(if $(FUNCTION:handler=),$(notdir $(FUNCTION:/=)),greet):latest
BUILD_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
BENCH := bench
EXAMPLES := examples
FUZZ := tests/.venv
# Without its flags: a make that a test starts is no part of this one
PYTEST := env -u MAKEFLAGS $(BIN)/python -X dev -W error -m pytest
PROGRAMS := $(patsubst %,tests/test_%.py,development faults hooks lifecycle log logging lost_network processes watchdog)
POLLING := $(patsubst %,tests/test_%.py,async connection lifecycle server streams systems)

.PHONY: help run new test test-programs test-module test-slow test-poll coverage lint format check fuzz fuzz-requests fuzz-results fuzz-multipart fuzz-hypothesis fuzz-coverage soak build image-test examples-test bench bench-tools workflows dist bump deploy clean

help: ## Show the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Start the example function and say how to call it
	@exec $(PYTHON) -m watchdog_app

new: $(if $(NAME),$(VENV)/installed) ## Make a function with a first test in the folder NAME=
	@test -n "$(NAME)" || { echo "make new takes the name of a new folder: make new NAME=greeting" >&2; exit 1; }
	@mkdir -- "$(NAME)"
	@cp handler/handler.py handler/requirements.txt docs/handler_test.py "$(NAME)"
	@echo "$(NAME)/handler.py is your function. Test it: $(BIN)/python -m pytest $(NAME)"
	@echo "Run it: $(PYTHON) -m watchdog_app $(NAME) --reload"
	@echo "Make its image: make build FUNCTION=$(NAME)"

test: ## Run the tests, but for the slow ones: those that start programs, which wait most of the time, beside the others
	@$(MAKE) --no-print-directory -j 2 -O test-programs test-module

test-programs: $(VENV)/installed
	$(PYTEST) -m "not slow" $(PROGRAMS)

test-module: $(VENV)/installed
	$(PYTEST) -m "not slow" $(PROGRAMS:%=--ignore=%)

test-slow: $(VENV)/installed ## Run the slow tests: packages, fuzzing, growth of time, stops and kills by the dozen
	$(PYTEST) -m slow

test-poll: $(VENV)/installed ## Run the tests of the server as on macOS, which has no epoll: tests/systems takes it away
	SIMULATED=macos PYTHONPATH=tests/systems $(PYTEST) -m "not slow and not linux" $(POLLING)

coverage: $(VENV)/installed ## Run the tests, and fail if they leave a branch out
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: $(VENV)/installed ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test-poll test-slow test ## Do all that the gate does

fuzz: $(VENV)/installed ## Fuzz the server until stopped, or for SECONDS=60
	@$(MAKE) --no-print-directory -j 4 fuzz-requests fuzz-results fuzz-multipart fuzz-hypothesis

fuzz-requests fuzz-results fuzz-multipart:
	$(BIN)/python -X dev -W error tests/$(subst -,_,$@).py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz-hypothesis: $(FUZZ)/installed
	$(FUZZ)/bin/python -X dev -W error tests/$(subst -,_,$@).py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz-coverage: $(FUZZ)/installed ## Fuzz the parser of requests by the branches that it takes, with atheris
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check "atheris>=3,<4"
	$(FUZZ)/bin/python tests/fuzz_coverage.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

soak: $(VENV)/installed ## Load the server for MINUTES=20, and see that it stays as it was
	$(BIN)/python -X dev -W error tests/soak.py --minutes $(or $(MINUTES),20)

build: ## Build the image of the function in handler/, or in the folder FUNCTION=
	@test -f "$(FUNCTION)/handler.py" || { echo "make build takes a folder with a handler.py: make build FUNCTION=greeting" >&2; exit 1; }
	@context=$$(mktemp -d) && trap 'rm -rf "$$context"' EXIT && \
		cp -R .dockerignore Dockerfile watchdog_app.py image "$$context" && cp -R "$(FUNCTION)" "$$context/handler" && \
		DOCKER_BUILDKIT=1 docker build $(BUILD_FLAGS) -t $(IMAGE) "$$context"

image-test: $(VENV)/installed ## Build the image, run it, and test it
	$(BIN)/python -m pytest image

examples-test: $(EXAMPLES)/.venv/installed ## Test the examples, and web frameworks, with the packages that they need
	$(EXAMPLES)/.venv/bin/python -X dev -W error -m pytest tests/test_examples_folder.py tests/test_flask_adapter.py tests/test_frameworks.py tests/test_models.py tests/test_moving.py tests/test_patching.py tests/test_wrap.py

bench: bench-tools $(BENCH)/.venv/installed ## Compare with other servers; QUICK=1: within two minutes, once they are installed
	$(BENCH)/.venv/bin/python $(BENCH)/compare.py $(if $(QUICK),--quick) $(FLAGS)

bench-tools:
	@command -v wrk >/dev/null || { echo "make bench needs wrk, which makes the load: install it, for example by apt-get install wrk" >&2; exit 1; }

workflows: ## Check the workflows, with Go
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

dist: $(VENV)/installed ## Build the package: an sdist, and a wheel made of it
	rm -rf dist
	$(BIN)/python -m build --no-isolation

bump: ## Take another of-watchdog for the tests, with gh: WATCHDOG=0.11.9
	@test -n "$(WATCHDOG)" || { echo "make bump takes a version of of-watchdog: make bump WATCHDOG=0.11.9" >&2; exit 1; }
	.ci/watchdog bump "$(WATCHDOG)"

deploy: ## Build, push and deploy with faas-cli, as stack.yaml says: OPENFAAS_PREFIX=docker.io/you
	@test -n "$(OPENFAAS_PREFIX)" || { echo "make deploy takes the registry that the image is pushed to: make deploy OPENFAAS_PREFIX=docker.io/you" >&2; exit 1; }
	DOCKER_BUILDKIT=1 OPENFAAS_PREFIX="$(OPENFAAS_PREFIX)" faas-cli up -f stack.yaml

clean: ## Remove what the other commands made
	rm -rf $(VENV) $(EXAMPLES)/.venv $(BENCH)/.venv $(BENCH)/last $(FUZZ) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* build dist *.egg-info
	find . -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/installed: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(EXAMPLES)/.venv/installed: $(wildcard $(EXAMPLES)/*/requirements.txt) tests/requirements-frameworks.txt tests/requirements-models.txt tests/requirements-patching.txt requirements-dev.txt
	$(PYTHON) -m venv $(EXAMPLES)/.venv
	$(EXAMPLES)/.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^pytest requirements-dev.txt)" \
		$(patsubst %,-r %,$(wildcard $(EXAMPLES)/*/requirements.txt) tests/requirements-frameworks.txt tests/requirements-models.txt tests/requirements-patching.txt)
	@touch $@

$(FUZZ)/installed: tests/requirements-fuzz.txt requirements-dev.txt
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^pytest requirements-dev.txt)" -r $<
	@touch $@

$(BENCH)/.venv/installed: $(BENCH)/requirements.txt
	@echo "Installing the other servers into $(BENCH)/.venv, once"
	$(PYTHON) -m venv $(BENCH)/.venv
	$(BENCH)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@$(BENCH)/.venv/bin/python -m pip install --quiet --disable-pip-version-check bjoern || \
		echo "bjoern is left out: it is built from source, and that needs a C compiler and libev-dev"
	@touch $@
