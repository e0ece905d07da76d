#!/usr/bin/env bash
# tools/test_kit.sh - is the kit for a borrowed GPU whole? Makes it, unpacks it as that machine would,
# and runs its check.sh there with the release build's simulated device. Exits 77 where this machine's
# glibc is too new for a kit.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(. /etc/os-release && echo "$VERSION_CODENAME")" = bookworm ] ||
    { echo "a kit is made on Debian 12" && exit 77; }
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
export SAILS_CUDA_PLUGIN=$PWD/build/tests/simt/libsails_cuda_simt.so PYTHON=/no/python

tools/gpu/kit.sh "$FOLDER/kit.tar.xz"
cd "$FOLDER"
tar -xf kit.tar.xz
sails-kit/check.sh --brief --lines doctor,card,tests --tests embed,top_k results
grep -E '^[|] doctor [|] ok .* matmul is right' results/summary.md
grep -E '^[|] tests [|] ok .* 2 of 2 green' results/summary.md
# The plug-in for real cards finds all but CUDA's own libraries.
! readelf -d sails-kit/lib/sails/libsails_cuda.so | grep NEEDED |
    grep -vE '\[(lib(c|m|dl|rt|pthread|gcc_s|cublasLt|cusolver)|ld-linux.*)\.so'
