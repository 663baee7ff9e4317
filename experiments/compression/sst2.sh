#!/usr/bin/env bash
# MiniLM fine-tuned on SST-2 into students of its own layers, and of a tiny encoder: accuracy kept, speed, size, churn.
# From the root: bash experiments/compression/sst2.sh; writes runs/compression and, a line each, experiments/compression/sst2.jsonl;
# then: python experiments/compression/table.py
set -euo pipefail
rows=${ROWS:-8000} epochs=${EPOCHS:-2} runs=${RUNS:-runs/compression}
lines=experiments/compression/sst2.jsonl
lowchurn() { target/release/lowchurn "$@"; }
data="sst2 --train-split train[:$rows] --bf16 --max-length 64 --epochs $epochs --eval-steps 0 --tables $runs/tables"

[ -e "$runs/teacher/manifest.json" ] || lowchurn finetune ${data% --tables *} --model minilm-l6 --output "$runs/teacher"
: > "$lines"
measure() { # NAME FOLDER HOW
    python3 experiments/compression/line.py "$1" "$2" "$3" "$runs/teacher" "$rows rows, $epochs epochs" >> "$lines"
}
measure teacher "$runs/teacher" "fine-tuned"

for layers in 3 2; do
    start=$runs/start-$layers
    [ -e "$start/config.json" ] || lowchurn student "$runs/teacher" --layers $layers --output "$start"
    lowchurn distil $data --teacher "$runs/teacher" --student "$start" --lambda 0.7 --output "$runs/logits-$layers"
    measure "$layers layers" "$runs/logits-$layers" "labels and logits"
    lowchurn distil $data --teacher "$runs/teacher" --student "$start" --lambda 0.7 --hidden-weight 1 --output "$runs/hidden-$layers"
    measure "$layers layers" "$runs/hidden-$layers" "labels, logits and hidden states"
done
lowchurn distil $data --teacher "$runs/teacher" --student tiny --lambda 0.7 --learning-rate 1e-3 --output "$runs/tiny"
measure "tiny" "$runs/tiny" "labels and logits, another tokenizer"
