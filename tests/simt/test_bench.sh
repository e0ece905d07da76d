#!/usr/bin/env bash
# test_bench.sh SAILS - `sails bench` on the simulated device: rows carry the card's name, and rates.
set -euo pipefail
out=$("$1" bench --ops --csv --device cuda --dtype bf16 --model tests/golden/model_a --rows 16 \
    --seconds 0 --filter norm)
rows=$(grep -cE '^simulated,cuda bf16,[a-z_]+norm_[fb]wd,16x[0-9]+,[0-9]+,([0-9.]*[1-9][0-9.]*,?){6}$' <<<"$out" || true)
[ "$rows" -eq 4 ] || { echo "expected 4 rows of norms with numbers, got $rows: $out" && exit 1; }
echo "simt_bench: ok"
