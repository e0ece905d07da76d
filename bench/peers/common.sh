# common.sh - what the pairs share; read by them, with run.sh's environment.
set -euo pipefail

# checkpoint NAME FLAG... : a random model in $WORK/NAME, made once.
checkpoint() {
    local name=$1 && shift
    [ -d "$WORK/$name" ] || "$SAILS" init --out "$WORK/$name" "$@" >&2
}

# documents N : N pairs spread evenly over the data, as $WORK/docs.jsonl, and the ids and labels of
# their chosen replies, as $WORK/tokens.jsonl.
documents() {
    local reader=cat
    case $DATA in *.gz) reader=zcat ;; esac
    "$reader" "$DATA" >"$WORK/all.jsonl"
    awk -v every=$(($(wc -l <"$WORK/all.jsonl") / $1)) -v most="$1" \
        'NR % every == 1 % every && n++ < most' "$WORK/all.jsonl" >"$WORK/docs.jsonl"
    "$SAILS" tokenize --tokenizer "$TOKENIZER" --data "$WORK/docs.jsonl" --side chosen \
        --out "$WORK/tokens.jsonl" >&2
}

# token_files : short documents of $WORK/tokens.jsonl as the models see them, $WORK/wide.jsonl, and
# with ids folded into the 700 of the small tokenizer, $WORK/small.jsonl.
token_files() {
    "$PYTHON" -c '
import json, sys
for line in sys.stdin:
    if len(json.loads(line)["tokens"]) <= int(sys.argv[1]):
        print(line, end="")' "$LONGEST" <"$WORK/tokens.jsonl" >"$WORK/wide.jsonl"
    "$PYTHON" -c '
import json, sys
for line in sys.stdin:
    doc = json.loads(line)
    doc["tokens"] = [t if t < 3 else 3 + t % 697 for t in doc["tokens"]]
    print(json.dumps(doc))' <"$WORK/wide.jsonl" >"$WORK/small.jsonl"
}

# A tokenizer names special tokens, no more, where the documents are tokenised.
tokenizer_of() { [ "$1" = small ] && echo "$HERE/../../tests/golden/tokenizer_small.json" || echo "$TOKENIZER"; }

small_checkpoint() {
    checkpoint small --preset 2b --layers 8 --hidden 512 --ffn 2048 --heads 8 --kv-heads 4 \
        --head-dim 64 --vocab 32000
}

# ours MODEL DTYPE METHOD : a training run of four steps; the first warms up. Its rate, its tokens
# and its peak of memory beyond the weights go to $WORK/ours.
ours() {
    "$PYTHON" "$HERE/run_sails.py" "$WORK/$1" "$(tokenizer_of "$1")" "$WORK/$1.jsonl" "$2" \
        "$3" >"$WORK/ours"
}

# theirs SCRIPT ARG... : the same of a library's steps, to $WORK/theirs. Both must have had the same
# tokens.
theirs() {
    "$PYTHON" "$HERE/$1.py" "${@:2}" 2>"$WORK/log" >"$WORK/theirs" || { cat "$WORK/log" >&2 && exit 1; }
    [ "$(field tokens "$WORK/ours")" = "$(field tokens "$WORK/theirs")" ] ||
        { echo "$1: $(cat "$WORK/theirs"), but sails: $(cat "$WORK/ours")" >&2 && exit 1; }
}

# race NAME MODEL DTYPE METHOD GOAL SCRIPT ARG... : both sides in turns, ROUNDS times; of each the
# middle rate counts.
race() {
    local rates_a=() rates_b=()
    for ((i = 0; i < ROUNDS; i++)); do
        ours "$2" "$3" "$4"
        theirs "${@:6}"
        rates_a+=("$(field rate "$WORK/ours")") rates_b+=("$(field rate "$WORK/theirs")")
    done
    ratio "$1" "$(middle "${rates_a[@]}")" "$(middle "${rates_b[@]}")" "$5"
}

# field KEY FILE : a number of the last JSON line of a file.
field() { tail -n 1 "$2" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# middle N... : their median.
middle() { printf '%s\n' "$@" | sort -g | sed -n "$((($# + 1) / 2))p"; }

# ratio NAME OURS THEIRS GOAL : one result; more is better.
ratio() { awk -v n="$1" -v a="$2" -v b="$3" -v g="$4" 'BEGIN { printf "%s %.4g %.4g %.2f %s\n", n, a, b, a / b, g }'; }
