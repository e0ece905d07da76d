#!/usr/bin/env bash
# tools/gpu/kit.sh FILE [ARCH] - one archive with all that a borrowed GPU has to run: the program with
# its plug-in, the tests of ops and of the model, what compares with the Python libraries, and
# check.sh, which runs it all. FILE ends in .tar.xz; ARCH is the compute capability, 90 for an H100 or
# H200 (the default), 80 for an A100, 100 for a B200.
#
#   tools/gpu/kit.sh kit.tar.xz 90
#   there:  tar xf kit.tar.xz && sails-kit/check.sh    # without xz: python3 -m tarfile -e kit.tar.xz
#
# It needs a driver for CUDA 13, glibc 2.34, and CUDA's cuBLASLt and cuSOLVER, from a toolkit or from
# PyTorch's wheels; Python with torch, transformers and peft for the comparisons alone. Built in
# build-kit-ARCH, on a Debian 12, whose glibc is old enough. Prints the sizes of its parts; fails if
# anything needs a newer glibc, or names a folder of this machine for libraries. There it needs some
# 10 GB of memory in /dev/shm or of disk in TMPDIR.
set -euo pipefail
GLIBC=2.34 MOST=$((40 << 20)) # bytes of the archive
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0" >&2 && exit 2; }
FILE=$(realpath "$1") ARCH=${2:-90}
cd "$(dirname "$0")/../.."
BUILD=build-kit-$ARCH
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
KIT=$WORK/sails-kit

cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSAILS_CUDA=ON -DSAILS_SIMT=OFF \
    -DSAILS_CUDA_ARCH="$ARCH"
cmake --build "$BUILD" --target sails sails_cuda kit_parts
cmake --install "$BUILD" --strip --prefix "$KIT" >/dev/null
cmake --install "$BUILD" --strip --prefix "$KIT" --component kit >/dev/null

bad=0
while IFS= read -r file; do
    objdump -p "$file" >"$WORK/headers" 2>/dev/null || continue # a script
    needs=$(objdump -T "$file" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1) || true
    newest=$(printf '%s\n' "${newest:-GLIBC_2}" "$needs" | sort -V | tail -n 1)
    if [ "$(printf '%s\n' "GLIBC_$GLIBC" "$needs" | sort -V | tail -n 1)" != "GLIBC_$GLIBC" ]; then
        echo "kit.sh: ${file#"$KIT"/} needs $needs; $GLIBC is what may be expected" >&2 && bad=1
    fi
    if awk '/R(UN)?PATH/ { print $2 }' "$WORK/headers" |
        grep -vE '^(\$ORIGIN|/usr/local/cuda/lib64$)'; then
        echo "kit.sh: ${file#"$KIT"/} looks for libraries in that folder" >&2 && bad=1
    fi
done < <(find "$KIT" -type f \( -perm -u+x -o -name '*.so*' \))
[ $bad -eq 0 ] || exit 1

# The tests have most of their code in common: a dictionary that holds all of them finds it.
XZ_OPT=--lzma2=preset=1,dict=96MiB \
    tar -C "$WORK" --owner=0 --group=0 --sort=name -caf "$FILE" sails-kit
du -k -d 1 "$KIT" | sed "s|$KIT|sails-kit|"
size=$(stat -c %s "$FILE")
echo "$FILE: $size bytes; nothing in it needs more than ${newest:-no glibc}"
[ "$size" -le $MOST ] || { echo "kit.sh: more than $MOST bytes" >&2 && exit 1; }
