# Student-teacher deviations on text: slopes of self-distilled students and of students of a larger teacher, losses that are
# switched in the middle, teachers that are trained little, much, and on wrong labels. Small: tiny, 800 rows, two seeds; SEEDS="3 4 5"
# makes others.
source "$(dirname "$0")/../lib.sh"
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-1}
hub

mark=
if [ -n "$small" ]; then
    base=tiny large=minilm-l6 large_epochs=2 rows=800 seeds=${SEEDS:-1 2} sets="sst2 mrpc cola ag_news_20k imdb" large_sets="sst2 ag_news_20k mrpc"
else
    # Runs of this size have keys and folders of their own.
    mark="full " out=$out/full
    mkdir -p "$out"
    base=minilm-l6 large=${LARGE:-bert-base-uncased} large_epochs=3 rows=20000 seeds=${SEEDS:-1 2 3 4 5} sets="sst2 mrpc cola ag_news_20k imdb" large_sets="sst2 mrpc cola ag_news_20k imdb"
fi

# Of 1,500 tickets a third is to test on.
tickets=$((rows < 1000 ? rows : 1000))
# AG News of another place than the 20,000 rows: the whole set, whose rows are in no order.
whole_ag_news=fancyzhx/ag_news
# The task of a set; keys and folders have the set's name.
task() { if [ "$1" = ag_news_20k ] && [ "${AG_NEWS:-}" = $whole_ag_news ]; then echo ag_news; else echo "$1"; fi; }

# The rows of a set: `of DATA train` or `of DATA test`. IMDb and the 20,000 of AG News have their classes one after the other.
of() {
    local half=$((rows / 2)) quarter=$((rows / 4))
    [ "$half" -le 12000 ] || half=12000
    [ "$quarter" -le 4500 ] || quarter=4500
    case $(task "$1")-$2 in
        ag_news-test) echo "test[:1000]" ;;
        ag_news_20k-train)
            echo "train[:$quarter]+train[5000:$((5000 + quarter))]+train[10000:$((10000 + quarter))]+train[15000:$((15000 + quarter))]"
            ;;
        ag_news_20k-test) echo "train[4750:5000]+train[9750:10000]+train[14750:15000]+train[19750:]" ;;
        imdb-*) echo "$2[$((12500 - half)):$((12500 + half))]" ;;
        tickets-train) echo "train[:$tickets]" ;;
        tickets-test) echo "train[$tickets:]" ;;
        *-train) echo "train[:$rows]" ;;
        *-test) echo "validation[:1000]" ;;
    esac
}

# teacher NAME DATA SEED EPOCHS BASE [TRAIN]: a run of labels; TRAIN is another file to train on.
teacher() {
    local data train
    data=$(task "$2")
    train=$(of "$2" train)
    [ -z "${6:-}" ] || data=$6 train="train"
    [ -f "$out/$1/manifest.json" ] || lowchurn finetune "$data" --model "$5" --train-split "$train" --eval-split none --seed "$3" \
        --epochs "$4" --fresh-head --output "$out/$1" ${keep:-}
}

# student NAME TEACHER DATA SEED EPOCHS LAMBDA T: a run that follows one.
student() {
    [ -f "$out/$1/manifest.json" ] || lowchurn distil "$(task "$3")" --model "$base" --train-split "$(of "$3" train)" --eval-split none --seed "$4" \
        --epochs "$5" --fresh-head --teacher "$out/$2" --tables "$out/tables" --lambda "$6" --temperature "$7" --output "$out/$1" ${keep:-}
}

# diagnose STUDENT TEACHER DATA KEY=VALUE...: a line of what the slopes are.
diagnose() {
    local student=$1 teacher=$2 data=$3
    shift 3
    lowchurn diagnose --json --teacher "$out/$teacher" --student "$out/$student" --data "$(task "$data"):$(of "$data" test)" \
        --train-data "$(task "$data"):$(of "$data" train)" --output "$out/$student/diagnosis" ${directions:-} |
        "$python" experiments/deviations/line.py data="$data" "$@"
}

# Teacher and student, the student's seed another than the teacher's.
pair() {
    local name=$1 told=$2 data=$3 seed=$4 epochs=$5 lambda=$6 t=$7
    shift 7
    student "$name" "$told" "$data" $((seed + 100)) "$epochs" "$lambda" "$t"
    diagnose "$name" "$told" "$data" seed="$seed" lambda="$lambda" temperature="$t" epochs="$epochs" "$@"
}

for seed in $seeds; do
    for data in $sets; do
        teacher "self-$data-$seed" "$data" "$seed" 4 "$base" >&2
        for t in 1 2 4; do
            [ -z "$small" ] || [ $t != 2 ] || continue
            once "${mark}self $data T $t seed $seed" pair "self-$data-$seed-t$t" "self-$data-$seed" "$data" "$seed" 4 1 $t what=self
        done
        once "${mark}self $data λ 0.5 seed $seed" pair "self-$data-$seed-half" "self-$data-$seed" "$data" "$seed" 4 0.5 1 what=self
    done
done

# What any other model of these rows looks like beside a teacher: the teacher of the next seed, of the first one for the last, in the student's place.
order=($seeds)
for at in "${!order[@]}"; do
    seed=${order[at]} other=${order[(at + 1) % ${#order[@]}]}
    [ "$seed" != "$other" ] || continue
    for data in $sets; do
        once "${mark}null $data seed $seed" diagnose "self-$data-$other" "self-$data-$seed" "$data" seed="$seed" other="$other" lambda=none what=independent
    done
done

# What the advice says: the same student trained shorter and longer.
for seed in $seeds; do
    for epochs in 2 12; do
        once "${mark}length sst2 epochs $epochs seed $seed" pair "length-$epochs-$seed" "self-sst2-$seed" sst2 "$seed" $epochs 1 1 what=length
    done
done

for data in $large_sets; do
    teacher "large-$data" "$data" 1 "$large_epochs" "$large" >&2
    for seed in $seeds; do
        once "${mark}large $data T 1 seed $seed" pair "large-$data-$seed" "large-$data" "$data" "$seed" 4 1 1 what=large
    done
done

# One epoch and twelve: a teacher that doesn't fit its rows, and one that does. T 4, for at T 1 what the second one says is its labels.
for seed in $seeds; do
    for told in 1 12; do
        teacher "switch-$told-$seed" sst2 "$seed" $told "$base" >&2
        for lambda in 0 1 1..0@25% 1..0@50% 1..0@75% 0..1@25% 0..1@50% 0..1@75%; do
            once "${mark}switch T 4 teacher epochs $told λ $lambda seed $seed" \
                pair "switch-t4-$told-$seed-$lambda" "switch-$told-$seed" sst2 "$seed" 4 "$lambda" 4 what=switch teacher_epochs=$told
        done
    done
done

# A fifth of the labels wrong; the student follows the teacher, or learns the wrong labels itself.
for seed in $seeds; do
    noisy=$out/noisy-$seed.jsonl
    "$python" experiments/deviations/noise.py "$tickets" 0.2 "$seed" >"$noisy"
    teacher "noise-$seed" tickets "$seed" 12 "$base" "$noisy" >&2
    once "${mark}noise teacher seed $seed" diagnose "noise-$seed" "noise-$seed" tickets what=noise lambda=none seed="$seed"
    once "${mark}noise student seed $seed" pair "noise-$seed-student" "noise-$seed" tickets "$seed" 12 1 4 what=noise
done

# Checkpoints, for the directions: two runs of one base, on labels and on the first one's logits.
keep="--keep-checkpoints --save-steps 10" directions="--directions 6"
for seed in $seeds; do
    for data in sst2 tickets; do
        teacher "ways-$data-$seed" "$data" "$seed" 4 "$base" >&2
        once "${mark}ways $data seed $seed" pair "ways-$data-$seed-student" "ways-$data-$seed" "$data" "$seed" 4 1 1 what=ways
    done
done
