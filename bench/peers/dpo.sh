# dpo.sh - a DPO step of LoRA adapters, tokens/s of both replies: sails against the best packed PyTorch
# we can write that runs chosen and rejected as TRL does, each behind its prompt. At 2B width (4
# layers, whole vocabulary), and the small model of train.sh, whose pairs its own tokenizer reads.
#
# Of DOCS pairs (64) those with replies of up to LONGEST tokens (384), prompt included; ROUNDS times
# each side (2).
source "$HERE/common.sh"
DOCS=${DOCS:-64} ROUNDS=${ROUNDS:-2} LONGEST=${LONGEST:-384}

# pairs MODEL : the pairs as $WORK/MODEL.jsonl, and the tokens of both sides of them.
pairs() {
    for side in chosen rejected; do
        "$SAILS" tokenize --tokenizer "$(tokenizer_of "$1")" --data "$WORK/docs.jsonl" --side $side \
            --out "$WORK/$1-$side.jsonl" >&2
    done
    "$PYTHON" "$HERE/short_pairs.py" "$WORK/docs.jsonl" "$WORK/$1" "$LONGEST"
}

# pair NAME MODEL DTYPE GOAL
pair() {
    race "$1" "$2" "$3" dpo "$4" train_packed_dpo "$WORK/$2" "$WORK/$2-chosen.jsonl" \
        "$WORK/$2-rejected.jsonl" "$3"
}

documents "$DOCS"
checkpoint wide --preset 2b --layers 4 --tokenizer "$TOKENIZER"
small_checkpoint
pairs wide
pairs small
for dtype in bf16 f32; do
    pair "dpo-$dtype-packed" wide "$dtype" 1.2
    pair "dpo-$dtype-small-packed" small "$dtype" 1.2
done
