# wafer's commands; `make` alone prints the list.
# Needed: rustup, make, a C compiler. Everything else is installed or built here.

TOOLCHAIN := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
WASM      := wasm32-wasip2
TARGET    := $(or $(CARGO_TARGET_DIR),target)
COMPONENT := target/components/wafer-portable.wasm
WAFER     := $(TARGET)/release/wafer

.DEFAULT_GOAL := help
.PHONY: help setup components build serve test lint demo-model clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Rust toolchain and its WebAssembly target where they are missing
	@rustup toolchain list | grep -q '^$(TOOLCHAIN)' \
		|| rustup toolchain install $(TOOLCHAIN) --profile minimal --component rustfmt,clippy
	@rustup target list --installed --toolchain $(TOOLCHAIN) | grep -qx $(WASM) \
		|| rustup target add $(WASM) --toolchain $(TOOLCHAIN)

# Copied only when it changed: a newer file would make cargo link the binary again.
components: setup ## build the component to target/components/
	cargo build --profile component --target $(WASM) -p wafer-component
	@mkdir -p $(dir $(COMPONENT))
	@cmp -s $(TARGET)/$(WASM)/component/wafer_component.wasm $(COMPONENT) \
		|| cp $(TARGET)/$(WASM)/component/wafer_component.wasm $(COMPONENT)

build: components ## build target/release/wafer, which needs no other file
	cargo build --release -p wafer

serve: build ## build, then serve the demo model on 127.0.0.1:8080
	$(WAFER) serve

test: build ## build, then run every test
	cargo test --release --workspace

lint: components ## check formatting and lints, native and WebAssembly
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --profile component --target $(WASM) -p wafer-component -- -D warnings

demo-model: ## train models/demo.gguf anew (CPU, up to 90 minutes)
	cargo run --release -p wafer-demo-model -- --out models/demo.gguf

clean: ## delete everything that was built
	cargo clean
	rm -rf target/components
