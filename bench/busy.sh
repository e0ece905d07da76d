#!/usr/bin/env bash
# bench/busy.sh [WORK]... - what other programs on the same cores cost, by OpenMP's waiting policy.
#
#   loop       one awk a core that only counts: perfectly parallel, the yardstick; no policy
#   planted    20 training steps on the planted world: regions of 50 us
#   wide       2 training steps at 2B width, 1 layer
#   reply      generation on the planted world
#   widereply  generation at 2B width, 1 layer
#
# Every WORK (default: all) runs as whole programs, alone ("quiet"), with one busy loop on each core,
# beside a twin that is started over and over with the same policy, and beside another OpenMP
# program, training with libgomp's default. Policies: sails's own (host/stage/wait_policy.h), passive,
# active, libgomp's default. They take turns, ROUNDS (5) times, so that all meet the same machine; alone
# five times as often, as there a twentieth counts.
#
# Prints CSV: work, policy, median ms alone, then how many times longer the others take, each
# against the same policy alone; last, alone against the best policy. A run ends after LIMIT (10)
# seconds and then counts as that long: ">". One alone that lost 3 % of the cores to others is
# repeated, 5 times at most; "~" says that some stayed disturbed. SAILS names another program than
# build/sails, PLANTED another than build/tools/planted_world.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sails=$(realpath "${SAILS:-$root/build/sails}")
planted=$(realpath "${PLANTED:-$root/build/tools/planted_world}")
rounds=${ROUNDS:-5} limit=${LIMIT:-10} cores=$(nproc)
work=$(mktemp -d)
others=()
cd "$work"
unset SAILS_STRICT OMP_WAIT_POLICY GOMP_SPINCOUNT

# other COMMAND...: repeats it in the background, in a process group of its own. Not in a session of
# its own: Linux shares processors between sessions first (sched_autogroup), so that a loop on each
# core, each a session, leaves a third to the program on all of them, not half.
other() {
    set -m
    bash -c 'while :; do "$@" >/dev/null 2>&1; done' other "$@" &
    set +m
    others+=($!)
}
alone() {
    local pid
    for pid in "${others[@]}"; do
        while ! kill -KILL -- "-$pid" 2>/dev/null && kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
        wait "$pid" 2>/dev/null || true
    done
    others=()
}
trap 'alone; cd /; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# with POLICY COMMAND...
with() {
    case $1 in
    passive | active) env OMP_WAIT_POLICY="$1" "${@:2}" ;;
    libgomp) env GOMP_SPINCOUNT=300000 "${@:2}" ;; # its default; that it is set is the user's choice
    *) "${@:2}" ;;
    esac
}

# task WORK OUT: leaves its command in $task
task() {
    local world=(--model world/model)
    case $1 in
    loop) task=(./count) ;;
    planted) task=("$sails" train "${world[@]}" --data world/pairs.jsonl --init lora --batch 16
        --train.steps 20 --out "$2") ;;
    wide) task=("$sails" train --model wide --data wide.jsonl --init lora --batch 1 --train.steps 2
        --out "$2") ;;
    reply) task=("$sails" generate "${world[@]}" --prompts world/harmful.jsonl
        --max-new-tokens 40 --out "$2") ;;
    widereply) task=("$sails" generate --model wide --prompts two.jsonl --max-new-tokens 40
        --out "$2") ;;
    *) echo "busy: expected loop, planted, wide, reply or widereply, got $1" >&2 && exit 2 ;;
    esac
}

prepare() {
    "$planted" world
    "$sails" init --preset 2b --layers 1 --vocab 1024 --out wide \
        --tokenizer "$root/tests/golden/tokenizer_small.json" >/dev/null
    awk 'BEGIN { for (i = 0; i < 2; i++) { printf "{\"tokens\":[2"
        for (j = 1; j < 128; j++) printf ",%d", 3 + (i * 128 + j) * 7919 % 600; print "]}" } }' >wide.jsonl
    printf '{"prompt":"Hello"}\n{"prompt":"How do you"}\n' >two.jsonl
    cat >count <<'END'
for _ in $(seq "$(nproc)"); do awk 'BEGIN { for (i = 0; i < 12000000; i++) s += i }' & done
wait
END
    chmod +x count
}

# One line a run: milliseconds, and per mille of the cores that other programs had meanwhile.
busy_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9; exit }' /proc/stat; }
run() {
    local policy=$1 from ticks
    rm -rf out
    ticks=$(busy_ticks)
    from=${EPOCHREALTIME/./}
    TIMEFORMAT='%U %S'
    { time with "$policy" timeout "$limit" "${task[@]}" >/dev/null 2>err || [ $? -eq 124 ] ||
        { cat err >&2 && exit 1; }; } 2>own
    echo $((${EPOCHREALTIME/./} - from)) $(($(busy_ticks) - ticks)) "$(cat own)" | awk -v n="$cores" \
        '{ printf "%d %d\n", $1 / 1e3, 1e3 * ($2 / 100 - $3 - $4) / (n * $1 / 1e6) }'
}

# sample WORK POLICY CONDITION: one time, into a file of all of them
sample() {
    local i ms foreign
    case $3 in
    loops) for ((i = 0; i < cores; i++)); do other :; done ;;
    twin) task "$1" twin && other again with "$2" "${task[@]}" ;;
    openmp) task planted other && other again with libgomp "${task[@]}" ;;
    esac
    task "$1" out
    for i in 1 2 3 4 5; do
        read -r ms foreign < <(run "$2")
        if [ "$3" != quiet ] || [ "$foreign" -lt 30 ]; then break; fi
    done
    alone
    [ "$3" != quiet ] || [ "$foreign" -lt 30 ] || touch "disturbed.$1.$2"
    echo "$ms" >>"times.$1.$2.$3"
}
again() { rm -rf other twin && "$@"; } # the twin's output must not be there yet
export -f with again

median() { sort -n "times.$1" | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

# row WORK POLICY BEST
row() {
    local alone ratios='' c
    alone=$(median "$1.$2.quiet")
    for c in loops twin openmp; do
        ratios+=",$(awk -v t="$(median "$1.$2.$c")" -v q="$alone" -v l="$limit" \
            'BEGIN { printf "%s%.2f", (t >= 1e3 * l ? ">" : ""), t / q }')"
    done
    [ ! -e "disturbed.$1.$2" ] || alone="~$alone"
    echo "$1,$2,$alone$ratios,$(awk -v q="${alone#\~}" -v b="$3" 'BEGIN { printf "%.2f", q / b }')"
}

measure() {
    local w=$1 policies=(sails passive active libgomp) p c i turns best=999999999 ms
    [ "$w" != loop ] || policies=(none)
    for c in quiet loops twin openmp; do
        turns=$([ $c = quiet ] && echo $((5 * rounds)) || echo "$rounds")
        for ((i = 0; i < turns; i++)); do for p in "${policies[@]}"; do sample "$w" "$p" $c; done; done
    done
    for p in "${policies[@]}"; do
        ms=$(median "$w.$p.quiet")
        [ "$ms" -ge "$best" ] || best=$ms
    done
    for p in "${policies[@]}"; do row "$w" "$p" "$best"; done
}

prepare
echo "work,policy,ms alone,one loop a core,beside a twin,beside OpenMP,alone / best"
for w in "${@:-loop planted wide reply widereply}"; do for one in $w; do measure "$one"; done; done
