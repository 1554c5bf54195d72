# The commands for development and CI. Start with `make run` and `make test`.
# CARGO_TARGET_DIR is respected. ARGS is passed to the server: make run ARGS="config/petalert.toml --listen 127.0.0.1:0"

PYTHON ?= python3
CARGO ?= cargo
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/caudal

.PHONY: setup run test soak lint bench

# Installs nats-server and ONNX Runtime into .caudal/. Does nothing if they are installed.
setup:
	@$(PYTHON) scripts/setup.py

# Builds and serves the default config, with all roles in one process.
run: setup
	$(CARGO) build --release
	$(BINARY) serve $(ARGS)

# All tests, with a real broker, models and LibreOffice.
test:
	@$(PYTHON) scripts/setup.py --test
	$(CARGO) test --release --workspace

# Injects random faults for SOAK_SECONDS (default 300). The seed is printed; SOAK_SEED repeats it.
soak:
	@$(PYTHON) scripts/setup.py --test
	$(CARGO) build --release --workspace --example victim
	$(CARGO) test --release --workspace --test faults -- --ignored --nocapture soak

# Format, layout, clippy, documentation and, if cargo-deny is installed, licences and bans. Warnings are errors only
# here, so that a warning of a newer compiler fails CI and not a user's build.
lint:
	$(CARGO) fmt --all --check
	$(PYTHON) scripts/check_layout.py
	$(PYTHON) -m unittest discover --start-directory scripts
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --document-private-items
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; fi

# All benchmarks, each beside its baseline, in one run on this machine.
bench: setup
	$(CARGO) bench --workspace --bench benchmarks
