# wafer's commands; `make` alone prints the list.
# Needed: rustup, make, a C compiler. Everything else is installed or built here.

TOOLCHAIN := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
WASM      := wasm32-wasip2
TARGET    := $(or $(CARGO_TARGET_DIR),target)
COMPONENTS := target/components
WAFER     := $(TARGET)/release/wafer

# All of these name the whole workspace, so that the tests find `wafer` built with what they need themselves;
# with the features of one crate alone, as `make build` has them, wasmtime would be compiled a second time.
IN_WORKSPACE := --release --workspace

.DEFAULT_GOAL := help
.PHONY: help setup components build spin serve test test-wasm test-arm64 lint demo-model clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Rust toolchain and its WebAssembly target where they are missing
	@rustup toolchain list | grep -q '^$(TOOLCHAIN)' \
		|| rustup toolchain install $(TOOLCHAIN) --profile minimal --component rustfmt,clippy
	@rustup target list --installed --toolchain $(TOOLCHAIN) | grep -qx $(WASM) \
		|| rustup target add $(WASM) --toolchain $(TOOLCHAIN)

# One command each, so that what one asks of common dependencies does not get into the other.
# Copied only when it changed: a newer file would make cargo link the binary again.
keep = @mkdir -p $(COMPONENTS); cmp -s $(TARGET)/$(WASM)/component/$1.wasm $(COMPONENTS)/$2.wasm \
	|| cp $(TARGET)/$(WASM)/component/$1.wasm $(COMPONENTS)/$2.wasm

components: setup ## build the components, and the example that uses one, to target/components/
	cargo build --profile component --target $(WASM) -p wafer-portable
	$(call keep,wafer_portable,wafer-portable)
	cargo build --profile component --target $(WASM) -p wafer-portable --features candle
	$(call keep,wafer_portable,wafer-encoders)
	cargo build --profile component --target $(WASM) -p wafer-portable --features nn
	$(call keep,wafer_portable,wafer-accelerated)
	cargo build --profile component --target $(WASM) -p wafer-spin
	$(call keep,wafer_spin,wafer-spin)
	cargo build --profile component --target $(WASM) -p storyteller
	$(call keep,storyteller,storyteller)

build: components ## build target/release/wafer, which needs no other file
	cargo build --release -p wafer

spin: build ## bake the demo model into the components that spin.toml and spin-async.toml name
	@mkdir -p target/spin
	$(WAFER) bake -o target/spin/wafer.wasm
	$(WAFER) bake --world spin -o target/spin/wafer-async.wasm

serve: build ## build, then serve the demo model on 127.0.0.1:8080
	$(WAFER) serve

test: components ## build, then run every test
	cargo test $(IN_WORKSPACE)

# The engine's kernels for WebAssembly, against their specification and the goldens.
test-wasm: components ## run the engine's tests inside WebAssembly
	cargo build $(IN_WORKSPACE) --example run-command
	CARGO_TARGET_WASM32_WASIP2_RUNNER=$(abspath $(TARGET))/release/examples/run-command \
		cargo test --release -p wafer-engine --lib --test golden --target $(WASM)

# The engine has kernels for aarch64; here they run under emulation, on a processor with all instructions
# that they know and on one with none. So does a host without a compiler, with the component compiled for
# aarch64. Timing means nothing there.
ARM64     := aarch64-unknown-linux-gnu
QEMU      := qemu-aarch64-static -L /usr/aarch64-linux-gnu

test-arm64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
test-arm64: components ## test engine and component on aarch64, emulated (needs qemu-user-static, gcc-aarch64-linux-gnu)
	@for tool in qemu-aarch64-static aarch64-linux-gnu-gcc; do command -v $$tool >/dev/null \
		|| { echo "error: $$tool is missing" >&2; \
			echo "hint: apt-get install qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2; exit 1; }; done
	@rustup target list --installed --toolchain $(TOOLCHAIN) | grep -qx $(ARM64) \
		|| rustup target add $(ARM64) --toolchain $(TOOLCHAIN)
	for cpu in max cortex-a53; do \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(QEMU) -cpu $$cpu" \
		cargo test --release -p wafer-engine --lib --test golden --test reference --target $(ARM64) -- \
			--skip perplexity || exit 1; \
	done
	cargo build --release -p wafer --no-default-features --target $(ARM64)
	cargo build $(IN_WORKSPACE) --bin wafer --example run-command
	WAFER_TEST_ARM64="$(QEMU) $(abspath $(TARGET))/$(ARM64)/release/wafer" \
		cargo test $(IN_WORKSPACE) --test runtimes -- aarch64

lint: components ## check formatting and lints, native and WebAssembly
	cargo fmt --all --check
	cargo clippy $(IN_WORKSPACE) --all-targets -- -D warnings
	cargo clippy --profile component --target $(WASM) -p wafer-portable -- -D warnings
	cargo clippy --profile component --target $(WASM) -p wafer-portable --features candle -- -D warnings
	cargo clippy --profile component --target $(WASM) -p wafer-portable --features nn -- -D warnings
	cargo clippy --profile component --target $(WASM) -p wafer-spin -- -D warnings
	cargo clippy --profile component --target $(WASM) -p storyteller -- -D warnings

demo-model: ## train models/demo.gguf anew (CPU, up to 90 minutes)
	cargo run --release -p wafer-demo-model -- --out models/demo.gguf

clean: ## delete everything that was built
	cargo clean
	rm -rf target/components target/spin
