#!/usr/bin/env bash
# Paper 1's protocol (2106.02654; papers.md 5.6) on text: 1,000 rows for the deployed model with 100 for early stopping, 1,000 more for its
# successor, judged on 2,000 others, all drawn anew with each seed. Every baseline that the program has, from both starts, by one sweep a
# seed. All rows are from the training file, so IMDb's and AG News's own test splits aren't touched.
#   run.sh --small   the shipped encoder, two seeds, two values of a knob;   run.sh   twenty seeds, nine values, and MiniLM with five
source "$(dirname "$0")/../lib.sh"
hub
here=experiments/churn-paper
tasks="sst2 ag_news imdb" encoders="tiny:42,43" lambdas=0.5,0.8 values="0.1 0.5"
[ -n "$small" ] || {
    encoders="tiny:$(seq -s, 42 61) minilm-l6:42,43,44,45,46"
    lambdas=0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 values="0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9"
}

draw() {
    local from=("$python" experiments/draw.py)
    case $1 in
        sst2) from+=(stanfordnlp/sst2 data/train-00000-of-00001.parquet "$3" --text sentence --names negative,positive) ;;
        ag_news) from+=(local-subset/ag_news_20k data/train-00000-of-00001.parquet "$3" --names World,Sports,Business,Sci/Tech) ;;
        imdb) from+=(stanfordnlp/imdb plain_text/train-00000-of-00001.parquet "$3" --names neg,pos) ;;
    esac
    "${from[@]}" --seed "$2" train=1000 validation=100 new=1000 test=2000
    # The first two are splits of one folder, the others files of their own.
    mkdir -p "$3/old" && mv "$3/train.jsonl" "$3/validation.jsonl" "$3/old"
}

# One seed: the deployed model, then every setting from it; the line has a point for each.
seed() {
    local dir=$out/$encoder/$task/$1
    local rate=(--learning-rate 1e-3)
    [ "$encoder" = tiny ] || rate=(--learning-rate 1e-4 --bf16)
    [ -f "$dir/test.jsonl" ] || draw "$task" "$1" "$dir"
    lowchurn finetune "$dir/old" --model "$encoder" --output "$dir/base" --seed "$1" "${rate[@]}" --epochs 3 --batch-size 32 \
        --max-length $length
    local methods=(--method retrain --method distil --method anchor --method co-distil --method shrink-perturb:shrink=0.4,perturb=0.1
        --method l2-old:strength=0.01 --method ewc --method mixout)
    for value in $values; do
        methods+=(--method mixup:alpha="$value" --method confidence-penalty:beta="$value" --method entropy-minimisation:alpha="$value"
            --method anchor-rcp:lambda="$value")
    done
    for t1 in 0.3 0.7; do methods+=(--method bi-tempered:t1=$t1,t2=2); done
    lowchurn sweep --base "$dir/base" --new "$dir/new.jsonl" --holdout "$dir/test.jsonl" --tables "$dir/tables" --output "$dir/sweep" \
        --seeds 1 --seed "$1" "${methods[@]}" --lambda $lambdas --smoothing "${values// /,}" --interpolate 0.25,0.5,0.75
    "$python" $here/points.py "$dir/sweep" data="$task" encoder="$encoder" seed="$1"
    rm -rf "$dir/base"/checkpoint-* "$dir/sweep/points"/*/*/predictions.jsonl
}

for entry in $encoders; do
    encoder=${entry%%:*} seeds=${entry#*:}
    for n in ${seeds//,/ }; do
        for task in $tasks; do
            length=64
            [ "$task" != imdb ] || length=128
            once "$task $encoder $n" seed "$n"
        done
    done
done
