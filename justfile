# What is done often. `just --list` shows it.

# Everything CI does.
ci:
    .ci/run

# The feature cuda: when crates or the dependencies changed.
ci-cuda:
    .ci/cuda

test:
    cargo test --release

# Ten times as much of everything random, and every named fault.
long:
    GRADUS_TEST_SCALE=10 cargo test --release
    GRADUS_TEST_SCALE=10 cargo test --release --features failpoints --test it points

# The loop on the embedded model.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Rubric components from their sources.
plugins:
    scripts/build-plugins

bench:
    cargo bench

# The model layer beside TRL, PEFT, transformers and llama.cpp, in one run.
bench-peers *ARGS:
    scripts/bench-peers {{ARGS}}

# Every GPU test and benchmark, on a machine with a GPU; `just build-cuda --all` made what it wants.
bench-gpu *ARGS:
    benches/gpu/run {{ARGS}}

# The binary with CUDA, on a machine without a GPU: .gpu/gradus.
build-cuda *ARGS:
    scripts/build-cuda {{ARGS}}

# Pretrain the demo's base again (two hours).
base:
    cargo run --release --example pretrain_demo -- --out assets/demo-base
