#!/usr/bin/env bash
# test_profile.sh SAILS - tools/profile.sh with a profiler that is none, and nvtx.cc behind
# NVTX: ranges nest and have their names, and exactly the steps that were asked for are recorded.
set -euo pipefail
export SAILS=$1 NVTX_INJECTION64_PATH=$SAILS_CUDA_PLUGIN
PROFILE=$PWD/tools/profile.sh TOKENIZER=$PWD/tests/golden/tokenizer_small.json
WORLD=$(mktemp -d)
trap 'rm -rf "$WORLD"' EXIT
cd "$WORLD"
failed=0

expect() { # COUNT PATTERN: so many lines of the last run
    local n
    n=$(grep -cE -- "$2" "$SIMT_RANGES" || true)
    [ "$n" -eq "$1" ] && return
    echo "FAIL $SIMT_RANGES: $n lines, not $1, are $2"
    failed=1
}

# profiled NAME OPTIONS COMMAND...: into the file NAME
profiled() {
    export SIMT_RANGES=$WORLD/$1
    shift
    "$PROFILE" nsys "$@" >log 2>&1 || { cat log && exit 1; }
}

mkdir bin
cat >bin/nsys <<'END'
#!/bin/sh
echo "nsys $*" >options
while [ "$1" != "$SAILS" ]; do shift; done
exec "$@"
END
chmod +x bin/nsys
PATH=$PWD/bin:$PATH

"$SAILS" init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --window 16 \
    --positions 256 --dtype f32 --tokenizer "$TOKENIZER" --out model >log
for i in 1 2 3 4 5 6; do
    echo "{\"prompt\": \"How do I open door $i?\", \"completion\": \"With key number $i.\"}"
done >data.jsonl
train=(train --model model --device cuda --dtype f32 --data data.jsonl --init lora --batch 4
    --max-length 64 --pack-tokens 64 --out adapter --json)

profiled two --steps 2-3 "${train[@]}" --steps 4
for i in 1 4; do expect 1 "^- sails: step $i$"; done
for i in 2 3; do expect 1 "^[+] sails: step $i$"; done
expect 0 '^[+] sails: step [14]'
expect 0 '^- sails: step [23]'
expect 1 '^[+] sails: step 2 / microbatch 2 / forward / layer 01 / attn$'
expect 1 '^[+] sails: step 2 / microbatch 2 / forward / layer 01 / ffn$'
expect 1 '^[+] sails: step 2 / microbatch 1 / head$'
expect 1 '^[+] sails: step 3 / microbatch 1 / backward / layer 00 / attn$'
expect 1 '^[+] sails: step 3 / microbatch 1 / backward / layer 01 / ffn$'
expect 1 '^[+] sails: step 3 / norm$'
expect 1 '^[+] sails: step 3 / adamw$'
grep -q -- '--capture-range=cudaProfilerApi' options || { echo "FAIL $(cat options)" && failed=1; }

profiled layer --range 'layer 01' "${train[@]}" --steps 1
expect 3 '^[+]'
expect 1 '^[+] sails: step 1 / microbatch 1 / forward / layer 01 / attn$'

profiled all generate --model model --device cuda --dtype f32 --prompts data.jsonl \
    --max-new-tokens 2 --out replies --json
expect 1 '^- sails: pass 2 / forward / layer 00 / attn$'
expect 1 '^- sails: pass 2 / head$'
grep -q -- '--capture-range' options && { echo "FAIL $(cat options)" && failed=1; }

# Calls of several ranks, each rank's ranges in a file of its own.
if [ -n "${SAILS_MPI_PLUGIN:-}" ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export ASAN_OPTIONS=detect_leaks=0 # those are MPI's own
    mpirun --oversubscribe -np 2 sh -c 'SIMT_RANGES=$0.$OMPI_COMM_WORLD_RANK exec "$@"' "$WORLD/rank" \
        "$SAILS" "${train[@]}" --steps 1 >log 2>&1 || { cat log && exit 1; }
    for i in 0 1; do
        export SIMT_RANGES=$WORLD/rank.$i
        expect 2 '^- sails: step 1 / microbatch [1-4] / exchange gradients$'
        expect 1 '^- sails: step 1 / microbatch [1-4] / all-gather gradients$'
        expect 1 '^- sails: step 1 / share losses$'
    done
fi

if ! command -v ncu >/dev/null; then
    status=0
    "$PROFILE" ncu --steps 5 train recipe.yaml 2>log || status=$?
    if [ $status -ne 2 ] || ! grep -q "'SAILS_CAPTURE=step 5:step 5' 'ncu' .*'recipe.yaml'" log; then
        echo "FAIL exit $status: $(cat log)"
        failed=1
    fi
fi
[ $failed -ne 0 ] || echo "test_profile: ok"
exit $failed
