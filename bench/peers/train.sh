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

# pair NAME MODEL DTYPE PEER GOAL [MEMORY_GOAL]
pair() {
    race "$1" "$2" "$3" lora "$5" "train_$4" "$WORK/$2" "$WORK/$2.jsonl" "$3"
    [ -z "${6:-}" ] || ratio "$1-memory" "$(field peak "$WORK/theirs")" "$(field peak "$WORK/ours")" "$6"
}

documents "$DOCS"
token_files
checkpoint wide --preset 2b --layers 4 --tokenizer "$TOKENIZER"
small_checkpoint
for dtype in bf16 f32; do
    pair "train-$dtype-user" wide "$dtype" hf 3 2
    [ -z "${PAIR_TRL:-}" ] || pair "train-$dtype-trl" wide "$dtype" trl 3 2
    pair "train-$dtype-packed" wide "$dtype" packed 1.2 2
    pair "train-$dtype-small-user" small "$dtype" hf 2.5
    pair "train-$dtype-small-packed" small "$dtype" packed 2
done
