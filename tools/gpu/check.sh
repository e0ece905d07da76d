#!/usr/bin/env bash
# check.sh [OPTION...] [OUT] - what a GPU says about sails: checks and rates of one card in at most
# eight minutes, from an unpacked kit (tools/gpu/kit.sh). Builds and fetches nothing.
#
#   OUT             folder for summary.md and the logs (gpu-check)
#   --lines A,B..   only these of the lines below, in the order below
#   --tests A,B..   only these tests of ops and of the model
#   --seconds N     for all together (480)
#   --limit N       for each line, in place of its own limit
#   --brief         small shapes, with rates that mean nothing: for a simulated device
#
# A line is a function of tools/gpu/lines.sh. It has its log, OUT/LINE.log, and a time limit that
# shrinks to what is left; whatever becomes of it, the next one begins. Verdicts: ok; RED; cut, by
# its limit; not run, with what the machine lacks; no time left. Exits 1 if a line is red or was cut,
# or none is ok, 2 where it could not begin, else 0.
#
# CUDA's libraries are looked for in the loader's paths, in toolkits and in PyTorch's wheels. PYTHON
# (python3) is the interpreter that may have torch, transformers and peft; SAILS_CUDA_PLUGIN another
# plug-in.
set -uo pipefail

# Line, its limit in seconds, what it is; the first are worth most. The limits add up to more than
# there is: most lines need a part of theirs.
LINES=(
    'doctor      30 the program, its products on the processor and on the card'
    'card        20 driver, clocks, power; which tools the machine has'
    'tests      120 ops and model against double precision and golden files'
    'logits      70 f32 logits against transformers and PEFT'
    'lora        60 a bf16 LoRA step against transformers + PEFT'
    'planted     60 the planted recipe, losses against those of the CPU'
    'ops         60 every op at 9B shapes, and products of a whole pack'
    'models      75 random ones at 9B width, 4 and 8 layers, for the next two'
    'step        60 training steps at 9B width, 4 and 8 layers'
    'ranks       60 two cards: the bytes of one, and what they cost each other'
    'peers       90 the same by transformers + PEFT'
    'memcheck    60 compute-sanitizer on the tests of ops: addresses'
    'racecheck   60 compute-sanitizer on the tests of ops: races in shared memory'
    'initcheck   30 compute-sanitizer on a training step: memory read before it is written'
    'ncu         45 Nsight Compute on attention, head and SAEs'
)
LEAST=3 # seconds that a line is begun with; and as many are kept for the summary

help() { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; }
usage() { echo "check.sh: $*" >&2 && help >&2 && exit 2; }
die() { echo "check.sh: $*" >&2 && exit 2; }

only='' seconds=480 each='' OUT=''
export TESTS='' BRIEF=''
while [ $# -gt 0 ]; do
    case $1 in
    --brief) BRIEF=1 ;;
    --lines | --tests | --seconds | --limit)
        [ $# -gt 1 ] || usage "$1 needs a value"
        case $1 in
        --lines) only=$2 ;;
        --tests) TESTS=$2 ;;
        --seconds) seconds=$2 ;;
        --limit) each=$2 ;;
        esac
        shift
        ;;
    --help) help && exit ;;
    -*) usage "$1 is no option" ;;
    *)
        [ -z "$OUT" ] || usage "one OUT, not $OUT and $1"
        OUT=$1
        ;;
    esac
    shift
done
for name in ${only//,/ }; do
    printf '%s\n' "${LINES[@]}" | grep -q "^$name " || die "--lines: there is no line $name"
done
KIT=$(cd "$(dirname "$0")" && pwd)
[ -x "$KIT/bin/sails" ] && [ -f "$KIT/tests/device_tests" ] ||
    die "this is no unpacked kit, which tools/gpu/kit.sh makes: $KIT"
mkdir -p "${OUT:=gpu-check}" && OUT=$(cd "$OUT" && pwd) || exit 2
[ -z "$(ls -A "$OUT")" ] || die "$OUT is not empty"

# from_here PATH: one that still holds in another folder; links are not followed, for a virtual
# environment's interpreter is one.
from_here() { [[ $1 != */* || $1 == /* ]] && echo "$1" || echo "$PWD/$1"; }

# Models of 8 GB for some minutes: in memory where there is room, which spares writing them to a disk.
room=$(df --output=avail -B 1G /dev/shm 2>/dev/null | tail -n 1)
if [ -z "$BRIEF" ] && [ "${room:-0}" -ge 12 ] && [ -w /dev/shm ]; then TMPDIR=/dev/shm; fi
WORK=$(mktemp -d) job=''
trap 'end_line && rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
PYTHON=$(from_here "${PYTHON:-python3}")
[ -z "${SAILS_CUDA_PLUGIN:-}" ] || SAILS_CUDA_PLUGIN=$(from_here "$SAILS_CUDA_PLUGIN")
# For awk: what takes a ms with 4 layers and b with 8 takes so many with 42, by a line through both.
AT_42='function at_42(a, b) { return a + (42 - 4) / (8 - 4) * (b - a) }'
export KIT OUT WORK PYTHON AT_42
cd "$KIT" || exit 2

# Where the loader does not find CUDA's libraries by itself: the first folders that have them.
find_libraries() {
    local plugin=${SAILS_CUDA_PLUGIN:-$KIT/lib/sails/libsails_cuda.so} roots root missing folder
    roots=("${CUDA_HOME:-/usr/local/cuda}" /usr/local/cuda /usr/local/cuda-* /opt/cuda)
    mapfile -t -O ${#roots[@]} roots < <(
        timeout 15 "$PYTHON" -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2>/dev/null)
    for root in "${roots[@]}"; do
        while missing=$(ldd "$plugin" 2>/dev/null | awk '/not found/ { print $1; exit }') &&
            [ -n "$missing" ]; do
            folder=$(timeout 5 find -L "$root" -maxdepth 5 -name "$missing" -not -path '*/stubs/*' \
                -printf '%h\n' -quit 2>/dev/null)
            [ -n "$folder" ] && [[ :${LD_LIBRARY_PATH:-}: != *:$folder:* ]] || break
            export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
        done
    done
}

# verdict LINE VERDICT SECONDS: noted for the summary, with the last line of the log, and printed.
verdict() {
    local said=''
    [ ! -f "$OUT/$1.log" ] ||
        said=$(grep -v 'lines.sh: line ' "$OUT/$1.log" | tail -n 1 | tr '\t|' '  ' | cut -c 1-300)
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$said" >>"$OUT/verdicts.tsv"
    printf '%-10s %-12s %4s s  %s\n' "$1" "$2" "$3" "$said"
}

# What a line left behind: timeout leads a group of processes of its own.
end_line() {
    [ -z "$job" ] || kill -KILL -- "-$job" 2>/dev/null
    job=''
}

run_line() { # LINE LIMIT
    local limit=${each:-$2} left=$((seconds - LEAST - SECONDS)) start=$SECONDS status=0 short=cut
    [ "$limit" -le "$left" ] || { limit=$left && short='no time left'; }
    [ "$limit" -ge "$LEAST" ] || { verdict "$1" 'no time left' 0 && return; }
    LIMIT=$limit timeout -k 2 "$limit" bash "$KIT/tools/gpu/lines.sh" "$1" \
        >"$OUT/$1.log" 2>&1 </dev/null &
    job=$!
    wait $job || status=$?
    end_line
    [ $status -ne 137 ] || [ $((SECONDS - start)) -ge "$limit" ] || status=1 # killed by another
    case $status in
    0) verdict "$1" ok $((SECONDS - start)) ;;
    77) verdict "$1" 'not run' $((SECONDS - start)) ;;
    124 | 137) verdict "$1" "$short" $((SECONDS - start)) ;;
    *) verdict "$1" RED $((SECONDS - start)) ;;
    esac
}

find_libraries
: >"$OUT/verdicts.tsv"
for line in "${LINES[@]}"; do
    read -r name limit _ <<<"$line"
    [ -n "$only" ] && [[ ,$only, != *,$name,* ]] && continue
    run_line "$name" "$limit"
done
timeout 20 bash "$KIT/tools/gpu/summary.sh" "$SECONDS" >"$OUT/summary.md"
head -n 3 "$OUT/summary.md" | tail -n 1
echo "see $OUT/summary.md"
cut -f 2 "$OUT/verdicts.tsv" | awk '/^(RED|cut)$/ { red = 1 } /^ok$/ { ok = 1 } END { exit red || !ok }'
