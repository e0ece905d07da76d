#!/usr/bin/env bash
# The GPU's memory, on the simulated device: one block per class, none taken after the start,
# as much as sails plan says, and too little of it is exit 4 before any work. The checkpoint streams
# through: its pages do not stay resident.   usage: test_device_memory.sh PATH_TO_SAILS
set -u
sails=$(realpath "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# used COMMAND...: runs it on the device, leaves its allocations in $count, their peak in $peak
used() {
    rm -f log
    SIMT_MEMORY_LOG=log "$sails" "$@" --device cuda --threads 1 >out 2>err ||
        fail "$*: exit $?: $(cat err)"
    read -r count peak <log || fail "$*: the device wrote no log"
}

# same "what" COMMAND... -- MORE... -- INSTEAD...: both make the same number of allocations
same() {
    local what=$1 first=() second=() common=() list=common
    shift
    for word in "$@"; do
        if [ "$word" = -- ]; then
            [ $list = common ] && list=first || list=second
        else
            eval "$list+=(\"\$word\")"
        fi
    done
    used "${common[@]}" "${first[@]}"
    local few=$count
    used "${common[@]}" "${second[@]}"
    echo "$what: $few allocations, then $count"
    [ "$few" -eq "$count" ] || fail "$what: $few allocations, then $count"
}

shape="--hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions 256"
shape+=" --tokenizer $root/tests/golden/tokenizer_small.json --dtype f32"
"$sails" init --layers 1 $shape --out m1 >/dev/null && "$sails" init --layers 4 $shape --out m4 \
    >/dev/null || exit 1
reply="Yes."
for i in $(seq 12); do # each longer than the one before
    reply+=" And once more."
    echo "{\"prompt\": \"How do I open door $i?\", \"completion\": \"$reply\"}"
done >chats.jsonl

# ------------------------------------------------------------------ one block for every class --
train="train --data chats.jsonl --init lora --batch 1 --seed 3"
same "layers of a model" $train --steps 1 -- --model m1 --out a1 -- --model m4 --out a4
same "steps of a training" $train --model m4 -- --steps 1 --out b1 -- --steps 9 --out b9
same "texts" logprob --model m4 --data chats.jsonl --out lp --max-length 256 --pack-tokens 256 \
    -- --data.limit 1 -- --data.limit 12
same "prompts" generate --model m4 --prompts chats.jsonl --batch 2 --max-new-tokens 2 --out r \
    -- --generate.limit 2 -- --generate.limit 5

# ------------------------------------------------------------- as planned, and with less refused --
"$sails" init --layers 1 --hidden 512 --ffn 1024 --heads 4 --kv-heads 2 --head-dim 64 \
    --vocab 100000 --tokenizer "$root/tests/golden/tokenizer_small.json" --dtype bf16 --out big \
    >/dev/null || exit 1
# A long question and a short answer: logprob measures both.
echo "{\"prompt\": \"$(printf 'How do I open door %d? ' $(seq 12))\", \"completion\": \"No.\"}" >long.jsonl
stage="--model big --data long.jsonl --dtype bf16"
used plan --stage logprob $stage --json
opened=$peak # what the libraries take
planned=$(sed -n 's/.*"device":\([0-9]*\).*/\1/p' out)
# What is not computed: code that is loaded late. The device takes some of its own for it, too: 2 MB
# for a product's, 64 KB for a kernel of ours (cublaslt.cc, cudart.cc), less than a tenth here.
late=0
for name in "kernels, at most" "libraries' kernels, estimated"; do
    bytes=$(sed -n "s/.*{\"name\":\"$name\",\"kind\":\"device\",\"bytes\":\([0-9]*\).*/\1/p" out)
    [ "${bytes:-0}" -gt 0 ] || fail "the plan has no line '$name': $(cat out)"
    late=$((late + ${bytes:-0}))
done
pages=$(sed -n 's/.*"file":\([0-9]*\).*/\1/p' out)
used logprob $stage --out lp
needed=$((peak - opened))
echo "planned $((planned / 1000000)) MB, needed $((needed / 1000000)) MB"
[ "$needed" -ge 100000000 ] || fail "the run is too small to judge by: $needed bytes"
computed=$((planned - late))
[ "$needed" -le $((computed * 11 / 10)) ] && [ $((computed * 4)) -le $((needed * 5)) ] ||
    fail "planned $computed and $late for code, needed $needed: not within 10 % below, 25 % above"

# refused COMMAND...: half of what is needed is exit 4, one line, nothing written
refused() {
    SIMT_MEMORY=$((opened + needed / 2)) "$sails" "$@" --device cuda --threads 1 >out 2>err
    local got=$?
    [ $got -eq 4 ] || fail "$*: exit $got, expected 4: $(cat err)"
    [ "$(wc -l <err)" -eq 1 ] || fail "$*: expected one line, got: $(cat err)"
    grep -q "^sails: .*does not fit: .* of the GPU's memory are needed.*weights" err ||
        fail "$*: said $(cat err)"
    [ ! -e refused ] || fail "$*: made its output"
}
refused logprob $stage --out refused
refused train $stage --init lora --out refused
refused generate --model big --prompts chats.jsonl --dtype bf16 --out refused

# Too little to open the device at all: said so, or the CPU where the choice is ours.
SIMT_MEMORY=60000000 "$sails" logprob $stage --device cuda --out none >out 2>err
got=$?
[ $got -eq 2 ] && grep -q "^sails: .*expected a GPU with 64 MB of free memory, got 57" err ||
    fail "a full GPU: exit $got: $(cat err)"
SIMT_MEMORY=60000000 "$sails" logprob $stage --device auto --threads 1 --out lp >out 2>err ||
    fail "a full GPU, --device auto: $(cat err)"

# ----------------------------------------------------------------------- the file streams through --
"$sails" logprob $stage --device cuda --threads 1 --out lp >out 2>err &
pid=$! most=0
while now=$(sed -n 's/^RssFile:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null) &&
    [ -n "$now" ]; do
    [ "$now" -gt "$most" ] && most=$now
    sleep 0.01
done
wait $pid || fail "logprob: $(cat err)"
file=$(stat -c %s big/model.safetensors)
echo "a file of $((file / 1000000)) MB, $((most / 1000)) MB of pages, planned $((pages / 1000000))"
[ $((most * 1024)) -le $((pages + file / 4)) ] ||
    fail "$most kB of file pages stayed resident, beside $pages bytes planned"

[ $failures -eq 0 ] && echo "device memory: ok"
exit $((failures != 0))
