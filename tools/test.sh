#!/usr/bin/env bash
# tools/test.sh [--full] - installs what is missing, builds sails in every form, and tests it.
#
#   release   what users run; the tests on the CPU device and, label simt, on the simulated CUDA
#             device; the CUDA plug-in compiled by nvcc for real GPUs
#   asan      the same tests under AddressSanitizer and UBSan
#   clang     its warnings are errors too; every fuzzer for ten seconds
#   mutants   a few faults of tests/mutants.txt, other ones at every commit
# --full takes all mutants, fuzzes each parser for a minute, runs the tests labelled slow, and looks
# for races in the CUDA kernels on the simulated device (tsan).
# All are entries of one ctest run, the last thing that is printed. It takes about 20 minutes on two
# cores, more with --full.
set -euo pipefail
cd "$(dirname "$0")/.."
SAMPLE=(--sample 4) FUZZ_SECONDS=10 SKIP='^slow$' PRESETS=(release asan clang)
case ${1:-} in
'') ;;
--full) SAMPLE=() FUZZ_SECONDS=60 SKIP='^$' PRESETS+=(tsan) ;;
*) echo "usage: tools/test.sh [--full]" >&2 && exit 2 ;;
esac
JOBS=$(nproc)

tools/install.sh test
for preset in "${PRESETS[@]}"; do
    options=()
    [ $preset = release ] && options=(-DSAILS_CUDA=ON) # found or installed: it must compile
    [ $preset = clang ] && options=(-DSAILS_FUZZ_SECONDS=$FUZZ_SECONDS)
    cmake --preset $preset "${options[@]}"
    SECONDS=0
    cmake --build --preset $preset -j "$JOBS" || { echo "the $preset build failed" >&2 && exit 1; }
    echo "the $preset build took $SECONDS seconds"
done

# One tree for ctest that holds the others. Of the clang build only the fuzzers are run.
mkdir -p build-test
cat >build-test/CTestTestfile.cmake <<END
subdirs("$PWD/build" "$PWD/build-asan" "$PWD/build-clang")
add_test(mutants "$PWD/tools/mutate.sh" ${SAMPLE[*]})
set_tests_properties(mutants PROPERTIES RUN_SERIAL ON TIMEOUT 7200)
END
if [ "${PRESETS[-1]}" = tsan ]; then # of it, too, only a part is run
    cat >>build-test/CTestTestfile.cmake <<END
add_test(tsan ctest --test-dir "$PWD/build-tsan" -j "$JOBS" -L simt --output-on-failure)
set_tests_properties(tsan PROPERTIES RUN_SERIAL ON TIMEOUT 7200)
END
fi
ctest --test-dir build-test -j "$JOBS" --timeout 900 --output-on-failure -E '^clang\.' -LE "$SKIP"
