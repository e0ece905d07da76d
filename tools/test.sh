#!/usr/bin/env bash
# tools/test.sh [--full] - installs what is missing, builds sails in every form, and tests it.
#
#   release   what users run; the tests on the CPU device and, label simt, on the simulated CUDA
#             device; the CUDA plug-in compiled by nvcc for real GPUs
#   asan      the tests under AddressSanitizer and UBSan; on the simulated device fewer shapes
#   clang     every fuzzer for ten seconds; all but the tests is compiled for them, by Clang; of
#             the CPU levels those that run here, as for asan
#   mutants   a few faults of tests/mutants.txt, other ones at every commit
#
# --full adds what takes long and rarely tells more:
#   asan      all shapes on the simulated device, and the planted world: the release has checked
#             their values; another line or size for ASan to see is unlikely
#   clang     the tests and all levels too, as its warnings are errors; each parser is fuzzed for a
#             minute
#   mutants   all of them
#   slow      the tests with this label
#   archive   what users unpack, in minimal Debians (tools/test_archive.sh); as root or with sudo
#   arm64     the tests of ops on another architecture, by qemu (tools/test_arm64.sh)
#   slurm     tools/cluster under Debian's Slurm (tools/test_slurm.sh); as root or with sudo
#   kit       what a borrowed GPU gets, with the simulated device there (tools/test_kit.sh)
#   tsan      looks for races in the CUDA kernels on the simulated device
# All are entries of one ctest run, the last thing that is printed. ccache is used where it is
# installed.
set -euo pipefail
cd "$(dirname "$0")/.."
FULL='' PRESETS=(release asan clang)
case ${1:-} in
'') ;;
--full) FULL=1 PRESETS+=(tsan) ;;
*) echo "usage: tools/test.sh [--full]" >&2 && exit 2 ;;
esac
JOBS=$(nproc)

# How a preset is configured, and what of it is built.
configure() {
    case $1 in
    release) cmake --preset release -DSAILS_CUDA=ON ;; # found or installed: it must compile
    asan) cmake --preset asan -DSAILS_TEST_BRIEF=$([ "$FULL" ] && echo OFF || echo ON) ;;
    clang)
        cmake --preset clang -DSAILS_FUZZ_SECONDS=$([ "$FULL" ] && echo 60 || echo 10) \
            -DSAILS_CPU_HERE=$([ "$FULL" ] && echo OFF || echo ON)
        ;;
    *) cmake --preset "$1" ;;
    esac
}
build() {
    local targets=()
    [ "$1" != clang ] || [ "$FULL" ] || targets=(--target fuzzers)
    cmake --build --preset "$1" "${targets[@]}" -j "$JOBS"
}

tools/install.sh test
if command -v ccache >/dev/null; then
    export CMAKE_{C,CXX,CUDA}_COMPILER_LAUNCHER=ccache
fi
for preset in "${PRESETS[@]}"; do
    configure "$preset"
    SECONDS=0
    build "$preset" || { echo "the $preset build failed" >&2 && exit 1; }
    echo "the $preset build took $SECONDS seconds"
done

# One tree for ctest that holds the others. Of the clang build only the fuzzers are run.
mkdir -p build-test
cat >build-test/CTestTestfile.cmake <<END
subdirs("$PWD/build" "$PWD/build-asan" "$PWD/build-clang")
add_test(mutants "$PWD/tools/mutate.sh" $([ "$FULL" ] || echo --sample 4))
END
if [ "$FULL" ]; then
    echo "set_tests_properties(mutants PROPERTIES RUN_SERIAL ON TIMEOUT 7200)"
else # one copy, first to start: it takes minutes, on one processor
    echo "set_tests_properties(mutants PROPERTIES ENVIRONMENT JOBS=1 COST 1000 TIMEOUT 7200)"
fi >>build-test/CTestTestfile.cmake
if [ "$FULL" ]; then # of it, too, only a part is run
    cat >>build-test/CTestTestfile.cmake <<END
add_test(tsan ctest --test-dir "$PWD/build-tsan" -j "$JOBS" -L simt --output-on-failure)
set_tests_properties(tsan PROPERTIES RUN_SERIAL ON TIMEOUT 7200)
add_test(archive $([ "$(id -u)" -eq 0 ] || echo sudo) "$PWD/tools/test_archive.sh")
set_tests_properties(archive PROPERTIES RUN_SERIAL ON TIMEOUT 7200)
add_test(arm64 "$PWD/tools/test_arm64.sh")
set_tests_properties(arm64 PROPERTIES RUN_SERIAL ON TIMEOUT 7200)
add_test(kit "$PWD/tools/test_kit.sh")
set_tests_properties(kit PROPERTIES RUN_SERIAL ON TIMEOUT 7200 SKIP_RETURN_CODE 77)
add_test(slurm $([ "$(id -u)" -eq 0 ] || echo sudo) "$PWD/tools/test_slurm.sh")
set_tests_properties(slurm PROPERTIES RUN_SERIAL ON TIMEOUT 3600 SKIP_RETURN_CODE 77)
END
fi
ctest --test-dir build-test -j "$JOBS" --timeout 900 --output-on-failure -E '^clang\.' \
    -LE "$([ "$FULL" ] && echo '^$' || echo '^slow$')"
