#!/usr/bin/env bash
# tools/test_arm64.sh - do the program and the ops work on arm64, where no twin may use an intrinsic?
#
# Builds for it with Debian's cross compiler, installing that and arm64's libraries (as root or with
# sudo; the architecture is added to dpkg's), and runs the tests of ops by qemu, and makes a model. A
# processor made of software is slow: the tests take brief shapes, without strict memory.
set -euo pipefail
cd "$(dirname "$0")/.."
PACKAGES=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libgomp1:arm64 libjansson-dev:arm64
    libzip-dev:arm64 zlib1g-dev:arm64 libyaml-dev:arm64 libpcre2-dev:arm64
    libopenblas-serial-dev:arm64)
LIBRARIES=/usr/lib/aarch64-linux-gnu
BUILD=build-arm64

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
if ! dpkg-query -W "${PACKAGES[@]}" >/dev/null 2>&1; then
    "${as_root[@]}" dpkg --add-architecture arm64
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${PACKAGES[@]}"
fi

export PKG_CONFIG_LIBDIR=$LIBRARIES/pkgconfig:/usr/share/pkgconfig
cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux \
    -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
    -DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 \
    -DSAILS_CUDA=OFF -DSAILS_SIMT=OFF -DSAILS_TEST_BRIEF=ON -DSAILS_TEST_STRICT=OFF \
    -DSAILS_TEST_PREFIX=arm64.
cmake --build "$BUILD" -j "$(nproc)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
qemu-aarch64 "$BUILD/sails" init --preset 2b --layers 1 --hidden 64 --ffn 128 --vocab 300 \
    --out "$work/model"
ctest --test-dir "$BUILD" -j "$(nproc)" -L ops --no-tests=error --timeout 900 \
    --output-on-failure
