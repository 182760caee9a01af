# The commands of a day. `make` alone lists them; CI runs `make test`, the same as a person does.

# Arguments for `make run`, as in: make run ARGS="--host pds.example.com"
ARGS ?=
# Arguments for `make bench`, as in: make bench ARGS="--json bench.json"
export CARGO_TARGET_DIR ?= $(CURDIR)/target

# The program that the tests of whole processes run; `cargo test --workspace` builds it.
export MAINSTEM_BIN ?= $(CARGO_TARGET_DIR)/debug/mainstem

.DEFAULT_GOAL := help
.PHONY: help setup setup-test run local-cluster check test lint e2e bench fan-out soak growth cold-start chaos fuzz deny release helm-test helm-e2e deploy-test dashboards-check bare-root-check package-test proxy-check

help: ## List these commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## Install what a build needs (as root), or say what is missing
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test

run: setup ## Build and start the relay; with no host given, a simulated network runs beside it
	cargo build --release --workspace --bins
	@if [ -z "$(strip $(ARGS))" ]; then \
	  echo; echo "No host given: starting a simulated network beside the relay. For the real one: make run ARGS=\"--host pds.example.com\""; \
	  exec $(CARGO_TARGET_DIR)/release/mainstem run --simulate; \
	else exec $(CARGO_TARGET_DIR)/release/mainstem run $(ARGS); fi

local-cluster: ## Run a whole cluster on this machine: Kafka, Cassandra and two of each role, as in: make local-cluster ARGS="--brokers 3"
	@deploy/local-cluster $(ARGS)

check: setup ## What a developer runs in a minute: format, lints and the tests of the pure crates
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test -q -p atproto -p storage

test: setup-test lint deny helm-test deploy-test package-test ## Everything: lints, unit tests, and whole processes against real servers and clients
	cargo test --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps

deny: ## Look at what is built in: its licences, where it is from, and what must not be there
	@$$(scripts/cargo-tool.sh cargo-deny 0.20.2) check bans licenses sources

release: ## Make what a release consists of, in dist/: program, notices, SBOM, sums
	@scripts/release.sh

# `--workspace` chooses the same features as `make test` does, so that nothing is built twice.
e2e: setup-test ## Only the tests of whole processes: kills, damage, a hundred hosts, a real PLC directory and real PDSs
	cargo test --workspace --test processes -- --nocapture

bench: setup ## Print the relay's cost per event, its latency and memory, beside what the machine itself takes
	cargo build --release --workspace --bins
	cargo bench --workspace --bench judging
	$(CARGO_TARGET_DIR)/release/loadtest bench --relay $(CARGO_TARGET_DIR)/release/mainstem --workers 2,1 $(ARGS)

# Some scenarios only, as in: make fan-out ARGS="live pace"
fan-out: setup ## Print what serving many subscribers costs, live, in replay, beside slow ones, and what raw sockets take
	cargo build --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/loadtest fan-out --relay $(CARGO_TARGET_DIR)/release/mainstem $(ARGS)

# Seconds at full rate.
SOAK_SECONDS ?= 600
soak: setup ## Show that nothing grows over ten minutes at full rate, or SOAK_SECONDS=3600
	cargo build --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/loadtest soak --relay $(CARGO_TARGET_DIR)/release/mainstem --seconds $(SOAK_SECONDS) $(ARGS)

growth: setup ## Show how cost and memory grow by repos, hosts and workers
	cargo build --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/loadtest growth --relay $(CARGO_TARGET_DIR)/release/mainstem $(ARGS)

cold-start: setup ## Show how fast a relay that knows nobody comes to know 300,000 accounts
	cargo build --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/loadtest cold-start --relay $(CARGO_TARGET_DIR)/release/mainstem --accounts 300000 $(ARGS)

# What all that is random follows from, as in: make chaos SEED=7 ARGS="--minutes 10"
SEED ?= 1
chaos: ## Break a cluster under load, every fault many times: an hour (or ARGS="--minutes 10"), as root for cuts of the network
	@scripts/setup.sh cluster
	cargo build --release --workspace --bins
	$(CARGO_TARGET_DIR)/release/loadtest chaos --seed $(SEED) --report chaos-$(SEED).md $(ARGS)

# Seconds for each target.
FUZZ_SECONDS ?= 60
fuzz: ## Run every fuzz target for a minute, or FUZZ_SECONDS=600 (needs a nightly toolchain and cargo-fuzz)
	@unset CARGO_TARGET_DIR; for t in $$(cargo +nightly fuzz list --fuzz-dir fuzz); do mkdir -p fuzz/found/$$t && \
	  cargo +nightly fuzz run --fuzz-dir fuzz $$t fuzz/found/$$t fuzz/corpus/$$t fuzz/seeds/$$t -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -rss_limit_mb=2048 || exit 1; done

# UPDATE=1 takes over what is rendered now as what is to be rendered.
helm-test: ## Only the tests of the Helm chart: what it renders and what it refuses
	@env="$$(scripts/helm-tools)" && eval "$$env" && "$$HELM_PYTHON" -m unittest discover -s helm/tests

helm-e2e: ## Install, upgrade, roll back and uninstall the chart on a real Kubernetes control plane (the first time it is built: 10 to 25 minutes)
	@env="$$(scripts/helm-tools)" && eval "$$env" && home="$$(scripts/helm-kubernetes)" && "$$HELM_PYTHON" helm/tests/e2e/run.py "$$home"

deploy-test: ## Only the tests of what is in deploy/: Prometheus' rules, dashboards, Dockerfile, compose and systemd files
	@env="$$(scripts/deploy-tools)" && eval "$$env" && "$$DEPLOY_PYTHON" -m unittest discover -s deploy/tests

# To draw the pictures anew, with a Python that has matplotlib: deploy/tests/dashboards … --draw docs/pictures
dashboards-check: ## Ask every query of the dashboards of a real Prometheus, beside a relay and a cluster under load: some minutes
	@scripts/setup.sh cluster
	cargo build --release --workspace --bins
	@env="$$(scripts/deploy-tools)" && eval "$$env" && \
	  "$$DEPLOY_PYTHON" deploy/tests/dashboards $(CARGO_TARGET_DIR)/release/mainstem $(CARGO_TARGET_DIR)/release/loadtest $(ARGS)

bare-root-check: ## Run the program as the image does: as root, on Debian, in a root without a shell that can't be written
	cargo build --release --workspace --bins
	deploy/tests/bare-root $(CARGO_TARGET_DIR)/release/mainstem

package-test: ## Only the tests of what Docker Compose itself makes of the compose files
	@env="$$(deploy/package-tests/tools compose)" && eval "$$env" && python3 -m unittest discover -s deploy/package-tests

proxy-check: ## Run the Caddyfile with a real Caddy before a relay: TLS, the stream, and whom the relay sees
	cargo build --release --workspace --bins
	@env="$$(deploy/package-tests/tools proxy)" && eval "$$env" && \
	  MAINSTEM=$(CARGO_TARGET_DIR)/release/mainstem "$$PROXY_PYTHON" deploy/package-tests/proxy
