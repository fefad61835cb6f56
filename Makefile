# Tasker Host: everything that is built, checked and shown goes through here.
# Plain `make` prints help. Tool versions live in tools.mk.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

include tools.mk

# Knobs, overridable on the command line: make gotest PKG=./host/internal/store RUN=Claim
PKG          ?= ./...
RUN          ?=
TEST_TIMEOUT ?= 12m
TEST_PROCS   ?= 2
TEST_FLAGS   ?=
FUZZTIME     ?= 20s
BENCH_TASKS  ?= 20000

GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Use
.PHONY: build
build: ## Build bin/tasker and bin/plugins/*
	@deploy/prepare.sh go
	@mkdir -p bin/plugins
	umask 022 && go build -trimpath -o bin/tasker ./host
	umask 022 && go build -trimpath -o bin/plugins/ ./plugins/handlers/...

.PHONY: demo
demo: build ## Run the five example workflows on a private PostgreSQL
	@deploy/prepare.sh postgres
	@bin/tasker demo

.PHONY: bench
bench: build ## Measure linear tasks through a plugin process (BENCH_TASKS=20000)
	@deploy/prepare.sh postgres
	@bin/tasker bench linear --tasks $(BENCH_TASKS) --json

.PHONY: prereqs
prereqs: ## Install what building and testing need (Debian, Ubuntu)
	@deploy/prepare.sh all

##@ Check
.PHONY: test
test: ## Everything that must hold: format, vet, lint, build, models, generated code, all tests with -race
	@deploy/prepare.sh all
	@deploy/run-parts.sh "$(MAKE)" fmt-check tidy-check build vet lint verify models gotest

.PHONY: gotest
gotest: ## Go tests with the race detector (PKG=./... RUN=regexp)
	go test -race -p $(TEST_PROCS) -timeout $(TEST_TIMEOUT) $(if $(RUN),-run '$(RUN)') $(TEST_FLAGS) $(PKG)

.PHONY: models
models: ## Model-check the protocols; the broken variants must fail
	@deploy/prepare.sh gcc spin
	@models/check.sh

.PHONY: fmt-check
fmt-check: $(GOFUMPT) ## Fail if a file is not formatted
	@bad=$$($(GOFUMPT) -l $(GO_FILES)); \
	  test -z "$$bad" || { echo "not formatted, run 'make fmt':"; echo "$$bad"; exit 1; }

.PHONY: vet
vet: ## go vet
	go vet ./...

.PHONY: lint
lint: $(STATICCHECK) ## staticcheck, rules in staticcheck.conf
	$(STATICCHECK) ./...

.PHONY: tidy-check
tidy-check: ## Fail if go.mod or go.sum are not tidy
	go mod tidy -diff

.PHONY: verify
verify: ## Regenerate committed code in a scratch directory and fail on a difference
	@deploy/gen.sh --check

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s) each
	@deploy/fuzz.sh $(FUZZTIME)

##@ Change
.PHONY: fmt
fmt: $(GOFUMPT) ## Format all Go files
	$(GOFUMPT) -w $(GO_FILES)

.PHONY: gen
gen: $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## Regenerate the code made from the .proto files
	@deploy/gen.sh

.PHONY: clean
clean: ## Remove what was built (not the private database)
	rm -rf bin dist coverage.out

# The scripts call pinned generators; they are built first.
verify: $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC)
