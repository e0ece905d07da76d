#!/usr/bin/env bash
# bench/ranks.sh [ROUNDS] - what ranks cost on one machine: the same training step in one process,
# and on 1, 2 .. ranks with the same cores between them, as many as there are cores.
#
# In turns, ROUNDS times (3). Prints CSV: ranks (0: no launcher), threads of each, and of the best
# round milliseconds of a step, the share of one process, and from the program's own lines
# milliseconds that ranks waited for each other, of exposed communication, and of signatures. A step
# has a multiple of all ranks in equal packs, so that the share is not that of idle ranks.
# MODEL names a model in place of a random one, 1,024 wide with 4 layers. SAILS names another
# program than build/sails.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sails=$(realpath "${SAILS:-$root/build/sails}")
model=${MODEL:+$(realpath "$MODEL")}
rounds=${1:-3} cores=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset SAILS_STRICT

if [ -z "$model" ]; then
    model=$work/model
    "$sails" init --preset 2b --layers 4 --hidden 1024 --ffn 4096 --heads 8 --kv-heads 4 \
        --head-dim 128 --vocab 32000 --positions 1024 --out model \
        --tokenizer "$root/tests/golden/tokenizer_small.json" >/dev/null
fi
awk 'BEGIN { srand(1); for (i = 0; i < 64; i++) { printf "{\"tokens\":[2";
    for (j = 1; j < 256; j++) printf ",%d", 3 + int(rand() * 690); print "]}" } }' >data.jsonl
step=("$sails" bench --step --model "$model" --data data.jsonl
    --max-length 256 --pack-tokens 512 --batch $((8 * cores)))

# number PATTERN: the one before it in what was printed, 0 if it is not there
number() { sed -n "s/.*[ (]\([0-9.][0-9.]*\) $1.*/\1/p" out | head -n 1 | grep . || echo 0; }

run() { # RANKS
    local threads=$((cores / ($1 ? $1 : 1))) launch=()
    [ "$1" -eq 0 ] || launch=(mpirun --oversubscribe --bind-to none -np "$1")
    OMP_NUM_THREADS=$threads "${launch[@]}" "${step[@]}" >out 2>err || { cat out err >&2 && exit 1; }
    echo "$1,$threads,$(awk '$1 == "step" { print $3 }' out),$(number 'ms waiting'),$(number 'ms of exposed'),$(
        sed -n 's/.*signatures take \([0-9.]*\) ms.*/\1/p' out)" >>rows
}

kinds=(0)
for ((n = 1; n <= cores; n *= 2)); do kinds+=("$n"); done
for ((round = 0; round < rounds; round++)); do
    for n in "${kinds[@]}"; do run "$n"; done
done
echo "ranks,threads,step_ms,share,waiting_ms,exposed_ms,signatures_ms"
sort -t, -k1,1n -k3,3g rows | awk -F, '
    $1 in seen { next }
    { seen[$1] = 1 }
    $1 == 0 { alone = $3 }
    { printf "%s,%s,%s,%.3f,%s,%s,%s\n", $1, $2, $3, alone / $3, $4, $5, $6 ? $6 : 0 }'
