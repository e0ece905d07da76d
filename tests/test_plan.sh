#!/usr/bin/env bash
# The plan against what really happens: for runs of 1 GB and more, the planned total is within 10 %
# of the peak that the kernel counts (VmHWM).   usage: test_plan.sh PATH_TO_SAILS
set -u
sails=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset SAILS_STRICT # it fills what a run would leave untouched
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# peak COMMAND...: runs it, leaves VmHWM in bytes in $peak
peak() {
    "$@" >out 2>err &
    local pid=$! kb=0 now
    while now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null) &&
        [ -n "$now" ]; do
        kb=$now
        sleep 0.01
    done
    wait $pid || fail "$*: $(cat err)"
    peak=$((kb * 1024))
}

# compare STAGE COMMAND... -- FLAGS OF PLAN
compare() {
    local stage=$1 total
    shift
    local run=() plan=()
    while [ "$1" != -- ]; do run+=("$1"); shift; done
    shift
    plan=("$@")
    "$sails" plan --stage "$stage" --json "${plan[@]}" >out 2>err || fail "plan: $(cat err)"
    total=$(sed -n 's/.*"total":\([0-9]*\).*/\1/p' out)
    peak "$sails" "${run[@]}"
    echo "$stage: planned $((total / 1000000)) MB, peak $((peak / 1000000)) MB"
    [ "$peak" -ge 1000000000 ] || fail "$stage: the run is too small to judge by"
    [ $((total * 10)) -ge $((peak * 9)) ] && [ $((total * 10)) -le $((peak * 11)) ] ||
        fail "$stage: planned $total, peak $peak: not within 10 %"
}

"$sails" init --layers 2 --hidden 1024 --ffn 2048 --heads 4 --kv-heads 2 --head-dim 128 \
    --vocab 250000 --tokenizer "$root/tests/golden/tokenizer_small.json" --dtype f32 \
    --out model >/dev/null || exit 1
for i in $(seq 40); do
    echo "{\"prompt\": \"How do I open door $i?\", \"completion\": \"With the key.\"}"
done >chats.jsonl

common=(--model model --data chats.jsonl --max-length 256)
compare train train "${common[@]}" --dtype f32 --init lora --batch 20 --steps 1 --out ad -- \
    "${common[@]}" --dtype f32 --init lora --train.batch 20 --steps 1
compare logprob logprob "${common[@]}" --dtype f32 --out lp -- "${common[@]}" --dtype f32

[ $failures -eq 0 ] && echo "plan: ok"
exit $((failures != 0))
