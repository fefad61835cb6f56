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
TEST_TIMEOUT ?= 40m
TEST_PROCS   ?= 3
TEST_WIDTH   ?= 4
E2E_WIDTH    ?= 6
TEST_FLAGS   ?=
FUZZTIME     ?= 20s
BUILD_GOGC   ?= 400
SWAPS        ?= 200

# BUILD_GOGC is the GOGC of the compiler and its tools: with less garbage collection they take a
# fifth less CPU time. The tests themselves run with the usual one. -trimpath is for all parts
# of make test, since it is for the build: else everything would be compiled once more. For the
# same reason vet and staticcheck read the packages as the tests compile them, with -race.

# They begin first: nothing is left to run beside them at the end.
LONGEST = ./host/internal/store ./host/internal/core

# Parts with a target of their own, and without the race detector: gotest leaves them out.
APART = /e2e$$|/archtest$$

GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Use
.PHONY: build
build: ## Build bin/tasker and bin/plugins/*
	@deploy/prepare.sh go
	@mkdir -p bin/plugins
	umask 022 && go build -trimpath -o bin/tasker ./host
	umask 022 && go build -trimpath -o bin/plugins/ ./plugins/handlers/...
	@umask 022 && for dir in plugins/scaling/*/ plugins/health/*/; do \
	  test -f "$$dir/main.go" || continue; \
	  kind=$$(basename "$$(dirname "$$dir")"); \
	  go build -trimpath -o "bin/plugins/$$kind-$$(basename "$$dir")" "./$$dir"; \
	done
	umask 022 && go build -trimpath -ldflags '-X main.version=1.1.0' -o bin/plugins/next/arithmetic ./plugins/handlers/arithmetic

.PHONY: demo
demo: build ## Run the five example workflows on a private PostgreSQL, and swap a plugin under load
	@deploy/prepare.sh postgres
	@bin/tasker demo

.PHONY: bench
bench: build ## Measure what the table of goals needs, and print it: a quarter of an hour
	@deploy/prepare.sh postgres
	@bin/tasker bench goals

.PHONY: bench-peers
bench-peers: build ## River and DBOS beside ours on one server; the table goes to docs/benchmarks.md: six minutes
	@deploy/prepare.sh postgres
	cd bench && go build -o ../bin/bench-peers .
	@cd bench && ../bin/bench-peers -docs ../docs/benchmarks.md

.PHONY: prereqs
prereqs: ## Install what building and testing need (Debian, Ubuntu)
	@deploy/prepare.sh all

##@ Check
.PHONY: test
test: ## Everything that must hold: format, vet, lint, build, models, generated code, all tests
	@deploy/prepare.sh all
	@GOFLAGS="$(GOFLAGS) -trimpath '-toolexec=env GOGC=$(BUILD_GOGC)'" deploy/run-parts.sh "$(MAKE)" fmt-check tidy-check build vet lint verify models gotest e2e

.PHONY: gotest
gotest: $(GOTESTSUM) ## Go tests with the race detector, but for the end-to-end tests (PKG=./... RUN=regexp)
	@deploy/gotest.sh $(GOTESTSUM) "$(if $(filter ./...,$(PKG)),$(LONGEST) $$(go list ./... | grep -vE '$(APART)'),$(PKG))" -race -vet=off -ldflags=-w \
	  -p $(TEST_PROCS) -parallel $(TEST_WIDTH) -timeout $(TEST_TIMEOUT) $(if $(RUN),-run '$(RUN)') $(TEST_FLAGS)
	$(if $(filter ./...,$(PKG)),cd bench && go test -vet=off -ldflags=-w $(if $(RUN),-run '$(RUN)') ./...)

.PHONY: e2e
e2e: $(GOTESTSUM) ## End-to-end tests of the programs as they ship (RUN=regexp)
	@deploy/gotest.sh $(GOTESTSUM) ./host/internal/e2e -vet=off -ldflags=-w \
	  -parallel $(E2E_WIDTH) -timeout $(TEST_TIMEOUT) $(if $(RUN),-run '$(RUN)') $(TEST_FLAGS)

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
	go vet -race ./...
	cd bench && go vet ./...

.PHONY: lint
lint: $(STATICCHECK) ## staticcheck (rules in staticcheck.conf), and the rules of the architecture
	GOFLAGS="$(GOFLAGS) -race" $(STATICCHECK) ./...
	go test -vet=off ./host/internal/archtest
	cd bench && $(STATICCHECK) ./...

.PHONY: tidy-check
tidy-check: ## Fail if go.mod or go.sum are not tidy
	go mod tidy -diff
	cd bench && go mod tidy -diff

.PHONY: verify
verify: ## Regenerate committed code in a scratch directory and fail on a difference
	@deploy/gen.sh --check

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s) each, and 10,000 generated requests
	@deploy/fuzz.sh $(FUZZTIME)

.PHONY: storm
storm: ## Swap a plugin SWAPS (200) times while 64 tasks are open; takes minutes
	@deploy/prepare.sh go postgres gcc
	TASKER_STORM_SWAPS=$(SWAPS) go test -race -timeout 1h -count=1 -v -run '^TestSwapStorm$$' ./host/internal/core

.PHONY: soak
soak: ## What takes hours: thousands of swaps, kills by the dozen, two million rows removed; end-to-end tests with -race
	@deploy/prepare.sh go postgres gcc
	go test -tags soak -timeout 6h -count=1 -v -run 'TestSwapStorm|TestRetentionUnderLoad|TestChaos' ./host/internal/core ./host/internal/store ./host/internal/e2e
	go test -race -tags soak -timeout 6h -count=1 -v ./host/internal/e2e

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
