# What developers do and what .ci/run does. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
DIST   ?= dist
BIN    := $(VENV)/bin
export DIST

.DEFAULT_GOAL := help
.PHONY: help setup build format lint test test-all rust-test loom shuttle tsan soak fuzz bench bench-smoke wheel package readme-train readme-test ci clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.complete  ## a virtual environment with everything, the package installed editable

$(VENV)/.complete: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(VENV) --editable ".[dev]"
	touch $@

build: setup  ## compile the Rust extension again after a change to it
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --uv --release --locked

format: setup  ## let ruff and rustfmt lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all

lint: setup  ## ruff, mypy --strict, the extension's stub against the extension, rustfmt, clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest crl._core
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN))/python cargo clippy --workspace --all-targets --locked -- -D warnings

test: setup  ## the default tests
	$(BIN)/python -m pytest

test-all: setup  ## also the slow ones
	$(BIN)/python -m pytest -m "not gpu and not peers"

rust-test:  ## the tests of the Rust core
	cargo test --package crl-replay --locked

loom:  ## interleavings of the buffer's writers and readers, up to three preemptions
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 \
		cargo test --package crl-replay --lib --release --locked --target-dir target/loom interleavings

shuttle:  ## 100,000 random schedules of two writers and two samplers
	RUSTFLAGS="--cfg shuttle" \
		cargo test --package crl-replay --lib --release --locked --target-dir target/shuttle schedules

# ThreadSanitizer comes with every stable compiler, behind a switch. The standard library itself is not instrumented:
# what it takes for races there is in tsan.supp. A planted race must be found in the buffer's own code, which succeeds in
# about every second run.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TSAN = RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	TSAN_OPTIONS="suppressions=$(CURDIR)/rust/replay/tests/tsan.supp" \
	cargo test --package crl-replay --locked --target $(HOST) --target-dir target/tsan
tsan:  ## a moment of soaking under ThreadSanitizer, which must find a race that is planted and no other
	$(TSAN) --test soak
	for run in 1 2 3 4 5 6 7 8 9 10; do \
		$(TSAN) --test planted -- --ignored >target/tsan/planted.log 2>&1; \
		grep --max-count=1 "SUMMARY.*<crl_replay::words::Slab>::read" target/tsan/planted.log && exit 0; done; exit 1

MINUTES ?= 60
WRITERS ?= 1
soak:  ## writers and samplers at full speed for MINUTES (60), every row checked; WRITERS (1) share the lanes
	cargo run --package crl-replay --example soak --release --locked -- $(MINUTES) $(WRITERS)

fuzz:  ## mutated and random files for the readers of snapshots and of files of rows, for MINUTES (5)
	FUZZ_MINUTES=$(or $(MINUTES),5) cargo test --package crl-replay --test fuzz --release --locked -- --nocapture

bench: setup  ## the benchmarks
	$(BIN)/python -m pytest benches/bench_*.py

bench-smoke: setup  ## every benchmark briefly and small, as a test that it still runs
	$(BIN)/python -m pytest benches/bench_*.py -m "not slow and not peers and not large" --quiet \
		--benchmark-quiet --benchmark-min-rounds=1 --benchmark-max-time=0.1

wheel: setup  ## build the wheel and the source distribution into dist/
	rm -rf $(DIST)
	$(BIN)/maturin build --release --locked --out $(DIST)
	$(BIN)/maturin sdist --out $(DIST)

package: wheel  ## install what `make wheel` built in clean environments, and train from there
	PATH="$(abspath $(BIN)):$$PATH" .ci/package.sh

readme-train:  ## README's first command in a clean environment, and the rest of that page
	.ci/readme.sh train

readme-test:  ## README's second command in a clean environment
	.ci/readme.sh test

ci:  ## everything, as before a change lands
	.ci/run

clean:  ## remove what building and testing leave
	rm -rf $(DIST) target .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
