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

# field KEY FILE : a number of the last JSON line of a file.
field() { tail -n 1 "$2" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# middle N... : their median.
middle() { printf '%s\n' "$@" | sort -g | sed -n "$((($# + 1) / 2))p"; }

# ratio NAME OURS THEIRS GOAL : one result; more is better.
ratio() { awk -v n="$1" -v a="$2" -v b="$3" -v g="$4" 'BEGIN { printf "%s %.4g %.4g %.2f %s\n", n, a, b, a / b, g }'; }
