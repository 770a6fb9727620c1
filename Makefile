# Everything there is to do here. `make` alone lists it.
#
# Each target sets up what it needs: a redis-server, where apt can install one. A Rust toolchain is the
# one thing that must be there (https://rustup.rs, 1.88 or later).

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test bench chaos chaos-seeds chaos-spool lint doc alerts cargo redis faults

# What the demo is given: make demo ARGS="--jobs 1000000 --seed 7"
ARGS ?=
# `make chaos`: which schedule of faults (a random one), for how long in all, and against what:
# standalone, sentinel, cluster or all.
SEED ?=
MINUTES ?= 2
TOPOLOGY ?= all
# Or one scene again and again: failover, lost-writes, split-brain; and with how many seeds.
SCENARIO ?= nemesis
ROUNDS ?= 50
# How many seeds `make chaos-seeds` runs where `make test` runs 200.
SEEDS ?= 2000
# How many records `make chaos-spool` sends through a small window.
CHURN ?= 1000000
# Only one set of flags: another one would build all dependencies anew.
FLAGS := --all-features --locked
# What the worker is measured beside has a lock of its own, and wants a later Rust.
PEERS := --locked --manifest-path benches/peers/Cargo.toml --target-dir target
FEATURES = $(shell sed -n '/^\[features\]/,/^\[/s/^\([a-z-]*\) *=.*/\1/p' Cargo.toml | grep -vx default)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: cargo redis ## kill a real Redis under load twice, freeze it once, and balance the books (ARGS="--jobs 1000000 --seed 7")
	@cargo build --release --locked --features chaos --example outage
	@cargo run --quiet --release --locked --features chaos --example outage -- $(ARGS)

test: cargo faults ## all tests, the documentation's examples, and a short run of each example
	cargo test $(FLAGS)
	@echo "== examples =="
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; export TMPDIR="$$scratch"; \
	run() { \
		name=$$1; wanted=$$2; shift 2; echo "$$name $$*"; \
		said=$$(cargo run --quiet $(FLAGS) --example "$$name" -- "$$@" 2>&1) \
			|| { echo "$$said"; echo "example $$name failed"; exit 1; }; \
		case $$said in *"$$wanted"*) ;; \
			*) echo "$$said"; echo "example $$name did not say: $$wanted"; exit 1;; esac; \
	}; \
	run quickstart "Spooled" redis://127.0.0.1:1; \
	run layers "arrived: 1 2 3 4 5 6"; \
	run wrap_your_client "arrived: 1 2 3 3 4 5 6 7 8 9"; \
	run standby "lost=0 recovered=0 out_of_order=0"; \
	run sentinel "duplicated=0 lost=0 recovered=0 out_of_order=0"; \
	run worker "again=0 lost=0"; \
	run handlers "has sent 20 emails, 2 at a time at most; given up: 1"; \
	run metrics "seawall_outages_total 1" --once; \
	run outage "lost=0 duplicated=0 out_of_order=0" --jobs 20000 --seconds 6 --seed 1; \
	run chaos_test "lost=0" 1; \
	run chaos "chaos: topology=standalone ack=spooled seed=1" --topology standalone --minutes 0.15 --seed 1; \
	run chaos "chaos: topology=sentinel ack=spooled seed=1" --topology sentinel --minutes 0.25 --seed 1

bench: cargo redis ## the benches: tables on the screen, JSON under target/
	cargo bench --locked --features chaos,encrypt
	cargo bench $(PEERS)

chaos: cargo redis ## hurt Redis, its network and the producers at random, and balance the books (SEED=7 MINUTES=2 TOPOLOGY=all, or SCENARIO=failover ROUNDS=50)
	@cargo build --release --locked --features chaos --example chaos
	@cargo run --quiet --release --locked --features chaos --example chaos -- \
		--scenario $(SCENARIO) $(if $(filter-out nemesis,$(SCENARIO)),--seeds $(ROUNDS),--minutes $(MINUTES) --topology $(TOPOLOGY)) \
		$(if $(SEED),--seed $(SEED))

chaos-seeds: cargo redis ## the seeded tests with many more seeds (SEEDS=2000)
	SEAWALL_SEEDS=$(SEEDS) cargo test --release $(FLAGS) --test line --test crash --test topology --test worker

chaos-spool: cargo faults ## the spool's crashes and faults, all of them (SEEDS=2000, CHURN=1000000)
	SEAWALL_STATES=2000 SEAWALL_KILLS=all SEAWALL_CYCLES=1000 SEAWALL_SEEDS=$(SEEDS) \
		cargo test --release $(FLAGS) --test powercut --test faults --test crash -- --nocapture
	SEAWALL_CHURN=$(CHURN) cargo bench --locked --features chaos --bench churn

alerts: ## check docs/alerts.yml and run its unit tests (needs promtool)
	@command -v promtool >/dev/null || { \
		echo "promtool is missing: apt-get install --no-install-recommends prometheus" >&2; exit 1; }
	promtool check rules docs/alerts.yml
	promtool test rules tests/alerts.yml

lint: cargo ## formatting, clippy, rustdoc, and each feature by itself; a warning is an error
	cargo fmt --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --all-targets -- -D warnings
	@set -e; for feature in $(FEATURES); do \
		echo "cargo clippy --no-default-features --features $$feature"; \
		cargo clippy --locked --no-default-features --features $$feature --all-targets -- -D warnings; \
	done
	RUSTDOCFLAGS="-D warnings" cargo doc $(FLAGS) --no-deps

doc: cargo ## the API's documentation, under target/doc/
	cargo doc $(FLAGS) --no-deps
	@echo "see target/doc/seawall/index.html"

# ===== what the others need =====

cargo:
	@command -v cargo >/dev/null || { \
		echo "cargo is not in PATH. Install a Rust toolchain, 1.88 or later: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { \
		echo "There is no C compiler (cc) in PATH, which linking needs: apt-get install gcc libc6-dev"; exit 1; }

# A command, and the package of Debian's that has it.
redis:
	@$(call needs,redis-server,redis-server)

# To kill at a system call, to fail one, and to have a disk that can be filled.
faults: redis
ifeq ($(shell uname),Linux)
	@$(call needs,strace,strace)
	@$(call needs,mkfs.ext4,e2fsprogs)
endif

define needs
PATH="$$PATH:/usr/sbin:/sbin"; command -v $(1) >/dev/null && exit 0; \
	by_hand() { echo "$$1 Install $(1) by hand: $$2"; exit 1; }; \
	command -v apt-get >/dev/null \
		|| by_hand "$(1) is not in PATH, and there is no apt-get to install it." \
			"your system's package manager has it, as $(2) or under a similar name"; \
	if [ "$$(id -u)" = 0 ]; then root=; \
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then root=sudo; \
	else by_hand "$(1) is not in PATH, and this user may not install it." \
		"sudo apt-get install $(2)"; fi; \
	echo "installing $(2) ..."; \
	{ $$root apt-get update -qq && \
	  $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2); } >/dev/null \
		|| by_hand "apt-get could not install $(2)." "sudo apt-get install $(2)"
endef
