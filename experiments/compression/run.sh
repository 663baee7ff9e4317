#!/usr/bin/env bash
# MiniLM fine-tuned on SST-2 into students of its own layers, and of a tiny encoder with words of its own: accuracy kept, speed,
# size, churn. --small is a fifth of the rows; the whole set in full.
source "$(dirname "$0")/../lib.sh"
hub

mark= rows='train[:12000]'
# Runs of the full size have keys and folders of their own.
[ -n "$small" ] || mark="full " rows=train out=$out/full
data=(sst2 --train-split "$rows" --bf16 --max-length 64 --epochs 2 --seed 42)
teacher=$out/teacher
students=(--teacher "$teacher" --tables "$out/tables")

# The teacher of all; its line may be there from another machine, and its folder not.
taught() {
    [ -f "$teacher/manifest.json" ] || lowchurn finetune "${data[@]}" --model minilm-l6 --learning-rate 1e-4 --output "$teacher"
}
measured() { # FOLDER: a line of its scores on the validation rows, beside the teacher's
    "$python" experiments/compression/measure.py "$binary" "$1" "$teacher" "$rows"
}
fine_tuned() {
    taught && measured "$teacher"
}
student() { # NAME START FLAG...
    local folder=$out/$1 start=$2
    shift 2
    taught && lowchurn distil "${data[@]}" "${students[@]}" --student "$start" --output "$folder" "$@" &&
        measured "$folder"
}
smaller() { # NAME LAYERS FLAG...: a student that starts from some of the teacher's layers
    local name=$1 layers=$2 start=$out/start-$2
    shift 2
    taught
    [ -e "$start/config.json" ] || lowchurn student "$teacher" --layers "$layers" --output "$start" >&2
    student "$name" "$start" --learning-rate 2e-4 "$@"
}

once "${mark}teacher" fine_tuned
for layers in 3 2; do
    once "$mark$layers layers, labels alone" smaller "$layers-labels" $layers --lambda 0
    once "$mark$layers layers, labels and logits" smaller "$layers-logits" $layers --lambda 0.7
    once "$mark$layers layers, labels, logits and hidden states" smaller "$layers-hidden" $layers --lambda 0.7 --hidden-weight 1
done
once "${mark}tiny, labels and logits" student tiny-logits tiny --lambda 0.7 --learning-rate 1e-3
