# Tallymark: what one does with it. `make help` lists the targets.

CARGO ?= cargo
SEEDS ?= 10000
SECONDS ?= 30
ARGS ?=
LISTEN ?= 127.0.0.1:8080
PROGRAM = $(or $(CARGO_TARGET_DIR),target)/release/tallymark
# Run as it was built, together with the program: built alone it would be built again.
BENCH = $(or $(CARGO_TARGET_DIR),target)/release/tallymark-bench
export NO_SERVERS

.DEFAULT_GOAL := help
.PHONY: help run demo test chaos check soak sim bench bench-scale bench-peers fuzz lint deploy openapi needs-cargo needs-cc needs-perl needs-python needs-curl needs-java needs-fuzz

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{ printf "  make %-11s %s\n", $$1, $$2 }'

run: needs-cargo needs-cc needs-perl ## Build for speed and run everything on http://127.0.0.1:8080, data in ./data (more options: ARGS=...).
	$(CARGO) run --release --bin tallymark -- run $(ARGS)

# The server says on its first line where it listens; its data goes when the demo ends.
demo: needs-cargo needs-cc needs-perl ## A living system: a server on LISTEN, realistic traffic, and at the end every count verified (more options: ARGS=...).
	$(CARGO) build --release --bin tallymark
	@data=$$(mktemp -d); trap 'kill $$server 2>/dev/null; wait $$server; rm -rf "$$data"' EXIT; trap 'exit 130' INT TERM; \
	$(PROGRAM) run --data "$$data/data" --listen $(LISTEN) --log-level warn >"$$data/out" & server=$$!; \
	until url=$$(sed -n '1s|.*\(https*://[^,]*\),.*|\1|p' "$$data/out") && [ -n "$$url" ]; do kill -0 $$server 2>/dev/null || exit 1; sleep 0.1; done; \
	$(PROGRAM) demo --url "$$url" --verify $(ARGS)

test: needs-cargo needs-cc needs-perl needs-python needs-curl needs-java ## Run every test, also against real Kafka and Cassandra (fetched and stopped by the tests).
	$(CARGO) test --workspace

chaos: needs-cargo needs-cc needs-perl needs-java ## The long fault suite on three brokers and three Cassandra nodes: 50 kills and every other fault.
	CHAOS=long $(CARGO) test --test chaos -- --nocapture

check: needs-cargo needs-cc ## The tests that need nothing but this machine, and the lints: about 5 minutes.
	$(CARGO) test --workspace --lib --bins --test simulation
	$(MAKE) --no-print-directory lint

soak: needs-cargo needs-cc ## Run SEEDS=n schedules of the simulation (10000).
	SEEDS=$(SEEDS) $(CARGO) test --test simulation -- --exact soak --nocapture

sim: needs-cargo needs-cc ## Repeat one schedule of the simulation: SEED=n.
	@test -n "$(SEED)" || { echo 'Say which: make sim SEED=n'; exit 2; }
	SEED=$(SEED) $(CARGO) test --test simulation -- --exact one_seed --nocapture

bench: needs-cargo needs-cc needs-perl ## Measure beside yardsticks: about 20 minutes (only some: ARGS=NAME; RUNS=n; EVENTS=n).
	$(CARGO) build --release --package tallymark --package tallymark-bench
	$(CARGO) build --release --package tallymark-query --example cache_rate
	$(CARGO) build --release --package tallymark-client --example rate
	$(BENCH) $(ARGS)

bench-scale: needs-cargo needs-cc needs-perl ## What an event costs as videos, partitions, skew and lateness grow.
	$(CARGO) build --release --package tallymark --package tallymark-bench
	$(BENCH) scale

bench-peers: needs-cargo needs-cc needs-perl needs-java ## The same topic through Kafka Streams and Flink (Maven fetches them; 20 minutes).
	$(CARGO) build --release --package tallymark --package tallymark-bench
	$(BENCH) peers

fuzz: needs-cargo needs-fuzz ## Fuzz every target for SECONDS=n (30).
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do mkdir -p corpus/$$target && $(CARGO) +nightly fuzz run $$target corpus/$$target seeds/$$target -- -max_total_time=$(SECONDS) || exit 1; done

lint: needs-cargo needs-cc needs-perl ## Formatting and lints, with every feature and with none.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package tallymark --no-default-features -- -D warnings

openapi: needs-cargo needs-cc needs-perl ## Write docs/openapi.json anew, from the descriptions beside the handlers.
	REWRITE=1 $(CARGO) test --bin tallymark the_copy_in_docs_is_what_is_served

deploy: ## Check images, Kubernetes manifests, alert rules and the board.
	docker/check.sh

# Each need names the one line that installs it.
needs-cargo:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing. Install it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"; exit 2; }

needs-cc:
	@command -v cc >/dev/null || { echo 'A C compiler is missing. Install it with: sudo apt-get install -y gcc libc6-dev   (macOS: xcode-select --install)'; exit 2; }

needs-perl:
	@command -v perl >/dev/null || { echo 'perl is missing (OpenSSL is built with it). Install it with: sudo apt-get install -y perl   or build without Kafka: cargo build --no-default-features'; exit 2; }

needs-java:
	@{ command -v java && command -v mvn; } >/dev/null || [ -n "$(NO_SERVERS)" ] || { echo 'Java 17 and Maven are missing (Kafka and Cassandra run on them). Install them with: sudo apt-get install -y openjdk-17-jre-headless maven   or leave those tests out: make test NO_SERVERS=1'; exit 2; }

needs-python:
	@command -v python3 >/dev/null || { echo 'python3 is missing (counts are compared with its sqlite3, and schemathesis tries the API). Install it with: sudo apt-get install -y python3 python3-venv'; exit 2; }

needs-curl:
	@command -v curl >/dev/null || { echo 'curl is missing (the README is run as it stands). Install it with: sudo apt-get install -y curl'; exit 2; }

needs-fuzz:
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo 'cargo-fuzz is missing. Install it with: rustup toolchain install nightly && cargo install cargo-fuzz'; exit 2; }
