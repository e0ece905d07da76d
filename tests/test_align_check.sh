#!/usr/bin/env bash
# `sails align --check` on a model and SAEs of Gemma-2 2B's true shape that hold nothing (holes): what it
# says of every stage, what it refuses, and that it writes nothing.   usage: test_align_check.sh BUILD_FOLDER
set -u
build=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# ------------------------------------------------------------------------------- the true shape --
"$build/sails" init --preset 2b --sparse --vocab 256000 --tokenizer "$root/tests/golden/tokenizer_small.json" \
    --out model >log || fail "init: $(cat log)"
"$build/tools/sparse_saes" sae 2304 16384 5:68 10:77 || fail "sparse_saes"
[ "$(du -sm . | cut -f 1)" -lt 5 ] || fail "holes take room: $(du -sh .)"
[ "$(du -sb model | cut -f 1)" -gt 5228683776 ] || fail "smaller than 2B: $(du -sb model)"
[ "$(stat -c %s sae/layer_5/width_16k/average_l0_68/params.npz)" -gt 302130176 ] || fail "a small SAE"
for i in $(seq 40); do
    echo "{\"prompt\": \"a$i\", \"chosen\": \"yes\", \"rejected\": \"no\"}"
done >pairs.jsonl
printf '{"prompt": "who %s"}\n' $(seq 10) >prompts.jsonl
cat >recipe.yaml <<'END'
out: run
model: {path: model}
data: {path: pairs.jsonl, max-length: 64, pack-tokens: 128, heldout: 0.1}
score: {sae: "sae/layer_{layer}/*/*/params.npz", layers: [5, 10]}
train: {methods: [base, lora, full, dpo, sails, direct-mean, eva], batch: 12, seeds: 2}
generate: {prompts: prompts.jsonl, max-new-tokens: 50}
END

check() { # CODE WORDS FLAGS...
    "$build/sails" align recipe.yaml "${@:3}" >out 2>err
    local got=$?
    [ $got -eq "$1" ] || fail "align ${*:3}: exit $got, expected $1: $(cat err)"
    [ -z "$2" ] || grep -qF -- "$2" err || fail "align ${*:3}: expected '$2' in: $(cat err)"
    [ ! -e run ] || fail "align ${*:3}: wrote something"
}
number() { # ROW_OR_STAGE KEY: of the line of JSON
    sed -n "/\"$1\"/s/.*\"$2\":\([0-9.]*\).*/\1/p" out
}
is() { # ROW_OR_STAGE KEY WANTED
    local got
    got=$(number "$1" "$2")
    [ "$got" = "$3" ] || fail "$2 of $1: $got, expected $3: $(grep "\"$1\"" out)"
}

# ------------------------------------------------------------------------------ what it says --
check 0 '' --check --gpu-memory 80 --ranks 8
grep -q '^36 documents to train on, 4 held out; 10 prompts$' out || fail "$(cat out)"
for stage in score moments inputs 'train lora' 'train full' 'train dpo' 'train sails' 'train direct-mean' \
    'train eva' generate perplexity; do
    grep -qE "^$stage +[0-9]+ .* GB " out || fail "no plan of $stage: $(cat out)"
done
! grep -q '^train base' out || fail "the base is not trained"
grep -q '^documents: 8 ranks: ' out || fail "nothing of the ranks' share of documents"
grep -q '^pairs: 8 ranks: ' out || fail "nothing of the ranks' share of pairs"

check 0 '' --check --gpu-memory 80 --ranks 2 --json
is lora runs 2
is lora steps 6 # three of 12 documents, from two seeds
is generate runs 13
is generate made 6500.0 # 13 runs, ten prompts, 50 tokens
is perplexity runs 13
is score runs 1
twice=$(awk -v a="$(number inputs tokens)" 'BEGIN { printf "%.1f", 2 * a }')
is score tokens "$twice" # at most: chosen and rejected
is lora tokens "$twice"  # two epochs, one a seed
is disk models 10457367552.0 # 2,614,341,888 weights in bf16, from two seeds
all=$(number lora used)
check 0 '' --check --gpu-memory 80 --ranks 8 --json
[ "$(number lora used)" != "$all" ] || fail "8 ranks are used as well as 2: $all"

check 0 '' --check --gpu-memory 80 --rates 1e-4,2e-4 --json # both on 2 prompts, the best on the other 8
is sails runs 4
is disk models 20914735104.0
is generate runs 38
is generate made 7700.0 # 25 runs x 2 and 13 x 8, 50 tokens

# ------------------------------------------------------------------------------- what it refuses --
check 2 "--ranks: says for what --check plans; mpirun -np N starts ranks" --ranks 8
check 2 "--gpu-memory: says for what --check plans" --gpu-memory 80
check 4 "train full: does not fit" --check --gpu-memory 20 --ranks 2
check 4 "train lora: does not fit" --check --gpu-memory 4 --methods lora
check 3 "no SAE for layer 11" --check --gpu-memory 80 --layers 5,11
shard=$(basename model/model-00001-of-* 2>/dev/null)
mv "model/$shard" shard
check 3 "$shard" --check --gpu-memory 80
mv shard "model/$shard"
sed -i 's/"num_hidden_layers": 26/"num_hidden_layers": 25/' model/config.json
check 3 "expected only the tensors of a Gemma-2 model with 25 layers" --check --gpu-memory 80

[ $failures -eq 0 ] || exit 1
echo "test_align_check: ok"
