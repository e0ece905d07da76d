#!/usr/bin/env bash
# tools/mutate.sh [--sample N] [WORD] - are the tests awake? Plants the faults of tests/mutants.txt,
# one at a time, in a copy of the tree, and expects the test named beside each to turn red.
#
# WORD takes only the lines that contain it; --sample takes N of them, other ones at every commit
# (SAILS_SEED=n for a given choice). JOBS copies (default: one per processor) share the work. They
# and their builds stay in build-mutants/, so that a second run is fast. Reports CAUGHT, or why not:
# MISSED (the test stayed green), TIMEOUT (it did not end in five minutes: on a busy machine that
# shows nothing), BROKEN (does not compile), and exits 1 if any fault was not caught. Before that, and
# whatever was asked for, it says which lines of the whole list no longer change their file. Files
# called *_amx.* are left out where the processor has no AMX.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD JOBS=${JOBS:-$(nproc)}
export SAILS_FIRST_FAILURE=1 # red is enough
if command -v ccache >/dev/null; then # what one copy has compiled the others need not
    export CMAKE_{C,CXX}_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
fi

# Nobody would miss a fault that is not planted.
stale=0
while IFS= read -r mutant; do
    file=${mutant%% | *} command=${mutant#* | }
    if [ ! -e "$file" ] || sed "${command% | *}" "$file" | cmp -s - "$file"; then
        echo "NOT APPLIED  $mutant"
        stale=1
    fi
done < <(grep -vE '^ *(#|$)' tests/mutants.txt)
[ $stale -eq 0 ] || exit 1

SAMPLE= WORD=
while [ $# -gt 0 ]; do
    case $1 in
    --sample) SAMPLE=$2 && shift ;;
    *) WORD=$1 ;;
    esac
    shift
done

# Lines of "file | sed command | test". The command may contain bars, the other two may not.
mapfile -t mutants < <(grep -vE '^ *(#|$)' tests/mutants.txt | grep -F -- "$WORD")
if ! grep -qw amx_bf16 /proc/cpuinfo; then # they would not run
    mapfile -t mutants < <(printf '%s\n' "${mutants[@]}" | grep -v '^[^ |]*_amx\.')
    echo "no AMX here: faults of *_amx.* are left out"
fi
if [ -n "$SAMPLE" ]; then
    seed=${SAILS_SEED:-$((16#$(git rev-parse HEAD 2>/dev/null | cut -c1-7 || echo 1)))}
    mapfile -t mutants < <(printf '%s\n' "${mutants[@]}" |
        awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort -n | cut -f2- |
        head -n "$SAMPLE")
fi
[ ${#mutants[@]} -gt 0 ] || { echo "mutate: no line of tests/mutants.txt contains \"$WORD\"" && exit 2; }

[ "$JOBS" -le ${#mutants[@]} ] || JOBS=${#mutants[@]}
# Those of one test lie together, so that a copy builds few tests; of them, those of one file, which is
# then compiled once for each: what follows another file's compiles that file's original too.
mapfile -t mutants < <(printf '%s\n' "${mutants[@]}" |
    awk -F ' [|] ' '{ print $NF "\t" $1 "\t" $0 }' | sort -s -t $'\t' -k 1,2 | cut -f3-)

test_of() { sed 's/.* | //' <<<"$1"; }

# Brings a copy up to date, touching only what differs: the build there is incremental.
update() {
    mkdir -p "$TREE" "$BUILD"
    while IFS= read -r file; do
        cmp -s "$file" "$TREE/$file" || install -D "$file" "$TREE/$file"
    done < <(git ls-files -co --exclude-standard |
        while IFS= read -r f; do [ -f "$f" ] && echo "$f"; done)
    while IFS= read -r file; do
        [ -e "$ROOT/$file" ] || rm "$TREE/$file"
    done < <(cd "$TREE" && find . -type f | cut -c3-)
    # Less optimised than a release: it is compiled many times and run once.
    cmake -S "$TREE" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O1 \
        -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DSAILS_CUDA=OFF \
        -DSAILS_CPU_LEVELS="x86-64-v3;avx512+bf16;amx" -DSAILS_CPU_HERE=ON >"$LOG"
}

build_and_test() { # TEST: 0 green, 1 red, 2 does not build, 3 does not end
    local targets=("$1") status=0
    case $1 in
    test_planted | test_planted_align) targets+=(planted_world) ;; # which writes what they read
    test_cluster) targets=(sails sails_mpi) ;;
    test_align_check | test_reproduce) targets=(sails planted_world sparse_saes) ;;
    *_shuffled) targets=("${1%_shuffled}") ;; # the same test, threads in another order
    *) [ ! -e "$ROOT/tests/$1.sh" ] || targets=(sails) ;;          # a script that runs the program
    esac
    cmake --build "$BUILD" --target "${targets[@]}" -j 1 >"$LOG" 2>&1 || return 2
    (cd "$BUILD" && timeout 300 ctest -R "^$1\$" --no-tests=error --output-on-failure) >"$LOG" 2>&1 ||
        status=$?
    case $status in
    0) return 0 ;;
    124) return 3 ;;
    *) return 1 ;;
    esac
}

# plant MUTANT: its verdict
plant() {
    local file=${1%% | *} command=${1#* | } status=0
    command=${command% | *}
    sed "$command" "$ROOT/$file" >"$TREE/$file"
    build_and_test "$(test_of "$1")" || status=$?
    cp "$ROOT/$file" "$TREE/$file"
    case $status in
    0) echo MISSED ;;
    1) echo CAUGHT ;;
    3) echo TIMEOUT ;;
    *) echo BROKEN ;;
    esac
}

# work N: in copy N the mutants of the tests that no other copy has taken, one line each
work() {
    local TREE=$ROOT/build-mutants/$1/tree BUILD=$ROOT/build-mutants/$1/build
    local LOG=$ROOT/build-mutants/$1/log mutant test green=
    update
    for mutant in "${mutants[@]}"; do
        test=$(test_of "$mutant")
        if [ "$test" != "$green" ]; then
            mkdir "build-mutants/taken/$test" 2>/dev/null || continue
            if ! build_and_test "$test"; then
                echo "mutate: $test must be green before faults are planted:"
                tail -n 20 "$LOG"
                return 1
            fi
            green=$test
        fi
        echo "$(plant "$mutant")  $mutant"
    done
}

rm -rf build-mutants/verdicts* build-mutants/taken
mkdir -p build-mutants/taken
for ((n = 0; n < JOBS; n++)); do work $n >build-mutants/verdicts$n & done
wait
cat build-mutants/verdicts*
caught=$(cat build-mutants/verdicts* | grep -c '^CAUGHT' || true)
echo "mutate: $caught of ${#mutants[@]} faults caught"
[ "$caught" -eq ${#mutants[@]} ]
