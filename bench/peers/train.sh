# train.sh - a LoRA step at 2B width (4 layers, whole vocabulary), tokens/s and memory: sails against
# transformers + PEFT as users run it (the plain loop, which is faster on the CPU than TRL's
# SFTTrainer; PAIR_TRL=1 runs that one too) and against the best packed PyTorch we can write.
source "$HERE/common.sh"
DOCS=${DOCS:-64} ROUNDS=${ROUNDS:-2}

# ours MODEL DTYPE : a training run of four steps; the first warms up. Its rate and its peak of
# memory beyond the weights go to $WORK/ours.
ours() {
    "$PYTHON" "$HERE/run_sails.py" "$WORK/$1" "$WORK/docs.jsonl" "$2" "$DOCS" >"$WORK/ours"
}
theirs() { "$PYTHON" "$HERE/train_$3.py" "$WORK/$1" "$WORK/tokens.jsonl" "$2" 2>"$WORK/log" >"$WORK/theirs"; }

# pair NAME MODEL DTYPE PEER GOAL MEMORY_GOAL
pair() {
    local rates_a=() rates_b=()
    for ((i = 0; i < ROUNDS; i++)); do
        ours "$2" "$3"
        theirs "$2" "$3" "$4"
        rates_a+=("$(field rate "$WORK/ours")") rates_b+=("$(field rate "$WORK/theirs")")
    done
    ratio "$1" "$(middle "${rates_a[@]}")" "$(middle "${rates_b[@]}")" "$5"
    ratio "$1-memory" "$(field peak "$WORK/theirs")" "$(field peak "$WORK/ours")" "$6"
}

documents "$DOCS"
checkpoint wide --preset 2b --layers 4
for dtype in bf16 f32; do
    pair "train-$dtype-user" wide "$dtype" hf 3 2
    [ -z "${PAIR_TRL:-}" ] || pair "train-$dtype-trl" wide "$dtype" trl 3 2
    pair "train-$dtype-packed" wide "$dtype" packed 1.2 2
done
