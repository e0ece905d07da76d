#!/usr/bin/env bash
# tools/install.sh [run|test|report] - installs what is missing on a Debian machine, and only that.
#
#   run   (default) what building and running sails needs
#   test  in addition what tools/test.sh needs: Clang, the CUDA toolkit's compiler and headers, its
#         disassembler, a processor made of software (qemu), and what makes certificates
#   report  in addition to run: Chromium, and what tools/check_report.py drives it with, into
#         ~/.cache/sails/report
#
# The CUDA toolkit is left alone if nvcc and the headers that sails includes are there. Otherwise the
# parts of it that the plug-in needs come from NVIDIA's wheels on PyPI (1 GB), into ~/.cache/sails/cuda,
# where the build looks for them: Debian's own package is in non-free and too old for today's GPUs.
set -euo pipefail

WHAT=${1:-run}
BUILD=(build-essential cmake ninja-build pkg-config libopenblas-serial-dev libjansson-dev libzip-dev
    zlib1g-dev libyaml-dev libpcre2-dev libopenmpi-dev openmpi-bin libcurl4-openssl-dev)
TEST=(clang libclang-rt-dev libomp-dev clang-format git openssl python3-venv qemu-user)
REPORT=(chromium fonts-dejavu-core python3-venv)
REPORT_WHEELS=(playwright==1.65.* axe-playwright-python==0.1.*)
CUDA_FOLDER=$HOME/.cache/sails/cuda
CUDA_VERSION=13.0
CUDA_WHEELS=(nvidia-cuda-{nvcc,crt,runtime,cccl,profiler-api}==$CUDA_VERSION.*
    nvidia-{nvvm,nvtx,cublas,nvjitlink}==$CUDA_VERSION.* nvidia-cusolver==12.0.4.*
    nvidia-cusparse==12.6.* nvidia-nccl-cu13==2.28.*)

die() {
    echo "sails: tools/install.sh: $*" >&2
    exit 1
}

install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "neither root nor sudo; as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    echo "installing ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q ||
        die "apt-get update failed; needed are ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}" ||
        die "apt-get install failed; needed are ${missing[*]}"
}

has_cuda() {
    local nvcc folder header
    for nvcc in "${SAILS_CUDA_ROOT:-/none}/bin/nvcc" "$(command -v nvcc || true)" \
        /usr/local/cuda/bin/nvcc "$CUDA_FOLDER/bin/nvcc"; do
        [ -x "$nvcc" ] || continue
        folder=$(dirname "$(dirname "$nvcc")")/include
        for header in cublasLt cusolverDn cuda_profiler_api nccl; do
            [ -e "$folder/$header.h" ] || continue 2
        done
        return 0
    done
    return 1
}

install_wheels() { # into the environment of this name
    local venv=$HOME/.cache/sails/$1
    shift
    [ -d "$venv" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" || die "pip could not install $*"
}

# The wheels share one folder that is laid out like a toolkit, save for the names that linkers want.
install_cuda() {
    local root file
    echo "installing CUDA $CUDA_VERSION from PyPI into $CUDA_FOLDER"
    install_wheels wheels "${CUDA_WHEELS[@]}"
    root=$(echo "$HOME"/.cache/sails/wheels/lib/python3*/site-packages/nvidia/cu13)
    [ -d "$root/include" ] || die "expected the wheels in $root"
    ln -sfn lib "$root/lib64"
    ln -sf ../../nccl/include/nccl.h "$root/include/nccl.h"
    ln -sf ../../nccl/lib/libnccl.so.2 "$root/lib/libnccl.so.2"
    for file in "$root"/lib/*.so.[0-9]*; do
        ln -sf "$(basename "$file")" "${file%%.so.*}.so"
    done
    chmod +x "$root"/bin/* "$root"/nvvm/bin/*
    ln -sfn "$root" "$CUDA_FOLDER"
}

# Of another version than the compiler: 13.0 has no wheels of them.
install_disassembler() {
    local tools=("$HOME"/.cache/sails/wheels/lib/python3*/site-packages/nvidia/cu13/bin/cuobjdump)
    command -v cuobjdump >/dev/null || [ -x "${SAILS_CUDA_ROOT:-/usr/local/cuda}/bin/cuobjdump" ] ||
        [ -x "${tools[0]}" ] && return
    echo "installing cuobjdump and nvdisasm from PyPI"
    install_wheels wheels nvidia-cuda-{cuobjdump,nvdisasm}==13.2.51
    chmod +x "$HOME"/.cache/sails/wheels/lib/python3*/site-packages/nvidia/cu13/bin/*
}

case $WHAT in
run | test | report) ;;
*) die "expected run, test or report, got $WHAT" ;;
esac
command -v apt-get >/dev/null || die "no apt-get here; install the likes of ${BUILD[*]} by hand"
install_packages "${BUILD[@]}"
if [ "$WHAT" = test ]; then
    install_packages "${TEST[@]}"
    has_cuda || install_cuda
    install_disassembler
fi
if [ "$WHAT" = report ]; then
    install_packages "${REPORT[@]}"
    install_wheels report "${REPORT_WHEELS[@]}"
fi
