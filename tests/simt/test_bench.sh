#!/usr/bin/env bash
# test_bench.sh SAILS - `sails bench` on the simulated device: rows carry the card's name, and rates;
# of ops, of a training step and of a scoring pass.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=$("$1" bench --ops --csv --device cuda --dtype bf16 --model tests/golden/model_a --rows 16 \
    --seconds 0 --filter norm)
rows=$(grep -cE '^simulated,cuda bf16,[a-z_]+norm_[fb]wd,16x[0-9]+,[0-9]+,([0-9.]*[1-9][0-9.]*,?){6}$' <<<"$out" || true)
[ "$rows" -eq 4 ] || { echo "expected 4 rows of norms with numbers, got $rows: $out" && exit 1; }
out=$("$1" bench --ops --once --csv --device cuda --dtype bf16 --model tests/golden/model_a --rows 16 \
    --filter geglu)
[ "$(grep -cE '^simulated,cuda bf16,geglu_[fb]wd,[0-9]+,1,' <<<"$out")" -eq 2 ] ||
    { echo "expected one timed call of each op, got: $out" && exit 1; }

"$1" init --layers 4 --hidden 8 --ffn 16 --heads 2 --kv-heads 1 --head-dim 8 --positions 64 \
    --tokenizer tests/golden/tokenizer_small.json --dtype bf16 --out "$work/model" >/dev/null
for i in 1 2 3; do
    echo "{\"prompt\": \"Door $i?\", \"chosen\": \"Yes.\", \"rejected\": \"No way.\"}"
done >"$work/pairs.jsonl"
pass="--device cuda --csv --runs 1 --model $work/model --data $work/pairs.jsonl --max-length 64"
# passes WHAT OP...: the pass has a row with rates, and one for each op
passes() {
    local what=$1 number='[0-9.]*[1-9][0-9.]*' op
    shift
    grep -qE "^simulated,cuda bf16,$what,1,($number,){4,}$number$" <<<"$out" ||
        { echo "expected a row of $what with numbers: $out" && exit 1; }
    for op in "$@"; do
        grep -qE "^simulated,cuda bf16,$op,[0-9]+,$number," <<<"$out" ||
            { echo "expected a row of $op: $out" && exit 1; }
    done
}
out=$("$1" bench --step $pass --batch 3)
passes step gemm attn_fwd attn_bwd xent adamw
out=$("$1" bench --score $pass --sae tests/golden/sae/jumprelu --layers 3)
passes score gemm attn_fwd sae_stats
echo "simt_bench: ok"
