#!/usr/bin/env bash
# models/tiny beside the same encoder with fresh weights, on tickets and SST-2: few rows and all of them, few epochs and many. SEEDS="42 43" names others.
source "$(dirname "$0")/../lib.sh"
hub

trained=models/tiny
fresh() { # SEED: the folder of that seed's fresh weights
    local folder=$out/fresh-$1
    [ -f "$folder/model.safetensors" ] || "$python" experiments/tiny/fresh.py "$trained" "$1" "$folder" >&2
    echo "$folder"
}
train() { # TASK FLAG...: what finetune says at its end
    lowchurn finetune "$@" --fresh-head --max-length 64 --fresh --output "$out/run" --json | tail -1
}
# compared NAME SEED TASK FLAG...: a run from either start
compared() {
    local name=$1 seed=$2
    shift 2
    once "$name, trained, seed $seed" train "$@" --model "$trained" --seed "$seed"
    once "$name, fresh, seed $seed" train "$@" --model "$(fresh "$seed")" --seed "$seed"
}

# The advice of models/tiny.toml but for the epochs.
advised=(--batch-size 16 --learning-rate 1e-3)
seeds=${SEEDS:-42 43 44 45 46}
[ -z "$small" ] || seeds=${SEEDS:-42 43}
for seed in $seeds; do
    for epochs in 4 8; do
        for rows in 250 500 1000; do
            compared "sst2, $rows rows, $epochs epochs" "$seed" sst2 --train-split "train[:$rows]" --eval-split validation \
                --epochs "$epochs" "${advised[@]}"
        done
        for rows in 250 500 1000 1200; do
            compared "tickets, $rows rows, $epochs epochs" "$seed" tickets --train-split "train[:$rows]" --eval-split 'train[1200:]' \
                --epochs "$epochs" "${advised[@]}"
        done
    done
    [ -n "$small" ] ||
        compared "sst2, 67349 rows, 1 epochs" "$seed" sst2 --train-split train --eval-split validation --epochs 1 --batch-size 64 \
            --learning-rate 1e-3 --bf16
done
