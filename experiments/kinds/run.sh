#!/usr/bin/env bash
# A run a task: pairs, several classes, many classes, sets of labels, numbers; MiniLM, products in bf16. go_emotions in PyTorch too,
# with the same rows, checkpoint and settings (PYTHON has torch, transformers, scikit-learn and pyarrow there).
source "$(dirname "$0")/../lib.sh"
hub

train() { # TASK FLAG...: what finetune says at its end
    lowchurn finetune "$@" --model minilm-l6 --bf16 --fresh --output "$out/$1" --json | tail -1
}
once "mrpc" train mrpc --epochs 3 --learning-rate 1e-4 --max-length 96
once "trec" train trec --epochs 3 --learning-rate 1e-4 --eval-split test --max-length 48
once "stsb" train stsb --epochs 4 --learning-rate 1e-4 --max-length 64
once "banking77" train banking77 --epochs 3 --learning-rate 4e-4 --eval-split test --max-length 48
once "clinc_oos" train clinc_oos --train-split 'train[:15250]' --epochs 2 --learning-rate 4e-4 --max-length 32
emotions=(--epochs 1 --batch-size 16 --learning-rate 1e-4 --max-length 32)
seeds="42 43 44"
[ -z "$small" ] || seeds=42
for seed in $seeds; do
    once "go_emotions, seed $seed" train go_emotions --train-split 'train[:12000]' --eval-split validation "${emotions[@]}" --seed "$seed"
    [ -n "$small" ] ||
        once "go_emotions in PyTorch, seed $seed" "$python" experiments/kinds/peer.py --rows 12000 "${emotions[@]}" --seed "$seed"
done
