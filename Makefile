# Everything a person or CI does here. `make run` and `make test` are the two to know.
# CARGO_TARGET_DIR is honoured; ARGS is passed on to the server: make run ARGS="config/petalert.toml --listen 127.0.0.1:0"

PYTHON ?= python3
CARGO ?= cargo
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/caudal

.PHONY: setup run test soak lint bench

# Installs the broker and the inference library into .caudal/; a no-op the second time.
setup:
	@$(PYTHON) scripts/setup.py

# Builds, and serves the default config: everything at once on one machine.
run: setup
	$(CARGO) build --release
	$(BINARY) serve $(ARGS)

# Every test, on real parts.
test:
	@$(PYTHON) scripts/setup.py --test
	$(CARGO) test --release --workspace

# Random faults for SOAK_SECONDS (300); the seed is printed, and SOAK_SEED repeats it.
soak:
	@$(PYTHON) scripts/setup.py --test
	$(CARGO) build --release --workspace --example victim
	$(CARGO) test --release --workspace --test faults -- --ignored --nocapture soak

# Format, layout, clippy, documentation and, where cargo-deny is installed, licences and bans. Warnings are errors here
# and not in the source, so that a newer compiler's warning stops CI and not a user's build.
lint:
	$(CARGO) fmt --all --check
	$(PYTHON) scripts/check_layout.py
	$(PYTHON) -m unittest discover --start-directory scripts
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --document-private-items
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; fi

# The figures, each beside its yardstick, in one run on this machine.
bench: setup
	$(CARGO) bench --workspace --bench figures
