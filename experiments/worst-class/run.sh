#!/usr/bin/env bash
# Teacher by student objectives on uneven classes, the trade-off, the contrasts, and post-shifting: bash run.sh [--small]
source "$(dirname "$0")/../lib.sh"
hub

here=experiments/worst-class
if [ -n "$small" ]; then
    runs="ag_news:100:1 ag_news:10:1 hate_speech:1:1 banking77:100:1 ag_news:100:2 ag_news:10:2 hate_speech:1:2"
    base=(--model tiny --max-length 48)
    train=(--epochs 3)
    train_many=(--epochs 8)
else
    runs=
    for seed in 1 2 3 4 5; do
        for set in ag_news:100 ag_news:10 hate_speech:1 banking77:10 banking77:100 clinc:1; do runs+=" $set:$seed"; done
    done
    base=(--model minilm-l6)
    train=(--epochs 6)
    train_many=(--epochs 15)
fi
robust=robust:every=10,step=0.5

# What is kept of a model: its scores on the half of the held-out rows that nothing was chosen by.
score() { lowchurn --json eval --model "$1" --data "$data" --split test | "$python" "$here/scores.py"; }
of_labels() { # FOLDER OBJECTIVE: from labels alone
    lowchurn finetune "$data" "${how[@]}" --objective "$2" --output "$1" &&
        score "$1"
}
of_teacher() { # FOLDER OBJECTIVE TEACHER [FLAGS]: from a teacher's scores alone, by one of the same size
    lowchurn distil "$data" "${how[@]}" --teacher "$3" --lambda 1 --tables "$models/tables" --objective "$2" --output "$1" "${@:4}" &&
        score "$1"
}
shifted() { # FOLDER MODEL OBJECTIVE
    lowchurn post-shift "$2" --data "$data" --split validation --trained-on "$data/train.jsonl" --objective "$3" --output "$1" &&
        score "$1"
}

# Sets the names of one run: data, models, how, key.
names() { # SET:RATIO:SEED
    IFS=: read -r set ratio seed <<<"$1"
    data=$out/data/$set-$ratio
    [ -f "$data/test.jsonl" ] || "$python" "$here/long_tail.py" "$set" "$ratio" "$data"
    models=$out/${small:+small-}$set-$ratio-$seed
    local epochs=("${train[@]}")
    case $set in banking77 | clinc) epochs=("${train_many[@]}") ;; esac
    # The last weights, not the best of several evaluations: what selects is no part of the question.
    how=("${base[@]}" "${epochs[@]}" --seed "$seed" --eval-steps 1000000 --save-steps 1000000)
    key="${small:+small }set=$set ratio=$ratio seed=$seed"
}

for run in $runs; do
    names "$run"
    for objective in standard balanced "$robust"; do
        once "$key teacher=none student=${objective%%:*}" of_labels "$models/${objective%%:*}" "$objective"
    done
    for teacher in standard balanced robust; do
        for objective in standard balanced "$robust"; do
            student=${objective%%:*}
            once "$key teacher=$teacher student=$student" of_teacher "$models/$teacher-$student" "$objective" "$models/$teacher"
        done
    done
    for weight in 0.25 0.5 0.75; do
        once "$key teacher=standard student=robust weight=$weight" \
            of_teacher "$models/weight-$weight" "$robust" "$models/standard" --worst-class-weight "$weight"
    done
    once "$key teacher=standard student=group-dro" of_teacher "$models/group-dro" "$robust,form=weights" "$models/standard"
    once "$key teacher=standard student=teacher-steered" of_teacher "$models/steered" "$robust,labels=teacher" "$models/standard"
    once "$key teacher=standard student=ada-margin" of_teacher "$models/ada-margin" ada-margin "$models/standard"
done
for run in $runs; do
    names "$run"
    for objective in balanced robust; do
        once "$key teacher=standard student=post-shift-$objective" \
            shifted "$models/shifted-$objective" "$models/standard-standard" "$objective"
    done
done
