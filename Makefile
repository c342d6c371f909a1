# The project's commands. Each brings what it needs by itself (scripts/setup.sh), quietly, and only what is missing.
# Everything is built with the release profile, so nothing is built twice.

.DEFAULT_GOAL := help
.PHONY: help build demo s3 test bench deploy release reproduce fuzz lint audit install clean

# How long `make fuzz` runs each target.
SECONDS ?= 60
# What `make bench` is told: --size 512M, --rounds 9, --growth-max 1G, --json FILE, --only seal, s3, attest, broker or enclave.
ARGS ?=

help: ## this list
	@echo "mvault: an encrypted vault for ML models"
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

build: ## target/release/mvault
	@scripts/setup.sh build
	@cargo build --quiet --release -p vault-cli

demo: ## seal, inspect, open, range-read and re-key real models, and compare digests
	@scripts/demo.sh

s3: ## an S3 server on 127.0.0.1:8333 to try mvault with, until Ctrl-C
	@scripts/serve-s3.sh

test: ## every test of the workspace
	@scripts/test.sh

bench: ## mvault beside its peers, sealing and on S3; evidence; releases; an enclave (ARGS="--only s3 --size 512M")
	@scripts/bench.sh $(ARGS)

deploy: ## judge deploy/: CloudFormation on emulators, network rules by packets, units, dashboards, image, Kubernetes, release (as root)
	@scripts/deploy.sh

release: ## target/dist: tar archive, Debian package, bill of materials, SHA256SUMS
	@scripts/release.sh

reproduce: ## build the release twice, in two folders, and compare the bytes
	@scripts/reproduce.sh

fuzz: ## every fuzz target for a while (SECONDS=60)
	@scripts/fuzz.sh $(SECONDS)

lint: ## format, clippy, dependencies, scripts, documents
	@scripts/lint.sh

audit: ## known vulnerabilities in the dependencies, by RustSec's advisories as of a day (scripts/advisories.tsv)
	@scripts/audit.sh

install: ## mvault into cargo's bin folder
	@scripts/setup.sh build
	@cargo install --quiet --locked --path vault-cli
	@echo "installed: $$(command -v mvault || echo 'mvault, into cargo'\''s bin folder, which is not in PATH')"

clean: ## what was built here (the cache of models and tools stays)
	@cargo clean --quiet
	@rm -rf fuzz/artifacts fuzz/corpus fuzz/target
