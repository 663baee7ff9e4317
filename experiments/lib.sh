# What every experiment's run.sh has in common. A run.sh is in experiments/NAME and starts with
#
#     source "$(dirname "$0")/../lib.sh"
#
# and has then, in the repository's root: $small (yes, or nothing), $out (a folder for models and tables that git ignores),
# $results (results.jsonl), lowchurn (the program, built once), hub (what must be called before data of the hub are named),
# $ag_news (the repository of AG News's rows) and `once KEY COMMAND...`.
# RUNS, RESULTS and LOWCHURN put another folder, file or binary in their places; PYTHON names python3. KEYS is a pattern of bash that
# keys must fit to be run: KEYS='!(this|that)' runs all but two. The 20,000 rows of AG_NEWS's default aren't on the public hub;
# AG_NEWS=fancyzhx/ag_news draws from the whole training split, whose file has the same path and columns. Keys don't say which rows a
# line is of, so another AG_NEWS needs a RESULTS of its own, and its models are in a folder of its own.
set -euo pipefail

name=$(basename "$(cd "$(dirname "$0")" && pwd)")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
kept=experiments/$name/results.jsonl
results=${RESULTS:-$kept}
ours=local-subset/ag_news_20k
ag_news=${AG_NEWS:-$ours}
apart=
if [ "$ag_news" != $ours ]; then
    apart=/${ag_news//\//--}
    if [ "$results" = "$kept" ] || [ "$results" -ef "$kept" ]; then
        echo "$name: the rows of AG_NEWS=$ag_news are others than those of $kept, under the same keys;" \
            "name another file for its lines, such as RESULTS=runs/$name-whole.jsonl" >&2
        exit 2
    fi
fi
out=${RUNS:-runs/experiments$apart}/$name
small=
case "${1:-}" in
    "") ;;
    --small) small=yes ;;
    *) echo "$name: $1 is unknown; the one flag is --small" >&2 && exit 2 ;;
esac
mkdir -p "$out/logs"
touch "$results"

binary=${LOWCHURN:-target/release/lowchurn}
[ -n "${LOWCHURN:-}" ] || cargo build --release
version=$("$binary" --version)
# Of the scripts, and of the program where it was built here.
commit=$(git rev-parse --short=12 HEAD 2>/dev/null) && version+=" at $commit"
lowchurn() { "$binary" "$@"; }

# The hub: HF_ENDPOINT's, else a server of the data beside the clone where there is one, else the real one.
hub() {
    local folder=${LOWCHURN_HUB_DIR:-../shared/hub}
    if [ -z "${HF_ENDPOINT:-}" ] && [ -f "$folder/serve.py" ]; then
        coproc hub_server { exec "$python" "$folder/serve.py" --port 0; }
        hub_pid=$hub_server_PID
        trap 'kill "$hub_pid"' EXIT
        read -r HF_ENDPOINT <&"${hub_server[0]}"
        export HF_ENDPOINT HF_HOME=${HF_HOME:-$out/hf}
    fi
}

# once KEY COMMAND...: nothing where a line with this key is there already. Else the last line that COMMAND prints, an object
# of JSON, becomes a line of the results, with the key, seconds and version before it. What it says beside that is in a log,
# and is shown where it fails, which ends the experiment; the same command goes on from there.
once() {
    local key=$1 log started code
    shift
    # shellcheck disable=SC2053 # a pattern
    [[ $key == ${KEYS:-*} ]] || return 0
    mkdir -p "$out/logs" # a run.sh may have set $out to a folder in it
    log=$out/logs/$(tr -c 'a-zA-Z0-9.\n' - <<<"$key").log
    if "$python" experiments/tables.py has "$results" "$key"; then return; fi
    echo "$name: $key" >&2
    started=$EPOCHREALTIME
    # Not `if ! "$@"`: bash would go on behind an error inside a function.
    set +e
    (set -e; "$@") >"$log.out" 2>"$log"
    code=$?
    set -e
    if [ $code -ne 0 ]; then
        tail -5 "$log" >&2
        echo "$name: $key failed; all that it said is in $log" >&2
        exit 1
    fi
    "$python" experiments/tables.py line "$key" "$started" "$EPOCHREALTIME" "$version" <"$log.out" >>"$results"
    rm "$log.out"
}
