#!/usr/bin/env bash
# MiniLM fine-tuned on SST-2 into students of its own layers, and of a tiny encoder with words of its own: accuracy kept, speed,
# size, churn. --small is a fifth of the rows; the whole set in full.
source "$(dirname "$0")/../lib.sh"
hub

rows='train[:12000]'
[ -n "$small" ] || rows=train
data=(sst2 --train-split "$rows" --bf16 --max-length 64 --epochs 2 --seed 42)
teacher=$out/teacher
students=(--teacher "$teacher" --tables "$out/tables")

measured() { # FOLDER: a line of its scores on the validation rows, beside the teacher's
    "$python" experiments/compression/measure.py "$binary" "$1" "$teacher" "$rows"
}
fine_tuned() {
    lowchurn finetune "${data[@]}" --model minilm-l6 --learning-rate 1e-4 --output "$teacher" &&
        measured "$teacher"
}
student() { # NAME START FLAG...
    local folder=$out/$1 start=$2
    shift 2
    lowchurn distil "${data[@]}" "${students[@]}" --student "$start" --output "$folder" "$@" &&
        measured "$folder"
}
cut() { # LAYERS: what a student of so many layers starts from
    [ -e "$out/start-$1/config.json" ] || lowchurn student "$teacher" --layers "$1" --output "$out/start-$1" >&2
}

once "teacher" fine_tuned
for layers in 3 2; do
    cut "$layers"
    once "$layers layers, labels alone" student "$layers-labels" "$out/start-$layers" --lambda 0 --learning-rate 2e-4
    once "$layers layers, labels and logits" student "$layers-logits" "$out/start-$layers" --lambda 0.7 --learning-rate 2e-4
    once "$layers layers, labels, logits and hidden states" student "$layers-hidden" "$out/start-$layers" --lambda 0.7 --hidden-weight 1 --learning-rate 2e-4
done
once "tiny, labels and logits" student tiny-logits tiny --lambda 0.7 --learning-rate 1e-3
