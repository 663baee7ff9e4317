#!/usr/bin/env bash
# The runs behind README.md, small enough for one core: bash experiments/kinds/run.sh > lines.jsonl. HF_ENDPOINT names another hub;
# LOWCHURN another binary. Each line is what `finetune --json` says at its end.
set -euo pipefail
lowchurn=${LOWCHURN:-target/release/lowchurn}
runs=${RUNS:-runs/kinds}
train() {
    "$lowchurn" finetune "$@" --model minilm-l6 --bf16 --output "$runs/$1" --json 2>"$runs-$1.log" | tail -1
}
mkdir -p "$runs"
train stsb --epochs 4 --learning-rate 1e-4 --max-length 64
train go_emotions --train-split 'train[:12000]' --eval-split 'validation[:2000]' --epochs 1 --batch-size 16 --learning-rate 3e-4 --max-length 48
train mrpc --epochs 3 --learning-rate 1e-4 --max-length 96
train trec --epochs 3 --learning-rate 1e-4 --eval-split test --max-length 48
train banking77 --epochs 3 --learning-rate 4e-4 --eval-split test --max-length 48
train clinc_oos --train-split 'train[:15250]' --epochs 1 --learning-rate 4e-4 --max-length 32
