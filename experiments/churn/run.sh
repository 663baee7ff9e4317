#!/usr/bin/env bash
# Paper 1's protocol (2106.02654) on text: 1,000 rows for the deployed model with 100 for early stopping, 1,000 more for its
# successor, judged on 2,000 others, all drawn anew with each seed; of a task whose name ends in -5k five times as many but for the last.
# Every baseline of the paper and some more, each part of them a sweep and a line; `tuned` has the rest of each one's grid. The paper's own
# grids weren't at hand: these are ours, some of them as in published code.
# The successor's head and order are of another seed than the deployed model's. All rows are from the training file, so IMDb's and AG
# News's own test splits aren't touched.
#   run.sh --small   the shipped encoder, two seeds of SST-2 and AG News, without `tuned` and `seven`
#   run.sh           twenty seeds, IMDb and more rows of SST-2 too, the transformer from scratch on IMDb, and MiniLM with five
# Both train the same settings, so that a line of the one is a line of the other. Others are named like
#   TASKS="sst2 imdb" ENCODERS="tiny:42,43 minilm-l6:42" PARTS="cold warm" run.sh
source "$(dirname "$0")/../lib.sh"
hub
here=experiments/churn
imdb=runs/experiments/parquet/stanfordnlp--imdb/plain_text/train-00000-of-00001.parquet # where draw.py keeps it
tasks=${TASKS:-sst2 ag_news imdb sst2-5k}
[ -z "$small" ] || tasks=${TASKS:-sst2 ag_news}
encoders=${ENCODERS:-tiny:$(seq -s, 42 61) scratch:$(seq -s, 42 61) minilm-l6:42,43,44,45,46}
[ -z "$small" ] || encoders=tiny:42,43
parts=${PARTS:-cold objective tuned warm neighbours ensembles seven}
[ -z "$small" ] || parts=${PARTS:-cold objective warm neighbours ensembles}
known() { # WHAT WORD KNOWN...
    [[ " ${*:3} " == *" $2 "* ]] || { echo "churn: $1 $2 is unknown; known: ${*:3}" >&2 && exit 2; }
}
for word in $tasks; do known task "${word%-5k}" sst2 ag_news imdb; done
for word in $encoders; do known encoder "${word%%:*}" tiny scratch minilm-l6; done
for word in $parts; do known part "$word" cold objective tuned warm neighbours ensembles seven; done

draw() {
    local from=("$python" experiments/draw.py) times=1
    [[ $1 != *-5k ]] || times=5
    case ${1%-5k} in
        sst2) from+=(stanfordnlp/sst2 data/train-00000-of-00001.parquet "$3" --text sentence --names negative,positive) ;;
        ag_news) from+=("$ag_news" data/train-00000-of-00001.parquet "$3" --names World,Sports,Business,Sci/Tech) ;;
        imdb) from+=(stanfordnlp/imdb plain_text/train-00000-of-00001.parquet "$3" --names neg,pos) ;;
    esac
    "${from[@]}" --seed "$2" train=$((1000 * times)) validation=$((100 * times)) new=$((1000 * times)) test=2000
    # The first two are splits of one folder, the others files of their own.
    mkdir -p "$3/old" && mv "$3/train.jsonl" "$3/validation.jsonl" "$3/old"
    cat "$3/old/validation.jsonl" "$3/test.jsonl" >"$3/judged.jsonl"
}

trained() { # ROWS FOLDER SEED: nothing where it is there
    local from=(--model "$encoder" --epochs 3 --learning-rate 1e-3) length=64
    [ "${task%-5k}" != imdb ] || length=128
    case $encoder in
        minilm-l6) from=(--model "$encoder" --epochs 3 --learning-rate 1e-4) ;;
        scratch)
            length=200
            from=(--model "$out/scratch/encoder" --from-scratch --epochs 5 --learning-rate 1e-3 --schedule constant --weight-decay 0)
            [ -f "$out/scratch/encoder/config.json" ] || "$python" $here/scratch.py "$imdb" "$out/scratch/encoder"
            ;;
    esac
    lowchurn finetune "$1" "${from[@]}" "${precision[@]}" --output "$2" --seed "$3" --batch-size 32 --max-length $length
}
# The deployed model of a seed.
deployed() {
    [ -f "$dir/judged.jsonl" ] || draw "$task" "$n" "$dir"
    trained "$dir/old" "$dir/base" "$n"
}

# What paper 1 argues from: a model's loss over rows by labels, and by the deployed model's scores. Neither was trained on the rows.
objective() {
    deployed
    mkdir -p "$dir/both"
    cat "$dir/old/train.jsonl" "$dir/new.jsonl" >"$dir/both/train.jsonl"
    cp "$dir/old/validation.jsonl" "$dir/both"
    trained "$dir/both" "$dir/retrained" $((n + 1000))
    for side in base retrained; do
        lowchurn predict --model "$dir/$side" --data "$dir/test.jsonl" "${precision[@]}" --logits --output "$dir/$side.jsonl"
    done
    "$python" $here/objective.py "$dir/base.jsonl" "$dir/retrained.jsonl" data="$task" encoder="$encoder" seed="$n"
}

# One part of the settings, in a sweep's folder; the line has a point for each.
part() { # NAME FOLDER FLAG...
    [[ " $parts " == *" $1 "* ]] || return 0
    once "$key $1" swept "$@"
}
swept() {
    local part=$1 folder=$2
    shift 2
    deployed
    lowchurn sweep --base "$dir/base" --new "$dir/new.jsonl" --holdout "$dir/judged.jsonl" --tables "$dir/tables" --output "$dir/$folder" \
        --seed $((n + 1000)) "${precision[@]}" "$@"
    "$python" $here/points.py "$dir/$folder" "$part" data="$task" encoder="$encoder" seed="$n"
}

lambdas=0.1,0.3,0.5,0.7,0.9
methods() { for method in "$@"; do echo --method "$method"; done; }
cold=$(methods retrain distil distil:divergence=logit-mse,lambda=0.1 distil:divergence=logit-mse,lambda=0.5 anchor:lambda=0.5 \
    anchor-rcp:lambda=0.5,eta=0.5 anchor-rcp:lambda=0.8,eta=0.6 anchor-rcp:lambda=0.8,eta=0.6,smoothed=true mixup:alpha=0.2 \
    bi-tempered:t1=0.7,t2=2 bi-tempered:t1=0.3,t2=4 confidence-penalty:beta=0.1 entropy-minimisation:alpha=0.1 co-distil:beta=0.5 \
    shrink-perturb:shrink=0.4,perturb=0.1)
# What of the grids isn't in `cold` and `near` (of k-NN smoothing β up to 0.5 and k up to 100), and the constraint on
# churn itself.
tuned=$(
    methods distil:lambda=churn\<=0.05 distil:lambda=churn\<=0.1 distil:divergence=logit-mse,lambda=0.01 \
        distil:divergence=logit-mse,lambda=0.9 anchor:lambda=0.2 anchor:lambda=0.8 mixup:alpha=0.1 mixup:alpha=0.5 mixup:alpha=0.9 \
        confidence-penalty:beta=0.01 confidence-penalty:beta=0.5 entropy-minimisation:alpha=0.01 entropy-minimisation:alpha=0.5 \
        co-distil:beta=0.1 co-distil:beta=1 co-distil:beta=2 shrink-perturb:shrink=0.2,perturb=0.1 \
        shrink-perturb:shrink=0.6,perturb=0.1 shrink-perturb:shrink=0.8,perturb=0.1
    for t1 in 0.3 0.5 0.7; do
        for t2 in 2 4; do [ $t1-$t2 = 0.7-2 ] || [ $t1-$t2 = 0.3-4 ] || methods bi-tempered:t1=$t1,t2=$t2; done
    done
    for a in 0.1 0.5 0.9; do
        for b in 0 0.5; do
            for k in 10 100; do
                case $a-$b-$k in 0.1-0-10 | 0.5-0-10 | 0.5-0.5-10 | 0.5-0-100) ;; *) methods knn-smoothing:alpha=$a,beta=$b,k=$k ;; esac
            done
        done
    done
    for a in 0.2 0.4 0.6 0.8; do
        for eta in 0.6 0.8 1; do [ $a-$eta = 0.8-0.6 ] || methods anchor-rcp:lambda=$a,eta=$eta; done
    done
)
near=$(methods knn-smoothing:alpha=0.1,beta=0,k=10 knn-smoothing:alpha=0.5,beta=0,k=10 knn-smoothing:alpha=0.5,beta=0.5,k=10 \
    knn-smoothing:alpha=0.5,beta=0,k=100)
warm=$(methods retrain distil anchor-rcp:lambda=0.8,eta=0.6 l2-old:strength=0.01 l2-old:strength=0.1 ewc mixout:p=0.5)

seeds_of_all() { sed 's/[^ ]*://g' <<<"$encoders" | tr ' ,' '\n\n' | sort -nu; }
for n in $(seeds_of_all); do
    for entry in $encoders; do
        encoder=${entry%%:*}
        [[ ",${entry#*:}," == *",$n,"* ]] || continue
        for task in $tasks; do
            [ "$encoder" != scratch ] || [ "$task" = imdb ] || continue
            dir=$out/$encoder/$task/$n key="$task $encoder $n"
            # Where f32 takes hours.
            case "$encoder $task" in
                minilm-l6* | "tiny imdb"*) precision=(--bf16) ;;
                *) precision=() ;;
            esac
            # shellcheck disable=SC2086 # words of a list
            part cold cold --init cold --interpolate none --lambda $lambdas --smoothing 0.1,0.5 $cold
            # shellcheck disable=SC2086
            part tuned tuned --init cold --interpolate none --smoothing 0.3,0.7,0.9 $tuned
            # shellcheck disable=SC2086
            part warm warm --init warm --interpolate 0.25,0.5,0.75 --lambda $lambdas $warm
            # shellcheck disable=SC2086
            part neighbours neighbours --init cold --interpolate none $near
            [[ " $parts " != *" objective "* ]] || once "$key objective" objective
            # The first seed's retrain is that of the cold part.
            part ensembles cold --init cold --interpolate none --method retrain --seeds 5 --ensemble-of 3,5
            part seven cold --init cold --interpolate none --method retrain --seeds 7 --ensemble-of 7
        done
    done
done
