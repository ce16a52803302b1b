# `make` lists the targets. Every one works from a clean clone on a machine that has Go.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules
.DELETE_ON_ERROR:

# Debian keeps nft where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin

# Without the path of the checkout in them, what was compiled for one checkout serves any other.
export GOFLAGS := $(GOFLAGS) -trimpath

BIN     := $(CURDIR)/bin
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# How long `make fuzz` searches, per fuzz target.
FUZZTIME ?= 5s
# What `make test` tests, and further flags for it: make test PKG=./internal/compile TESTFLAGS=-run=Decide
PKG       ?= ./...
TESTFLAGS ?=
# The tests below test/kube run a Kubernetes control plane and nodes, whose programs are built once, which takes minutes.
KUBE_BINARIES := $(if $(filter ./... ./test/... ./test/kube%,$(PKG)),hack/kube-binaries --nodes,true)
# What nodes run beside those programs, and what is in an image that their pods have.
NODE_DEPS := containerd runc bash busybox conntrack curl dig getent iperf ip nc socat ss wget
# Further flags for `make bench`, such as -quick.
BENCHFLAGS ?=

# The version is part of the file's name, so that a new version is a new file.
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT         := $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION)
HELM_VERSION          := v4.3.1
HELM                  := $(BIN)/helm-$(HELM_VERSION)
GOVULNCHECK_VERSION   := v1.9.0
GOVULNCHECK           := $(BIN)/govulncheck-$(GOVULNCHECK_VERSION)
GREMLINS_VERSION      := v0.6.0
GREMLINS              := $(BIN)/gremlins-$(GREMLINS_VERSION)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

# How what users get is built: statically, and with the same bytes wherever that is done. What is generated for the kinds
# of Kubernetes is there because the linker cannot tell that nobody calls it; where nothing is inlined in it, it is half a
# megabyte smaller. gRPC's tracing (of which gobgp has the server) would keep the linker from leaving out what nobody calls,
# by its templates: 15 MB.
GO_BUILD = CGO_ENABLED=0 go build -buildvcs=false -tags grpcnotrace \
	-gcflags 'k8s.io/api/...=-l' -gcflags 'k8s.io/client-go/...=-l' -gcflags 'k8s.io/apiextensions-apiserver/pkg/apis/...=-l' \
	-gcflags 'k8s.io/apimachinery/pkg/apis/...=-l' \
	-ldflags "-s -w -X github.com/sallyport/sallyport/internal/cli.version=$(VERSION) -X main.release=$(VERSION)"

.PHONY: build
build: ## Build bin/sallyport and the CNI plugin bin/sallyport-cni, static binaries
	$(GO_BUILD) -o $(BIN)/ ./cmd/sallyport ./cmd/sallyport-cni

# Of the commit that is built. Where there is no git, say them, or at least the time.
REVISION          ?= $(shell git rev-parse HEAD 2>/dev/null)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
IMAGE_ARCHS       := amd64 arm64

.PHONY: image
image: ## Build the container image for amd64 and arm64, into bin/image and bin/sallyport-image-*
	for arch in $(IMAGE_ARCHS); do GOOS=linux GOARCH=$$arch $(GO_BUILD) -o $(BIN)/linux-$$arch/ ./cmd/sallyport ./cmd/sallyport-cni; done
	@go run -C internal/tools/image . build -out $(BIN)/image -archives $(BIN)/sallyport-image- \
		-version '$(VERSION)' -revision '$(REVISION)' -created '$(SOURCE_DATE_EPOCH)' \
		$(IMAGE_ARCHS:%=$(BIN)/linux-%/sallyport)

.PHONY: image-test
image-test: image ## Look into the image, build it again elsewhere and compare, and push it to a registry in the test
	SALLYPORT_BIN=$(BIN) go test -C internal/tools/image -count=1 ./...

.PHONY: image-push
image-push: ## Push bin/image to IMAGE=registry/name:tag
	@go run -C internal/tools/image . push -layout $(BIN)/image '$(IMAGE)'

.PHONY: demo
demo: build ## Show two nodes whose pods reach each other, and what leaves them translated, in network namespaces
	@$(BIN)/sallyport demo

.PHONY: test
test: $(HELM) ## Run every test under the race detector; list what was skipped
	@hack/install-deps gcc bgpd bird gobgpd nft iptables ipset systemd-analyze host-local $(NODE_DEPS)
	@go build -buildvcs=false -o $(BIN)/testreport ./internal/tools/testreport
	@# None is skipped for having passed before (-count=1): they look at the kernel, of which Go's cache does not know.
	@# Those with control planes come by themselves: others look at packets, and suffer from so many processes. That with routers, which
	@# does both, comes last.
	@dir=$$($(KUBE_BINARIES)) && packages=$$(go list $(PKG)) && export KUBEBUILDER_ASSETS=$$dir HELM=$(HELM) CGO_ENABLED=1 && \
	for group in "$$(grep -v /test/kube <<<"$$packages" || true)" "$$(grep /test/kube <<<"$$packages" | grep -v /bgp || true)" "$$(grep /test/kube/bgp <<<"$$packages" || true)"; do \
		[[ -z $$group ]] || go test -race -count=1 -timeout=40m -json $(TESTFLAGS) $$group; \
	done | $(BIN)/testreport

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (5s)
	@hack/fuzz $(FUZZTIME)

# How long `make walk` goes on.
WALKTIME ?= 5m

.PHONY: walk
walk: ## Do things at random to an agent for WALKTIME (5m), with faults, and check the invariants
	@hack/install-deps gcc nft
	SALLYPORT_E2E_WALK=$(WALKTIME) CGO_ENABLED=1 go test -race -count=1 -timeout=0 -run='^TestWalk$$' -v ./test/e2e

# How many seconds `make mutate` goes on.
MUTATETIME ?= 1800

# Which of Kubernetes' own tests of networks run, as a regular expression of their names.
CONFORMANCE ?= .

.PHONY: conformance
conformance: $(HELM) ## Run Kubernetes' own tests of networks, those that CONFORMANCE (.) matches, on real nodes
	@hack/install-deps nft iptables host-local $(NODE_DEPS)
	dir=$$(hack/kube-binaries --nodes) && export KUBEBUILDER_ASSETS=$$dir HELM=$(HELM) SALLYPORT_CONFORMANCE='$(CONFORMANCE)' && \
	go test -count=1 -timeout=60m -run='^TestNetwork$$/^conformance$$' -v ./test/kube/nodes

.PHONY: mutate
mutate: $(GREMLINS) ## List changes to the code that no test notices, for MUTATETIME seconds (1800)
	@hack/install-deps gcc bird nft ipset
	@hack/mutate $(GREMLINS) $(MUTATETIME)

.PHONY: vulncheck
vulncheck: $(GOVULNCHECK) ## Look for known vulnerabilities; say so where their database cannot be reached
	@hack/vulncheck $(GOVULNCHECK)

.PHONY: nightly
nightly: ## Run what takes too long for every change: jumps of the clock, an API server away for a minute, long walks, Kubernetes' own tests, fuzzing and mutation
	@hack/install-deps nft
	hack/clock-test
	SALLYPORT_API_AWAY=60s $(MAKE) test PKG=./test/kube TESTFLAGS=-run=TestDisturbances
	$(MAKE) walk WALKTIME=20m
	SALLYPORT_E2E_STORM=1m SALLYPORT_E2E_PODS=1000 $(MAKE) test PKG=./test/e2e TESTFLAGS=-run=TestCNI
	SALLYPORT_E2E_BGP=1 $(MAKE) test PKG=./test/kube/bgp
	$(MAKE) conformance
	$(MAKE) fuzz FUZZTIME=60s
	$(MAKE) mutate

.PHONY: bench
bench: build ## Measure what forwarding, changes and the agent cost, into bin/bench.json
	@hack/install-deps bird nft iptables ipset
	go build -C test/bench/reference -o $(BIN)/reference/ tool
	dir=$$(hack/kube-binaries) && KUBEBUILDER_ASSETS=$$dir go run ./test/bench $(BENCHFLAGS)

# Modules of their own, which ./... does not reach.
MODULES := internal/tools/image

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run go vet and golangci-lint
	go vet ./...
	$(GOLANGCI_LINT) run
	for module in $(MODULES); do go vet -C $$module ./...; (cd $$module; $(GOLANGCI_LINT) run); done

.PHONY: generate
generate: ## Write what is generated from the API types: CRDs and deep copies
	go generate ./...

.PHONY: manifests
manifests: $(HELM) ## Write what is generated from the CRDs and the Helm chart: deploy/kubernetes
	hack/manifests $(HELM)

.PHONY: docs
docs: ## Write what is generated in docs/reference
	go run ./internal/tools/apidoc -crds api/crds -out docs/reference/api.md
	go run ./internal/tools/clidoc -out docs/reference/cli.md

.PHONY: install
install: ## Install bin/sallyport and the systemd unit below PREFIX (/usr/local)
	@test -x $(BIN)/sallyport || { echo "bin/sallyport is missing: run make build first" >&2; exit 1; }
	install -D -m 0755 $(BIN)/sallyport $(DESTDIR)$(PREFIX)/bin/sallyport
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' deploy/systemd/sallyport.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/sallyport.service

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN)

.PHONY: ci
ci: ## Run everything that must pass before a change is merged
	@.ci/run

$(GOLANGCI_LINT):
	@hack/install-tool $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(GOVULNCHECK):
	@hack/install-tool $@ golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

$(GREMLINS):
	@hack/install-tool $@ github.com/go-gremlins/gremlins/cmd/gremlins@$(GREMLINS_VERSION)

$(HELM):
	@hack/install-tool $@ helm.sh/helm/v4/cmd/helm@$(HELM_VERSION)
