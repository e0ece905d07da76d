# train.sh - a LoRA step, tokens/s and memory: sails against transformers + PEFT as users run it (the
# plain loop, which is faster on the CPU than TRL's SFTTrainer; PAIR_TRL=1 runs that one too) and
# against the best packed PyTorch we can write. At 2B width (4 layers, whole vocabulary), and a
# small model (512 wide, 8 layers, 32,000 pieces: the documents' ids are folded into
# the 700 of a small tokenizer).
#
# DOCS documents (64), ROUNDS times each side (2). Documents longer than LONGEST tokens (384) are left
# out: a padded batch of 8 with one of 512 takes transformers more memory than 24 GB.
source "$HERE/common.sh"
DOCS=${DOCS:-64} ROUNDS=${ROUNDS:-2} LONGEST=${LONGEST:-384}

# ours MODEL DTYPE : a training run of four steps; the first warms up. Its rate and its peak of
# memory beyond the weights go to $WORK/ours.
ours() {
    "$PYTHON" "$HERE/run_sails.py" "$WORK/$1" "$(tokenizer_of "$1")" "$WORK/$1.jsonl" "$2" >"$WORK/ours"
}
theirs() {
    "$PYTHON" "$HERE/train_$3.py" "$WORK/$1" "$WORK/$1.jsonl" "$2" 2>"$WORK/log" >"$WORK/theirs" ||
        { cat "$WORK/log" >&2 && exit 1; }
}
# A tokenizer names special tokens, no more: the documents are tokenised.
tokenizer_of() { [ "$1" = small ] && echo "$HERE/../../tests/golden/tokenizer_small.json" || echo "$TOKENIZER"; }

# pair NAME MODEL DTYPE PEER GOAL [MEMORY_GOAL]
pair() {
    local rates_a=() rates_b=()
    for ((i = 0; i < ROUNDS; i++)); do
        ours "$2" "$3"
        theirs "$2" "$3" "$4"
        rates_a+=("$(field rate "$WORK/ours")") rates_b+=("$(field rate "$WORK/theirs")")
    done
    ratio "$1" "$(middle "${rates_a[@]}")" "$(middle "${rates_b[@]}")" "$5"
    [ -z "${6:-}" ] || ratio "$1-memory" "$(field peak "$WORK/theirs")" "$(field peak "$WORK/ours")" "$6"
}

documents "$DOCS"
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
checkpoint wide --preset 2b --layers 4 --tokenizer "$TOKENIZER"
checkpoint small --preset 2b --layers 8 --hidden 512 --ffn 2048 --heads 8 --kv-heads 4 \
    --head-dim 64 --vocab 32000
for dtype in bf16 f32; do
    pair "train-$dtype-user" wide "$dtype" hf 3 2
    [ -z "${PAIR_TRL:-}" ] || pair "train-$dtype-trl" wide "$dtype" trl 3 2
    pair "train-$dtype-packed" wide "$dtype" packed 1.2 2
    pair "train-$dtype-small-user" small "$dtype" hf 2.5
    pair "train-$dtype-small-packed" small "$dtype" packed 2
done
