#!/usr/bin/env bash
# Makes the tiny encoder, from the root, with the hub of ../shared/hub (HF_ENDPOINT, HF_HOME) and `cargo build --release`; make.log
# is what it wrote. Ctrl-C saves, the same command goes on.
set -euo pipefail
lowchurn() { target/release/lowchurn "$@"; }
texts=(--data sst2 --data 'airline:train[:8000]' --data banking77 --data clinc_oos --data trec --data cola --data 'ag_news:test[:3000]'
    --data 'imdb:train[:600]' --data 'imdb:train[-600:]')
lowchurn student minilm-l6 --width 128 --heads 2 --layers 2 --intermediate 512 --positions 128 --vocabulary 4000 "${texts[@]}" \
    --output runs/tiny/start
follow=(--task-agnostic --teacher minilm-l6 "${texts[@]}" --vector-weight 1 --bf16 --max-length 64 --batch-size 64 --dropout 0 --seed 1
    --tables runs/tiny/tables --logging-steps 200)
# By the mean of its last states it learns what words mean; then what the head will read learns to say it.
lowchurn distil "${follow[@]}" --student runs/tiny/start --student-vector mean --learning-rate 2e-3 --warmup-steps 200 --max-steps 4000 \
    --output runs/tiny/mean
lowchurn distil "${follow[@]}" --student runs/tiny/mean --student-vector pooled --learning-rate 1e-3 --warmup-steps 100 --max-steps 1500 \
    --output runs/tiny/pooled
for name in config.json model.safetensors tokenizer.json tokenizer_config.json vocab.txt; do cp "runs/tiny/pooled/$name" models/tiny/; done
