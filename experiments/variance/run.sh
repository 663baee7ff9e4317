#!/usr/bin/env bash
# Paper 4 (2305.17581): what a teacher does to the noise of plain SGD. A linear probe on frozen vectors (what the last layer reads of the
# first token), batches of 10, a constant step of 0.05 without clipping, as the paper's linear runs.
# The floor is measured from the optimum on, so nothing of the way there is in it; the curves start from a new last layer.
#   run.sh --small   the shipped encoder, one seed (SEEDS="43 44" for others), under 30 minutes on two cores;   run.sh   MiniLM too, five seeds, λ by tenths
source "$(dirname "$0")/../lib.sh"
hub
here=experiments/variance
seeds=${SEEDS:-42} encoders="tiny" lambdas="0.1 0.3 0.5 0.9 1"
[ -n "$small" ] || { seeds="42 43 44 45 46" encoders="tiny minilm-l6" lambdas="0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"; }
rows=2000

once "least squares" "$python" $here/least_squares.py

# said FOLDER KEY=VALUE...: the evaluations of a run, which are on the rows that it was trained on, as one line.
said() { "$python" $here/losses.py "$@"; }

probe=(--probe --max-length 64 --fresh --save-steps 0 --max-grad-norm 0)
steps=(--schedule constant --batch-size 10 --epochs 20 --eval-split train --eval-steps 100)
sgd=(--optimizer sgd --learning-rate 0.05)
adamw=(--optimizer adamw --learning-rate 1e-3)
# The rows and the last layer are another draw with each seed.
best=(--optimizer adamw --learning-rate 0.02 --schedule linear --eval-split none)

draw() {
    case $1 in
        sst2) "$python" experiments/draw.py stanfordnlp/sst2 data/train-00000-of-00001.parquet "$3" --text sentence \
            --names negative,positive --seed "$2" train=$rows few=60 ;;
        ag_news) "$python" experiments/draw.py "$ag_news" data/train-00000-of-00001.parquet "$3" \
            --names World,Sports,Business,Sci/Tech --seed "$2" train=$rows few=60 ;;
    esac
}

# A teacher: the optimum of the rows, a probe that was stopped early, or one that saw 60 other rows.
teacher() {
    case $1 in
        optimum) lowchurn finetune "$data" --model "$encoder" --output "$dir/optimum" --seed "$seed" "${probe[@]}" "${best[@]}" --batch-size $rows --epochs 3000 --eval-steps 3000 ;;
        good) lowchurn finetune "$data" --model "$encoder" --output "$dir/good" --seed "$seed" "${probe[@]}" "${best[@]}" --batch-size $rows --epochs 100 --eval-steps 100 ;;
        poor) lowchurn finetune "$dir/few.jsonl" --model "$encoder" --output "$dir/poor" --seed "$seed" "${probe[@]}" "${best[@]}" --batch-size 60 --epochs 100 --eval-steps 100 ;;
    esac
    # Judged on the same rows as all others.
    lowchurn eval --model "$dir/$1" --data "$data" --max-length 64 --json | said eval experiment=teacher data="$name_of" encoder="$encoder" teacher="$1" seed="$seed"
}

# run START REDUCTION LAMBDA TEACHER FLAGS...: one training, and its line.
run() {
    local start=$1 reduction=$2 lambda=$3 teacher=$4 folder=$dir/run
    shift 4
    rm -rf "$folder"
    if [ "$reduction" = none ] || [ "$reduction" = svrg ]; then
        local how=(--variance-reduction none)
        [ "$reduction" = none ] || how=(--variance-reduction svrg:start=0,every=2)
        lowchurn finetune "$data" --model "$start" --output "$folder" --seed "$seed" "${probe[@]}" "${steps[@]}" "${how[@]}" "$@"
    else
        lowchurn distil "$data" --student "$start" --teacher "$dir/$teacher" --tables "$dir/../tables" --output "$folder" --seed "$seed" \
            --lambda "$lambda" --variance-reduction "$reduction" "${probe[@]}" "${steps[@]}" "$@"
    fi
    said "$folder" experiment="$experiment" data="$name_of" encoder="$encoder" reduction="$reduction" lambda="$lambda" teacher="$teacher" seed="$seed"
}

# The whole encoder, without dropout: teachers of the same size from the same base, well trained, stopped early, and of 60 rows; students
# of 20 updates and of two epochs, whose gradients are measured in 200 batches of 10.
whole=(--max-length 64 --fresh --save-steps 0 --eval-split none --batch-size 10 --dropout 0)
whole_model() {
    case $1 in
        good) lowchurn finetune "$data" --model "$encoder" --output "$dir/whole-good" --seed "$seed" "${whole[@]}" --epochs 8 ;;
        early) lowchurn finetune "$data" --model "$encoder" --output "$dir/whole-early" --seed "$seed" "${whole[@]}" --max-steps 60 ;;
        poor) lowchurn finetune "$dir/few.jsonl" --model "$encoder" --output "$dir/whole-poor" --seed "$seed" "${whole[@]}" --epochs 30 ;;
        begun) lowchurn finetune "$data" --model "$encoder" --output "$dir/whole-begun" --seed $((seed + 100)) "${whole[@]}" --max-steps 20 ;;
        trained) lowchurn finetune "$data" --model "$encoder" --output "$dir/whole-trained" --seed $((seed + 100)) "${whole[@]}" --epochs 2 ;;
    esac
}

# The whole encoder by plain SGD from its base and a new last layer: descent REDUCTION LAMBDA TEACHER, and its line.
by_sgd=(--max-length 64 --fresh --save-steps 0 --max-grad-norm 0 --dropout 0 --optimizer sgd --learning-rate 0.02 --schedule constant
    --batch-size 10 --epochs 6 --eval-split train --eval-steps 100)
descent() {
    local reduction=$1 lambda=$2 teacher=$3 folder=$dir/run
    rm -rf "$folder"
    if [ "$reduction" = none ]; then
        lowchurn finetune "$data" --model "$encoder" --output "$folder" --seed "$seed" "${by_sgd[@]}"
    else
        lowchurn distil "$data" --student "$encoder" --teacher "$dir/whole-$teacher" --tables "$dir/../tables" --output "$folder" --seed "$seed" \
            --lambda "$lambda" --variance-reduction "$reduction" "${by_sgd[@]}"
    fi
    said "$folder" experiment=descent data="$name_of" encoder="$encoder" reduction="$reduction" lambda="$lambda" teacher="$teacher" seed="$seed"
}

# cosines STUDENT TEACHER [EXPERIMENT]: what `diagnose --gradients` says, as one line.
cosines() {
    lowchurn diagnose --teacher "$dir/whole-$2" --student "$dir/whole-$1" --data "$data" --gradients $((rows / 10)) --output "$dir/gradients" &&
        lowchurn eval --model "$dir/whole-$2" --data "$data" --max-length 64 --json | "$python" $here/cosines.py "$dir/gradients/gradients.json" \
            experiment="${3:-cosines}" data="$name_of" encoder="$encoder" student="$1" teacher="$2" seed="$seed"
}

for encoder in $encoders; do
    for seed in $seeds; do
        for name_of in sst2 ag_news; do
            dir=$out/$encoder/$name_of/$seed
            data=$dir/train.jsonl
            [ -f "$dir/few.jsonl" ] || draw $name_of "$seed" "$dir"
            what="$name_of $encoder $seed"
            for who in optimum good poor; do
                # Its folder is needed by the runs below, also where the line is there from another machine.
                [ -f "$dir/$who/model.safetensors" ] || drop=yes
                if [ -n "${drop:-}" ]; then
                    teacher $who >"$out/logs/teacher.out" 2>"$out/logs/teacher.log" || { tail -3 "$out/logs/teacher.log" >&2; exit 1; }
                    drop=
                fi
                once "teacher $who $what" teacher $who
            done
            experiment=floor
            once "floor none 0 none $what" run "$dir/optimum" none 0 none "${sgd[@]}"
            once "floor svrg 1 none $what" run "$dir/optimum" svrg 1 none "${sgd[@]}"
            for who in optimum good poor; do
                for lambda in $lambdas; do
                    for reduction in modified unbiased; do
                        once "floor $reduction $lambda $who $what" run "$dir/optimum" $reduction "$lambda" $who "${sgd[@]}"
                    done
                done
            done
            experiment=curve
            once "curve none 0 none $what" run "$encoder" none 0 none "${sgd[@]}"
            for lambda in 0.5 0.9; do
                once "curve kd $lambda optimum $what" run "$encoder" kd $lambda optimum "${sgd[@]}"
                once "curve kd $lambda poor $what" run "$encoder" kd $lambda poor "${sgd[@]}"
            done
            experiment=adamw
            once "adamw none 0 none $what" run "$dir/optimum" none 0 none "${adamw[@]}"
            for lambda in 0.5 0.9; do
                once "adamw modified $lambda optimum $what" run "$dir/optimum" modified $lambda optimum "${adamw[@]}"
            done
            for student in begun trained; do
                for who in good early poor; do
                    for model in $student $who; do
                        [ -f "$dir/whole-$model/model.safetensors" ] || whole_model $model >"$out/logs/whole.out" 2>"$out/logs/whole.log" ||
                            { tail -3 "$out/logs/whole.log" >&2; exit 1; }
                    done
                    once "cosines $student $who $what" cosines $student $who
                done
                # The same with the length of the mean gradient, which lines of cosines had not at first.
                once "signal $student early $what" cosines $student early signal
            done
            once "descent none 0 none $what" descent none 0 none
            for who in good early poor; do
                for lambda in 0.1 0.5 0.9; do
                    for reduction in kd modified unbiased; do
                        once "descent $reduction $lambda $who $what" descent $reduction $lambda $who
                    done
                done
            done
        done
    done
done
