# inference.sh - scoring against transformers + SAELens and generation against transformers, at 2B
# width (4 layers, whole vocabulary; SAEs of 16k features on every layer), in tokens/s.
#
# RECORDS pairs of the data (64) are scored, the first 16 prompts get NEW tokens each (64). Rates
# leave out loading; sails' include reading and tokenising the data. Ours runs before and after
# theirs; of the two the mean time counts.
source "$HERE/common.sh"
RECORDS=${RECORDS:-64} NEW=${NEW:-64} LAYERS=0,1,2,3 SAES=$WORK/sae MODEL=$WORK/wide

# side NAME : ids and labels of one side of the pairs, as $WORK/NAME.jsonl.
side() {
    "$SAILS" tokenize --tokenizer "$TOKENIZER" --data "$DATA" --limit "$RECORDS" --side "$1" \
        --out "$WORK/$1.jsonl" >&2
}

# prompts : of the first documents what comes before the reply, as $WORK/prompts.jsonl.
prompts() {
    head -n 16 "$WORK/chosen.jsonl" | "$PYTHON" -c '
import json, sys
for line in sys.stdin:
    doc = json.loads(line)
    print(json.dumps({"tokens": doc["tokens"][:doc["labels"].index(1)]}))' >"$WORK/prompts.jsonl"
}

# score DTYPE, generate DTYPE : one run of sails; its last JSON line in $WORK/ours.
score() {
    "$SAILS" score --model "$MODEL" --sae "$SAES/layer_{layer}/*/*/params.npz" --layers $LAYERS \
        --data "$DATA" --limit "$RECORDS" --dtype "$1" --threads "$THREADS" \
        --out "$WORK/scores.safetensors" --json >"$WORK/ours"
    "$PYTHON" -c 'import json, sys; r = json.loads(sys.stdin.readlines()[-1])
print(r["tokens"] / r["seconds"])' <"$WORK/ours"
}
generate() {
    "$SAILS" generate --model "$MODEL" --prompts "$WORK/prompts.jsonl" --batch 8 \
        --max-new-tokens "$NEW" --dtype "$1" --threads "$THREADS" --out "$WORK/replies.jsonl" \
        --json >"$WORK/ours"
    field tokens_per_second "$WORK/ours"
}
their_score() {
    "$PYTHON" "$HERE/score_saelens.py" "$MODEL" "$SAES" $LAYERS "$WORK/chosen.jsonl" \
        "$WORK/rejected.jsonl" "$1"
}
their_generate() { "$PYTHON" "$HERE/generate_hf.py" "$MODEL" "$WORK/prompts.jsonl" "$1" "$NEW"; }

# pair WHAT DTYPE GOAL
pair() {
    local before after
    before=$("$1" "$2")
    "their_$1" "$2" 2>"$WORK/log" >"$WORK/theirs" || { cat "$WORK/log" >&2 && exit 1; }
    after=$("$1" "$2")
    ratio "$1-$2" "$(awk -v a="$before" -v b="$after" 'BEGIN { print 2 / (1 / a + 1 / b) }')" \
        "$(field rate "$WORK/theirs")" "$3"
}

checkpoint wide --preset 2b --layers 4 --tokenizer "$TOKENIZER"
side chosen
side rejected
prompts
[ -d "$SAES" ] || "$PYTHON" "$HERE/../../tools/make_random_saes.py" --model "$MODEL" \
    --layers $LAYERS --width 16384 --out "$SAES" >&2
for dtype in bf16 f32; do
    pair score $dtype 3
    pair generate $dtype 2
done
