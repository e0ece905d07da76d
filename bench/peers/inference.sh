#!/usr/bin/env bash
# bench/peers/inference.sh SAILS PYTHON MODEL SAES LAYERS TOKENIZER PAIRS [RECORDS [NEW]] - scoring
# against transformers + SAELens and generation against transformers, alternately, in one run.
#
# Prints a line per pair: name, tokens/s of sails, tokens/s of the peer, ratio, goal. RECORDS pairs of
# the data (default 64) are scored, their first 16 prompts get NEW tokens each (default 64). Both
# sides' rates leave out loading; sails' include reading and tokenising the data. THREADS (default 2)
# holds for both. PYTHON needs torch, transformers, sae-lens and numpy.
set -euo pipefail
[ $# -ge 7 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
sails=$1 python=$2 model=$3 saes=$4 layers=$5 tokenizer=$6 pairs=$7 records=${8:-64} new=${9:-64}
here=$(cd "$(dirname "$0")" && pwd)
export THREADS=${THREADS:-2} HF_HUB_OFFLINE=1
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

for side in chosen rejected; do
    "$sails" tokenize --tokenizer "$tokenizer" --data "$pairs" --limit "$records" --side $side \
        --out "$scratch/$side.jsonl" >/dev/null
done
"$python" - "$scratch" <<'END'
import json, sys
lines = open(sys.argv[1] + "/chosen.jsonl", encoding="utf-8").readlines()[:16]
with open(sys.argv[1] + "/prompts.jsonl", "w", encoding="utf-8") as out:
    for record in map(json.loads, lines):
        prompt = record["tokens"][:record["labels"].index(1)]
        out.write(json.dumps({"tokens": prompt}) + "\n")
END

value() { "$python" -c 'import json, sys; r = json.loads(sys.stdin.readlines()[-1]); print(eval(sys.argv[1], r))' "$1"; }
score() { # DTYPE: tokens/s
    "$sails" score --model "$model" --tokenizer "$tokenizer" --sae "$saes/layer_{layer}/*/*/params.npz" \
        --layers "$layers" --data "$pairs" --limit "$records" --dtype "$1" --threads "$THREADS" \
        --out "$scratch/scores" --json | value 'tokens / seconds'
}
generate() {
    "$sails" generate --model "$model" --tokenizer "$tokenizer" --prompts "$scratch/prompts.jsonl" \
        --batch 8 --max-new-tokens "$new" --dtype "$1" --threads "$THREADS" \
        --out "$scratch/replies" --json | value tokens_per_second
}
line() { # NAME OURS OURS_AGAIN THEIRS GOAL; ours ran before and after theirs
    awk -v n="$1" -v a="$2" -v b="$3" -v t="$4" -v g="$5" \
        'BEGIN { o = 2 / (1 / a + 1 / b); printf "%s %.1f %.1f %.2f %s\n", n, o, t, o / t, g }'
}
for dtype in bf16 f32; do
    a=$(score $dtype)
    t=$("$python" "$here/score_saelens.py" "$model" "$saes" "$layers" "$scratch/chosen.jsonl" \
        "$scratch/rejected.jsonl" $dtype 2>/dev/null | value rate)
    line "score $dtype" "$a" "$(score $dtype)" "$t" 3
    a=$(generate $dtype)
    t=$("$python" "$here/generate_hf.py" "$model" "$scratch/prompts.jsonl" $dtype "$new" \
        2>/dev/null | value rate)
    line "generate $dtype" "$a" "$(generate $dtype)" "$t" 2
done
