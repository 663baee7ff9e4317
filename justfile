# What can be done here, and how. `just` alone lists it. Every recipe builds with the one profile, release.

set positional-arguments

python := env("PYTHON", "python3")
hub := env("LOWCHURN_HUB_DIR", "../shared/hub")

_list:
    @just --list --unsorted

# The whole story on what ships here, no network: a first model, new rows, a plain retrain, a low-churn update, the gate
[group('use')]
demo:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release
    lowchurn() { target/release/lowchurn "$@"; }
    say() { printf '\n== %s\n' "$1"; }
    new=(--new 'tickets:later[:1000]' --holdout 'tickets:later[1000:]' --slice channel --tables runs/demo/tables --fresh)
    say "1. A first model, on tickets of January to March"
    lowchurn finetune tickets --model tiny --fresh --output runs/demo/first
    say "2. April and May come in: words drift, and one labelling rule has changed. A plain retrain, judged on June"
    lowchurn update --base runs/demo/first "${new[@]}" --method retrain --interpolate none --output runs/demo/retrained
    say "3. The same rows, but at most 15 % of predictions may change, certified on rows that nothing was chosen by"
    code=0
    lowchurn update --base runs/demo/first "${new[@]}" --lambda 0.5 --max-churn 15% --output runs/demo/update || code=$?
    say "4. What CI would see"
    lowchurn gate runs/demo/update/report.json || code=$?
    say "The report: runs/demo/update/report.html. A real first model (downloads 90 MB): just finetune sst2"
    exit $code

# Train a classifier: just finetune sst2 --epochs 1; Ctrl-C saves, the same command goes on
[group('use')]
[no-exit-message]
finetune TASK *ARGS:
    @cargo run --release -- finetune "$@"

# Any other verb: just run predict --model runs/sst2 --data rows.csv
[group('use')]
[no-exit-message]
run *ARGS:
    @cargo run --release --quiet -- "$@"

# The next model from a deployed one: just update --base runs/sst2 --new rows.jsonl --max-churn 2%
[group('use')]
[no-exit-message]
update *ARGS:
    @cargo run --release -- update "$@"

# All tests, offline: units, crates, the program itself; those of the hub run where ../shared/hub is
[group('check')]
test *ARGS:
    @test -f {{hub}}/serve.py || echo "note: {{hub}} is not here, so the tests that need it skip themselves"
    cargo test --release --workspace --no-fail-fast "$@"

# What a change must pass besides its tests: format, lints, docs (the libraries'; the program's are its --help)
[group('check')]
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --lib --no-deps

# The promise on real data, about an hour: SST-2 with MiniLM in three seeds, then transformers on the same rows (PYTHON)
[group('check')]
slow:
    #!/usr/bin/env bash
    set -euo pipefail
    coproc server { exec python3 "{{hub}}/serve.py" --port 0; }
    trap 'kill $server_PID' EXIT
    read -r HF_ENDPOINT <&"${server[0]}"
    export HF_ENDPOINT HF_HOME=target/slow/hf
    mkdir -p target/slow
    cargo build --release
    lowchurn() { cargo run --release --quiet -- "$@"; }
    lowchurn finetune --plan configs/sst2-minilm.toml --seeds 3 --output runs/slow
    "{{python}}" -c 'import json; mean = json.load(open("runs/slow/all_results.json"))["accuracy_mean"]
    print(f"mean accuracy {mean:.4f}, at least 0.885 expected"); raise SystemExit(mean < 0.885)'
    rows="{{hub}}/datasets/stanfordnlp/sst2/data/validation-00000-of-00001.parquet"
    lowchurn predict --model runs/slow/seed-42 --data sst2:validation --logits --output target/slow/sst2.jsonl
    "{{python}}" tests/golden/check_transformers.py runs/slow/seed-42 target/slow/sst2.jsonl "$rows" --text sentence

# Hold what the program saves of every architecture against transformers (PYTHON); the verdicts are in tests/golden/architectures.md
[group('check')]
check-architectures:
    cargo build --release
    {{python}} tests/golden/check_architectures.py

# Hold students cut out of every architecture against transformers (PYTHON); the verdicts are in tests/golden/students.md
[group('check')]
check-students:
    cargo build --release
    {{python}} tests/golden/check_students.py

# Hold exported ONNX files against PyTorch and the program by onnxruntime (PYTHON); the verdicts are in tests/golden/onnx.md
[group('check')]
check-onnx *ARGS:
    cargo build --release
    {{python}} tests/golden/check_onnx.py "$@"

# Hold a published id against transformers, from a clean cache: just check-published me/sst2 sst2:validation ROWS.parquet sentence (PYTHON)
[group('check')]
check-published ID DATA ROWS TEXT:
    cargo build --release
    mkdir -p target/published
    target/release/lowchurn predict --model {{ID}} --data {{DATA}} --logits --output target/published/predictions.jsonl
    {{python}} tests/golden/check_published.py {{ID}} target/published/predictions.jsonl {{ROWS}} --text {{TEXT}}

# Make the golden numbers and the report's schema again, with PyTorch and scikit-learn (PYTHON); the diff shows what moved
[group('check')]
golden:
    {{python}} tests/golden/make.py
    {{python}} tests/golden/make_architectures.py
    {{python}} tests/golden/make_modernbert.py
    {{python}} tests/golden/make_updating.py
    {{python}} tests/golden/make_trained.py
    {{python}} tests/golden/make_served.py
    {{python}} tests/golden/make_states.py
    {{python}} tests/golden/make_relative.py
    {{python}} tests/golden/make_events.py
    {{python}} tests/golden/make_intervals.py
    {{python}} tests/golden/make_refit.py
    {{python}} tests/golden/make_neighbours.py
    {{python}} tests/golden/make_kinds.py
    {{python}} tests/golden/make_comparison.py
    {{python}} tests/golden/make_deviation.py
    {{python}} tests/golden/papers_examples.py > tests/golden/papers_examples.json
    {{python}} crates/models/tests/pickle/make.py
    {{python}} crates/churn/schema/make.py && mv report-v1.schema.json crates/churn/schema/

# A claim of a paper, run again: just experiment variance --small; goes on where it stopped, then makes its page
[group('measure')]
[no-exit-message]
experiment NAME *ARGS:
    @LOWCHURN_HUB_DIR="${LOWCHURN_HUB_DIR:-{{hub}}}" bash "experiments/$1/run.sh" "${@:2}"
    @{{python}} experiments/tables.py "$1"

# The pages and plots of all experiments from their lines; nothing is run
[group('measure')]
results *NAMES:
    @{{python}} experiments/tables.py "$@"

# The tutorial's pages with what the commands in them print now (PYTHON)
[group('use')]
docs *PAGES:
    cargo build --release
    {{python}} docs/run.py "$@"

# Step, products, padding, tokenisation, evaluation, peak memory: every number that is claimed
[group('measure')]
bench *ARGS:
    cargo bench --bench speed -- "$@"

# Two prediction files of a million rows each, read, aligned and compared: seconds, rows/s, peak memory
[group('measure')]
bench-compare *ARGS:
    cargo bench -p lowchurn-churn --bench million -- "$@"

# The same in seconds, so that the benches keep working; PyTorch's side only where PYTHON has it
[group('measure')]
bench-smoke:
    cargo bench --bench speed -- --smoke
    cargo bench -p lowchurn-churn --bench million -- 20000
    cargo build --release
    {{python}} benches/peer/pair.py --smoke
    {{python}} benches/peer/page.py target/peer/smoke.jsonl > target/peer/smoke.md

# The same jobs in PyTorch with transformers' Trainer, in turn with ours, hours long: just bench-peer --rows 3200 (--help)
[group('measure')]
bench-peer *ARGS:
    cargo build --release
    @{{python}} benches/peer/pair.py "$@"

# A training step of each architecture at its usual small size, ours and transformers' eager form in turn, 12 minutes (--help)
[group('measure')]
bench-architectures *ARGS:
    cargo build --release
    @{{python}} benches/peer/architectures.py "$@"

# BENCHMARKS.md and README's table from the lines in benches/peer/results, which bench-peer and bench-architectures wrote
[group('measure')]
bench-page:
    {{python}} benches/peer/page.py

# For NVIDIA: builds with nvcc from the PATH, else with CUDA's wheels (2 GB); no card needed. Then: --device cuda
[group('cuda')]
build-cuda *ARGS: (_with-cuda "build" ARGS)

# That the code for CUDA and its tests are sound: needs no card and no CUDA, a stand-in for nvcc leaves the kernels empty
[group('cuda')]
check-cuda *ARGS:
    PATH="$PWD/tests/stub:$PATH" CUDA_COMPUTE_CAP=90 cargo check --release --features cuda --target-dir target/cuda-check --tests {{ARGS}}

# On a machine with a card: logits, gradients and losses against the CPU's, then a run beside PyTorch's on the same card (PYTHON)
[group('cuda')]
gpu-check MODEL DATA:
    #!/usr/bin/env bash
    set -euo pipefail
    just _with-cuda test --test gpu -- --nocapture
    just _with-cuda build
    rows='{{DATA}}:train[:9600]'
    target/cuda/release/lowchurn doctor
    target/cuda/release/lowchurn finetune "$rows" --model {{MODEL}} --device cuda --epochs 1 --eval-split none --fresh --json --output target/cuda/run | tail -1
    target/cuda/release/lowchurn finetune "$rows" --model {{MODEL}} --device cuda --bf16 --epochs 1 --eval-split none --fresh --json --output target/cuda/run | tail -1
    {{python}} benches/peer/finetune.py --model {{MODEL}} --data "$rows" --epochs 1 --group-by-length
    {{python}} benches/peer/finetune.py --model {{MODEL}} --data "$rows" --epochs 1 --group-by-length --bf16

# cargo VERB with the cuda feature, in a target folder of its own: its features would compile all of candle again
_with-cuda VERB *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v nvcc >/dev/null; then
        home=$PWD/target/cuda
        cu=$(echo "$home"/venv/lib/python3*/site-packages/nvidia/cu13)
        if [ ! -x "$cu/bin/nvcc" ]; then
            {{python}} -m venv "$home/venv"
            "$home/venv/bin/pip" install -q nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.88 \
                nvidia-cuda-nvrtc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85 'nvidia-cublas>=13.0,<13.1' nvidia-curand==10.4.0.35
            cu=$(echo "$home"/venv/lib/python3*/site-packages/nvidia/cu13)
        fi
        # The layout that build scripts look for: wheels carry versioned libraries only, and no driver.
        tools=$home/toolkit
        mkdir -p "$tools/lib64"
        for part in bin include nvvm; do ln -sfn "$cu/$part" "$tools/$part"; done
        for library in "$cu"/lib/lib*.so.*; do
            name=$(basename "$library")
            ln -sf "$library" "$tools/lib64/$name"
            ln -sf "$library" "$tools/lib64/${name%%.so.*}.so"
        done
        [ -e "$tools/lib64/libcuda.so" ] || cc -shared -Wl,-soname,libcuda.so.1 -o "$tools/lib64/libcuda.so" -x c /dev/null
        export CUDA_HOME=$tools CUDA_PATH=$tools CUDA_ROOT=$tools PATH=$tools/bin:$PATH
        export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
        export RUSTFLAGS="-L native=$tools/lib64 -C link-arg=-Wl,--unresolved-symbols=ignore-all"
    fi
    cargo {{VERB}} --release --features cuda --target-dir target/cuda {{ARGS}}
