#!/usr/bin/env bash
# SST-2 as an update: old model on 1,000 rows, new one on those and 2,000 more, judged on 5,000 others. MiniLM, 2 epochs, 5 seeds.
# About an hour on two cores that have nothing else to do. What is there already is not computed again.
set -euo pipefail
cd "$(dirname "$0")/../.."
lowchurn() { cargo run --release --quiet -- "$@"; }
out=runs/experiments/sst2
lowchurn finetune sst2 --model minilm-l6 --train-split 'train[:1000]' --eval-split none \
    --epochs 2 --batch-size 32 --learning-rate 5e-5 --seeds 5 --output $out/old
sweep() {
    lowchurn sweep --base "$out/old/seed-{seed}" --new 'sst2:train[1000:3000]' --holdout 'sst2:train[60000:65000]' \
        --tables $out/tables --seeds 5 --output $out/sweep "$@"
}
sweep --method retrain --method distil --method anchor:lambda=0.5 --lambda 0.5,0.8 --interpolate 0.25,0.5,0.75
sweep --method retrain --smoothing 0.1 --init cold --interpolate none
cp $out/sweep/frontier.json experiments/updates/sst2.json
cp $out/sweep/frontier.md experiments/updates/sst2.md
cp $out/sweep/frontier.svg experiments/updates/sst2.svg
