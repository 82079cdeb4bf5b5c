# What developers do and what .ci/run does. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
DIST   ?= dist
BIN    := $(VENV)/bin
export DIST

.DEFAULT_GOAL := help
.PHONY: help setup build format lint test test-all rust-test loom shuttle tsan asan soak fuzz walk docs gallery canary bench bench-buffer bench-smoke wheel package readme-train readme-test ci clean

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
	cargo test --package crl-replay --package crl-kernels --locked

loom:  ## interleavings of the buffer's writers and readers and of the loader's two sides, up to three preemptions
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 \
		cargo test --package crl-replay --lib --release --locked --target-dir target/loom interleavings

shuttle:  ## 100,000 random schedules of two writers and two samplers
	RUSTFLAGS="--cfg shuttle" \
		cargo test --package crl-replay --lib --release --locked --target-dir target/shuttle schedules

# Sanitizers come with every stable compiler, behind a switch. The standard library itself is not instrumented: what
# ThreadSanitizer takes for races there is in tsan.supp. What is planted must be found, and in the buffer's own code; a
# race is found in about every second run. A test that asks for more memory than there is must get none, and no report.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
SANITIZED = RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$(1) -Cunsafe-allow-abi-mismatch=sanitizer" \
	TSAN_OPTIONS="suppressions=$(CURDIR)/rust/replay/tests/tsan.supp" ASAN_OPTIONS=allocator_may_return_null=1 \
	cargo test --package crl-replay --locked --target $(HOST) --target-dir target/$(1)
PLANTED = for run in 1 2 3 4 5 6 7 8 9 10; do \
	$(call SANITIZED,$(1)) --test planted -- --ignored $(2) >target/$(1)/planted.log 2>&1; \
	grep --quiet " crl_replay::\| <crl_replay::" target/$(1)/planted.log \
		&& grep --max-count=1 "SUMMARY: .*$(3)" target/$(1)/planted.log && exit 0; \
	done; cat target/$(1)/planted.log; exit 1

tsan:  ## a moment of soaking under ThreadSanitizer, which must find a race that is planted and no other
	$(call SANITIZED,thread) --test soak
	$(call PLANTED,thread,two_samplers_fill,data race)

asan:  ## the Rust tests under AddressSanitizer, leaks too, which must find what is planted and nothing else
	$(call SANITIZED,address) --lib --tests
	$(call PLANTED,address,a_batch_ends_beyond,heap-buffer-overflow)
	$(call PLANTED,address,rows_are_read_after,heap-use-after-free)
	$(call PLANTED,address,a_buffer_is_never,leaked in)

MINUTES ?= 60
WRITERS ?= 1
soak:  ## writers and samplers at full speed for MINUTES (60), every row checked; WRITERS (1) share the lanes
	cargo run --package crl-replay --example soak --release --locked -- $(MINUTES) $(WRITERS)

fuzz:  ## mutated and random files for the readers of snapshots and of files of rows, for MINUTES (5)
	FUZZ_MINUTES=$(or $(MINUTES),5) cargo test --package crl-replay --test fuzz --release --locked -- --nocapture

walk: setup  ## STEPS (1e6) random steps in every environment: finite, and no row is followed by a reset
	STEPS=$(or $(STEPS),1e6) $(BIN)/python -m pytest -m slow tests/test_envs_long.py

docs: setup  ## docs/environments.md and its pictures, out of what the environments say of themselves
	$(BIN)/python docs/environments.py --pictures

gallery: setup  ## the pictures of docs/gallery.md, by the commands that stand there
	$(BIN)/python docs/gallery.py

canary: setup  ## what the installed MuJoCo makes of every environment, as what is expected of that release from now on
	$(BIN)/python -m crl.envs.canary

bench: setup  ## the benchmarks: criterion's of the Rust core, then pytest's
	cargo bench --manifest-path rust/replay/benches/Cargo.toml --target-dir target/benches --locked
	$(BIN)/python -m pytest benches/bench_*.py

bench-buffer: setup  ## the buffer beside everybody installed, with the page, picture and figures in docs/results
	$(BIN)/crl bench buffer --markdown docs/results/buffer.md --plot docs/results/buffer.png --csv docs/results/buffer.csv

bench-smoke: setup  ## every benchmark briefly and small, as a test that it still runs
	$(BIN)/python -m pytest benches/bench_*.py -m "not slow and not gpu and not peers and not large" --quiet \
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
