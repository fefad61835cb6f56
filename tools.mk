# Versions of every tool the Makefile installs, pinned in this one place. Each
# lands in .tools/bin with a stamp file named after its version, so a changed
# version reinstalls it and an unchanged one costs nothing.

GOFUMPT_VERSION            := v0.12.0
STATICCHECK_VERSION        := v0.8.2
GOTESTSUM_VERSION          := v1.13.0
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2

TOOLS     := $(CURDIR)/.tools
TOOLS_BIN := $(TOOLS)/bin

GOFUMPT            := $(TOOLS_BIN)/gofumpt
STATICCHECK        := $(TOOLS_BIN)/staticcheck
GOTESTSUM          := $(TOOLS_BIN)/gotestsum
PROTOC_GEN_GO      := $(TOOLS_BIN)/protoc-gen-go
PROTOC_GEN_GO_GRPC := $(TOOLS_BIN)/protoc-gen-go-grpc

# $(call tool,name,module,version) declares how a tool comes into .tools/bin.
# GOFLAGS is replaced because a -mod flag of the caller would refuse the install.
define tool
$(TOOLS_BIN)/$(1): $(TOOLS)/$(1)-$(3).stamp
	@test -x $$@ || { rm -f $$<; $$(MAKE) --no-print-directory $$<; }
	@touch $$@
$(TOOLS)/$(1)-$(3).stamp:
	@mkdir -p $(TOOLS_BIN)
	@echo "install $(1) $(3)"
	@GOFLAGS=-trimpath GOBIN=$(TOOLS_BIN) go install $(2)@$(3)
	@rm -f $(TOOLS)/$(1)-*.stamp
	@touch $$@
endef

$(eval $(call tool,gofumpt,mvdan.cc/gofumpt,$(GOFUMPT_VERSION)))
$(eval $(call tool,staticcheck,honnef.co/go/tools/cmd/staticcheck,$(STATICCHECK_VERSION)))
$(eval $(call tool,gotestsum,gotest.tools/gotestsum,$(GOTESTSUM_VERSION)))
$(eval $(call tool,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,$(PROTOC_GEN_GO_VERSION)))
$(eval $(call tool,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,$(PROTOC_GEN_GO_GRPC_VERSION)))
