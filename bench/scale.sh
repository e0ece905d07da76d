#!/usr/bin/env bash
# bench/scale.sh [ROW]... - how time and memory of training and scoring grow, one size at a time.
#
#   microbatch   rows of a pack, 1k to 16k         length      128 to 8192 at 8192 rows
#   vocabulary   1k to 256k                        layers      2 to 32
#   sae          features, 4k to 131k              corpus      100 to 6400 pairs
#
# All rows (default: every one) start from one model, 512 wide with 8 layers, and change one size of
# it or of its data. Prints CSV: row, size, tokens of the measured pass, milliseconds, microseconds
# a token, peak memory of the process (VmHWM), what `sails plan` had said, and of that the
# activations; megabytes. The random SAEs need python3 with numpy; PYTHON names another.
# SAILS names another program than build/sails.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sails=$(realpath "${SAILS:-$root/build/sails}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset SAILS_STRICT
tokenizer=$root/tests/golden/tokenizer_small.json
ids=700 # of that tokenizer

# documents NUMBER LENGTH [SEED]: records of random tokens
documents() {
    awk -v n="$1" -v len="$2" -v seed="${3:-1}" -v ids=$ids 'BEGIN {
        srand(seed)
        for (i = 0; i < n; i++) {
            printf "{\"tokens\":[2"
            for (j = 1; j < len; j++) printf ",%d", 3 + int(rand() * (ids - 3))
            print "]}"
        }
    }'
}

# model NAME [SIZE VALUE]: the common model, or one that differs in a size
model() {
    local -A size=([layers]=8 [hidden]=512 [ffn]=2048 [heads]=8 [kv-heads]=4 [head-dim]=64
        [vocab]=32000 [positions]=16384)
    local name=$1 flags=() key
    [ $# -lt 3 ] || size[$2]=$3
    for key in "${!size[@]}"; do flags+=("--$key" "${size[$key]}"); done
    [ -d "$name" ] || "$sails" init --preset 2b "${flags[@]}" --out "$name" >/dev/null
}

# field NAME: a number from the JSON line on stdin
field() { sed -n "s/.*\"$1\": *\([0-9.e+]*\).*/\1/p"; }

# peak COMMAND...: runs it and leaves VmHWM in MB in $peak
peak() {
    "$@" >out 2>err &
    local pid=$! kb=0 now
    while now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null) &&
        [ -n "$now" ]; do
        kb=$now
        sleep 0.01
    done
    wait $pid || { cat err >&2 && exit 1; }
    peak=$((kb / 1024))
}

# plan STAGE FLAG...: leaves the planned total and its activations in MB in $planned, $activations
plan() {
    local stage=$1
    shift
    "$sails" plan --stage "$stage" --json "$@" >plan.json
    planned=$(($(field total <plan.json | cut -d. -f1) / 1048576))
    activations=$(sed -n 's/.*"name": *"[a-z ]*activations", *"kind": *"[a-z]*", *"bytes": *\([0-9]*\).*/\1/p' plan.json)
    activations=$((activations / 1048576))
}

# row NAME SIZE TOKENS MILLISECONDS
row() {
    awk -v name="$1" -v size="$2" -v tokens="$3" -v ms="$4" -v peak=$peak -v plan=$planned \
        -v acts="$activations" 'BEGIN {
            printf "%s,%d,%d,%.1f,%.2f,%d,%d,%d\n", name, size, tokens, ms, 1e3 * ms / tokens,
                   peak, plan, acts
        }'
}

# train ROW SIZE MODEL ROWS LENGTH: the faster of the last two of three steps, each of one pack
train() {
    local batch=$(($4 / $5))
    documents $((3 * batch)) "$5" >data.jsonl
    local flags=(--model "$3" --tokenizer "$tokenizer" --data data.jsonl --max-length "$5"
        --pack-tokens "$4" --init lora --train.batch $batch --train.steps 3)
    plan train "${flags[@]}"
    rm -rf adapter
    peak "$sails" train "${flags[@]}" --out adapter
    row "$1" "$2" "$4" "$(tail -n 2 adapter/metrics.jsonl | field ms | sort -g | head -n 1)"
}

# score ROW SIZE SAE_WIDTH PAIRS
score() {
    model common
    [ -d "sae$3" ] || "$python" "$root/tools/make_random_saes.py" --model common --layers 4 \
        --width "$3" --out "sae$3" >/dev/null
    documents "$4" 128 1 >aligned.jsonl
    documents "$4" 128 2 >unaligned.jsonl
    local flags=(--model common --tokenizer "$tokenizer" --sae "sae$3/layer_{layer}/*/*/params.npz"
        --layers 4)
    plan score "${flags[@]}" --data aligned.jsonl
    peak "$sails" score "${flags[@]}" --aligned aligned.jsonl --unaligned unaligned.jsonl \
        --tokens all --json --out scores.safetensors
    row "$1" "$2" $((256 * $4)) "$(field seconds <out | awk '{ print 1e3 * $1 }')"
}

microbatch() { model common; for n in 1024 2048 4096 8192 16384; do train microbatch $n common $n 256; done; }
length() { model common; for n in 128 512 2048 8192; do train length $n common 8192 $n; done; }
vocabulary() { for n in 1024 8192 64000 256000; do model v$n vocab $n; train vocabulary $n v$n 2048 256; done; }
layers() { for n in 2 8 32; do model l$n layers $n; train layers $n l$n 2048 256; done; }
sae() { for n in 4096 16384 65536 131072; do score sae $n $n 200; done; }
corpus() { for n in 100 400 1600 6400; do score corpus $n 16384 $n; done; }

echo "row,size,tokens,ms,us/token,peak MB,plan MB,activations MB"
for row in "${@:-microbatch length vocabulary layers sae corpus}"; do
    for one in $row; do $one; done
done
