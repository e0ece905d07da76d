# full.sh - a step of all weights, tokens/s: sails against the best packed PyTorch we can write. At 2B
# width (2 layers, whole vocabulary: 745 M weights of 16 bytes each), and the small model of train.sh.
#
# DOCS documents (16: two packs; each level of ours' sum over packs takes 4 bytes a weight), ROUNDS
# times each side (2). Documents longer than LONGEST tokens (384) are left out, as in train.sh.
source "$HERE/common.sh"
DOCS=${DOCS:-16} ROUNDS=${ROUNDS:-2} LONGEST=${LONGEST:-384}

# pair NAME MODEL DTYPE GOAL
pair() {
    race "$1" "$2" "$3" full "$4" train_packed_full "$WORK/$2" "$WORK/$2.jsonl" "$3"
}

documents "$DOCS"
token_files
checkpoint wide2 --preset 2b --layers 2 --tokenizer "$TOKENIZER"
ln -f "$WORK/wide.jsonl" "$WORK/wide2.jsonl"
small_checkpoint
for dtype in bf16 f32; do
    pair "full-$dtype-packed" wide2 "$dtype" 1.2
    pair "full-$dtype-small-packed" small "$dtype" 1.2
done
