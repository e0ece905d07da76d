#!/usr/bin/env bash
# tools/mutate.sh [--sample N] [WORD] - are the tests awake? Plants the faults of tests/mutants.txt,
# one at a time, in a copy of the tree, and expects the test named beside each to turn red.
#
# WORD takes only the lines that contain it; --sample takes N of them, other ones at every commit
# (SAILS_SEED=n for a given choice). The copy and its build stay in build-mutants/, so that a second
# run is fast. Reports CAUGHT, or why not: MISSED (the test stayed green), NOT APPLIED (the line does
# not change its file), BROKEN (does not compile), and exits 1 if any fault was not caught.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD TREE=$PWD/build-mutants/tree BUILD=$PWD/build-mutants/build LOG=$PWD/build-mutants/log
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
if [ -n "$SAMPLE" ]; then
    seed=${SAILS_SEED:-$((16#$(git rev-parse HEAD 2>/dev/null | cut -c1-7 || echo 1)))}
    mapfile -t mutants < <(printf '%s\n' "${mutants[@]}" |
        awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort -n | cut -f2- |
        head -n "$SAMPLE")
fi
[ ${#mutants[@]} -gt 0 ] || { echo "mutate: no line of tests/mutants.txt contains \"$WORD\"" && exit 2; }

test_of() { sed 's/.* | //' <<<"$1"; }

# Brings the copy up to date, touching only what differs: the build there is incremental.
mkdir -p "$TREE" "$BUILD"
while IFS= read -r file; do
    cmp -s "$file" "$TREE/$file" || install -D "$file" "$TREE/$file"
done < <(git ls-files -co --exclude-standard | while IFS= read -r f; do [ -f "$f" ] && echo "$f"; done)
while IFS= read -r file; do
    [ -e "$ROOT/$file" ] || rm "$TREE/$file"
done < <(cd "$TREE" && find . -type f | cut -c3-)

build_and_test() { # TEST: 0 green, 1 red, 2 does not build
    local targets=("$1")
    case $1 in
    test_planted | test_planted_align) targets+=(planted_world) ;; # which writes what they read
    *) [ ! -e "$ROOT/tests/$1.sh" ] || targets=(sails) ;;          # a script that runs the program
    esac
    cmake --build "$BUILD" --target "${targets[@]}" >"$LOG" 2>&1 || return 2
    (cd "$BUILD" && timeout 300 ctest -R "^$1\$" --no-tests=error --output-on-failure) >"$LOG" 2>&1 ||
        return 1
}

# Less optimised than a release: it is compiled many times and run once.
cmake -S "$TREE" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O1 \
    -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DSAILS_CUDA=OFF >"$LOG"
while IFS= read -r test; do
    build_and_test "$test" || {
        echo "mutate: $test must be green before faults are planted:"
        tail -n 20 "$LOG"
        exit 1
    }
done < <(for m in "${mutants[@]}"; do test_of "$m"; done | sort -u)

uncaught=0
for mutant in "${mutants[@]}"; do
    test=$(test_of "$mutant") file=${mutant%% | *}
    command=${mutant#* | } command=${command% | *}
    sed "$command" "$ROOT/$file" >"$TREE/$file"
    if cmp -s "$ROOT/$file" "$TREE/$file"; then
        verdict="NOT APPLIED"
    else
        status=0
        build_and_test "$test" || status=$?
        case $status in
        0) verdict=MISSED ;;
        1) verdict=CAUGHT ;;
        2) verdict=BROKEN ;;
        esac
    fi
    cp "$ROOT/$file" "$TREE/$file"
    echo "$verdict  $mutant"
    [ "$verdict" = CAUGHT ] || uncaught=$((uncaught + 1))
done
echo "mutate: $((${#mutants[@]} - uncaught)) of ${#mutants[@]} faults caught"
[ $uncaught -eq 0 ]
