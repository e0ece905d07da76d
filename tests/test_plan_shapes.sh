#!/usr/bin/env bash
# What `sails plan` says of shapes: models, cards and ranks that are not here; and of two corpora.
#   usage: test_plan_shapes.sh PATH_TO_SAILS
set -u
sails=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$root/tests/cli.sh"

# Neither model, card nor data are here.
good plan --shape 9b --gpu-memory 80 --ranks 8
has "8 ranks: 6.0 packs of 2048 rows a step"
has "moves between ranks, estimated        3.28 GB  device"
has "--pack-tokens 512: 22.0 packs, 92 %"
good plan --shape 9b --gpu-memory 80 --ranks 8 --train.batch 128 --length 500 --json
has '"packs":32.0,"most_packs":32,"efficiency":1.0'
"$sails" plan --shape 9b --gpu-memory 20 >out 2>err
[ $? -eq 4 ] && grep -qF "of the GPU's memory are needed" err && grep -qF "give --recompute, or" err ||
    fail "a card of 20 GB: $(cat err)"
"$sails" plan --shape 9b --gpu-memory 20 --recompute >out 2>err
[ $? -eq 4 ] && ! grep -qF "give --recompute" err || fail "a card of 20 GB, recomputing: $(cat err)"
long="--method full --train.batch 2 --length 8192 --max-length 8192 --pack-tokens 8192"
good plan --shape 2b --gpu-memory 80 $long
has "gradients of packs                    10.5 GB  device"
good plan --shape 9b --gpu-memory 80 --ranks 8 --method full --train.batch 128 --length 500
for item in "weights *2.3[0-9] GB" "gathered weights *2.6[0-9] GB" "low halves *2.3[0-9] GB" "gradients *4.6[0-9] GB" \
    "gradients of a pack *5.2[0-9] GB" "optimiser *9.2[0-9] GB" "gradients of packs *9.2[0-9] GB" \
    "gradients of ranks *79[0-9] MB" "gradient norm *[0-9.]* kB" "activations *[0-9.]* GB"; do
    [ "$(grep -c "^$item  device" out)" -eq 1 ] || fail "9b in full: expected '$item': $(cat out)"
done
good plan --shape 9b --gpu-memory 80 --ranks 8 ${long/batch 2/batch 8} --recompute
for weights in "--method full" "--method dpo --weights all"; do # 8 fit, and 16 adapters
    good plan --shape 2b --gpu-memory 80 --ranks 8 $weights
    "$sails" plan --shape 2b --gpu-memory 80 --ranks 16 $weights >out 2>err
    [ $? -eq 4 ] && grep -q "^optimiser" out && grep -qF -- "does not fit: ${weights#*dpo } shares" err ||
        fail "$weights on two machines: $(cat err)"
done
good plan --shape 2b --gpu-memory 80 --ranks 16
good plan --shape 2b --gpu-memory 141 --method full --train.batch 32
for item in "weights *5.23 GB" "low halves *5.23 GB" "gradients *10.5 GB" "optimiser *20.9 GB" \
    "gradients of packs *20.9 GB"; do
    [ "$(grep -c "^$item  device" out)" -eq 1 ] || fail "full: expected '$item': $(cat out)"
done
"$sails" plan --shape 9b --gpu-memory 141 --method full --train.batch 1 >out 2>err
[ $? -eq 4 ] && grep -q "the largest part is optimiser, 73.9 GB" err || fail "9b in full: $(cat err)"
good plan --shape 2b --gpu-memory 141 --method dpo --weights all --train.batch 32
for item in "low halves *5.23 GB  device" "log-probabilities of the reference *512 B  anonymous"; do
    [ "$(grep -c "^$item" out)" -eq 1 ] || fail "dpo of all weights: expected '$item': $(cat out)"
done
bad 2 "--model is needed" plan --stage score --shape 9b --gpu-memory 80

# Of salora's two corpora the longer one decides what a pass takes.
good init --preset 2b --layers 1 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 \
    --dtype f32 --tokenizer "$root/tests/golden/tokenizer_small.json" --out m
printf '{"prompt":"Hi","completion":"Sure."}\n' >short.jsonl
printf '{"prompt":"%s","completion":"ok"}\n' "$(printf 'lock %.0s' $(seq 40))" >long.jsonl
inputs="plan --stage inputs --model m --dtype f32 --rank 2"
rope() { # DATA PRESERVE: the table's line
    good $inputs --data "$1.jsonl" --preserve "$2.jsonl" --preserve-rank 4
    grep "^rope table" out
}
one=$(rope long short)
[ "$one" = "$(rope short long)" ] && [ "$one" != "$(rope short short)" ] ||
    fail "the longer corpus: $one, $(rope short long), $(rope short short)"
made() { grep "^making of bases" out; }
good $inputs --data long.jsonl
one=$(made)
good $inputs --data long.jsonl --preserve long.jsonl --preserve-rank 4
[ "$one" != "$(made)" ] || fail "bases of outputs are made as those of inputs: $one"
bad 2 "--preserve-rank 4000: expected less than 64, the width that q_proj writes" \
    $inputs --data long.jsonl --preserve long.jsonl --preserve-rank 4000
bad 3 "none.jsonl" $inputs --data long.jsonl --preserve none.jsonl --preserve-rank 4

[ $failures -eq 0 ] || { echo "$failures failures"; exit 1; }
