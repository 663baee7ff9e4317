#!/usr/bin/env bash
# Tweets to airlines in the order of time: old model on 16 and 17 February 2015, new rows of the 22nd, on which American
# comes up for the first time, judged on the 23rd and 24th. MiniLM, 2 epochs. The slices are the airlines.
#   airline.sh FILE.parquet [SEEDS]        the file of osanseviero/twitter-airline-sentiment
set -euo pipefail
cd "$(dirname "$0")/../.."
lowchurn() { cargo run --release --quiet -- "$@"; }
out=runs/experiments/airline
seeds=${2:-1}
mkdir -p $out
"${PYTHON:-python3}" experiments/updates/airline_days.py "$1" $out
columns=(--text-column text --label-column label --id-column id)
lowchurn finetune $out/old.csv --model minilm-l6 "${columns[@]}" --eval-split none \
    --epochs 2 --batch-size 32 --learning-rate 5e-5 --seeds "$((seeds > 1 ? seeds : 2))" --output $out/old
sweep() {
    lowchurn sweep --base "$out/old/seed-{seed}" --new $out/new.csv --holdout $out/test.csv "${columns[@]}" --slice airline \
        --tables $out/tables --seeds "$seeds" --output $out/sweep "$@"
}
sweep --method retrain --method distil:lambda=0.5 --init warm --interpolate 0.25,0.5,0.75
sweep --method retrain --init cold --interpolate none
cp $out/sweep/frontier.json experiments/updates/airline.json
cp $out/sweep/frontier.md experiments/updates/airline.md
cp $out/sweep/frontier.svg experiments/updates/airline.svg
lowchurn compare $out/sweep/old/seed-42.jsonl $out/sweep/points/distil-warm-l-0.5/seed-42/predictions.jsonl \
    --data $out/test.csv "${columns[@]}" --slice airline \
    --retrain $out/sweep/points/retrain-cold/seed-42/predictions.jsonl --output $out/compare
"${PYTHON:-python3}" experiments/updates/slices.py $out/compare/report.json airline > experiments/updates/airline-slices.md
