#!/usr/bin/env bash
# tools/real_run.sh narrow|wide TOKENIZER_FOLDER HH_FILE PROMPTS_FILE OUT - `sails align` at full
# vocabulary on real data, without Gemma's weights: a random checkpoint of Gemma-2's form and random
# SAEs in Gemma Scope's form. What it shows is that all of it runs, how fast, in what memory; the
# safety figures of a random model mean nothing.
#
#   narrow   26 layers, 256 wide, the whole data set
#   wide     4 layers at the true 2B width, the first 256 pairs
#
# Needs python3 with numpy for the SAEs; PYTHON names another interpreter.
set -euo pipefail
[ $# -eq 5 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
tools=$(cd "$(dirname "$0")" && pwd)
sails=$tools/../build/sails
shape=$1 tokenizer=$2 data=$(realpath "$3") prompts=$(realpath "$4") out=$5

case $shape in
narrow)
    size=(--layers 26 --hidden 256 --ffn 768 --heads 4 --kv-heads 2 --head-dim 64 --std 0.06)
    layers=5,10,15,20 records=0 answers=0 words=32
    ;;
wide)
    size=(--layers 4)
    layers=0,1,2,3 records=256 answers=32 words=32
    ;;
*) echo "real_run.sh: expected narrow or wide, got $shape" >&2 && exit 2 ;;
esac

"$sails" init --preset 2b "${size[@]}" --tokenizer "$tokenizer" --out "$out/model"
"${PYTHON:-python3}" "$tools/make_random_saes.py" --model "$out/model" --layers $layers \
    --width 16384 --out "$out/sae"
cat >"$out/recipe.yaml" <<END
out: run
model:
  path: model
data:
  path: $data
  limit: $records
score:
  sae: sae/layer_{layer}/*/*/params.npz
  layers: [$layers]
train:
  methods: [base, lora, sails]
generate:
  prompts: $prompts
  limit: $answers
  max-new-tokens: $words
END
exec "$sails" align "$out/recipe.yaml"
