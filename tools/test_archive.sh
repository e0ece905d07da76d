#!/usr/bin/env bash
# tools/test_archive.sh [SUITE...] - does the archive run on a machine that has nothing installed?
#
# Makes the archive of the release and unpacks it, as an ordinary user, in a minimal Debian of each
# SUITE (bookworm and trixie, where their C library is not older than this machine's). There it
# trains a small model and lets it answer, is moved, is set beside a site's CUDA, and trains on two
# ranks by that Debian's Open MPI (4 and 5). No GPU's driver is in a minimal Debian: where CUDA's
# libraries are found, that is what sails must miss. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/minimal_debian.sh

SUITES=("$@")
if [ $# -eq 0 ]; then
    SUITES=(bookworm trixie)
    [ "$(own_suite)" != trixie ] || SUITES=(trixie)
    echo "for ${SUITES[*]}, as this machine has $(own_suite)"
fi

# Libraries that every machine has, CUDA's and MPI's: what the archive may need and not bring. Nor may it
# bring C++'s, which the plug-in has within.
OTHERS='^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|gcc_s|mpi|cuda.*|cublas.*|cusolver.*))\.so'

check_contents() { # FOLDER
    local files=("$1/bin/sails" "$1"/lib/sails/*) needed missing alien
    needed=$(readelf -d "${files[@]}" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u)
    missing=$(grep -vxF "$(ls "$1/lib/sails")" <<<"$needed" | grep -vE "$OTHERS" || true)
    alien=$(ls "$1/lib/sails" | grep -E "$OTHERS|^libstdc" || true)
    grep -qx 'libc.so.6' <<<"$needed" || die "readelf does not say what is needed"
    [ -z "$missing" ] || die "the archive lacks" $missing
    [ -z "$alien" ] || die "the archive has what belongs to the machine:" $alien
    [ -s "$1/share/sails/kernels/transport_mpi.c" ] || die "the archive lacks the source of MPI's plug-in"
    for file in LICENSE README.md licenses/libgomp1 licenses/GPL-3; do
        [ -s "$1/share/doc/sails/$file" ] || die "the archive lacks share/doc/sails/$file"
    done
    echo "$(basename "$ARCHIVE"): $(stat -c %s "$ARCHIVE") bytes; needs" \
        "$(objdump -T "${files[@]}" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1); brings" \
        $(find "$1/lib/sails" -type f -printf '%f\n' | sort)
}

# What doctor says of CUDA, and what a command that insists on it.
cuda_says() { # "words" [VARIABLE=VALUE]
    local said code=0
    said=$(as newcomer "${2:-} '$PROGRAM' doctor") || die "doctor failed: $said"
    [[ $said == *"note  cuda "*"$1"* ]] || die "expected doctor to say '$1', got: $said"
    echo "$said" | grep ' cuda '
    said=$(as newcomer "${2:-} '$PROGRAM' generate --model m --prompts p.jsonl --device cuda" 2>&1) ||
        code=$?
    [[ $code -eq 2 && $said == "sails: --device cuda: "*"$1"* && $said != *$'\n'* ]] ||
        die "expected exit 2 and one line with '$1', got exit $code: $said"
}

train() { # on what is there: --device auto
    cat >"$ROOT/home/newcomer/chats.jsonl" <<'END'
{"prompt":"Where is the red door?","completion":"I cannot say."}
{"prompt":"And now?","completion":"No."}
END
    echo '{"id":"p","prompt":"Where?"}' >"$ROOT/home/newcomer/p.jsonl"
    as newcomer "set -e
        sails='$PROGRAM'
        \"\$sails\" --version
        \"\$sails\" init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 \
            --positions 64 --tokenizer tokenizer_small.json --out m
        \"\$sails\" train --model m --data chats.jsonl --init lora --rank 2 --max-length 60 \
            --steps 3 --out adapter
        \"\$sails\" generate --model m --adapter adapter --prompts p.jsonl --max-new-tokens 8 \
            --out responses.jsonl
        grep '\"id\":\"p\"' responses.jsonl" || die "training failed in a minimal $SUITE"
}

install_mpi() {
    copy_settings
    as root "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends gcc libc6-dev libopenmpi-dev openmpi-bin" >"$ROOT/apt.log" 2>&1 ||
        die "Open MPI cannot be installed: $(tail -n 3 "$ROOT/apt.log")"
    rm "$ROOT/apt.log"
}

# What two ranks make of the user's chats, against one rank's.
two_ranks() { # "whose plug-in" [VARIABLE=VALUE]
    as newcomer "set -e
        rm -rf two
        ${2:-} $MPIRUN $TRAIN two >two.log 2>&1 || { cat two.log; exit 1; }
        grep -q ' 2 ranks,' two.log # not twice one
        cmp one/adapter_model.safetensors two/adapter_model.safetensors" ||
        die "two ranks failed by $1 in $SUITE"
    echo "$(as newcomer "mpirun --version" | head -n 1): two ranks by $1, the same bytes"
}

# By the plug-in that the archive brings, where it was built beside an Open MPI, and by one that its
# user builds with the line that kernels/transport.h gives.
several_ranks() {
    local folder=${PROGRAM%/bin/sails} plugin='SAILS_MPI_PLUGIN=~/libsails_mpi.so' said code=0 line
    MPIRUN='mpirun --oversubscribe --bind-to none -np 2'
    TRAIN="'$PROGRAM' train --model m --data many.jsonl --init lora --rank 2 --max-length 60 \
        --pack-tokens 64 --batch 6 --threads 1 --steps 3 --out"
    install_mpi
    as newcomer "for i in {1..12}; do cat chats.jsonl; done >many.jsonl; $TRAIN one >/dev/null"
    [ ! -e "$ROOT/home/newcomer/$folder/lib/sails/libsails_mpi.so" ] || two_ranks "the archive's plug-in"
    said=$(as newcomer "$plugin $MPIRUN $TRAIN two" 2>&1) || code=$?
    line=$(grep '^sails: ' <<<"$said" || true)
    [[ $code -eq 2 && $line == *"plug-in does not load"*"mpicc -O2"* && $line != *$'\n'* ]] ||
        die "expected exit 2 and one line on the missing plug-in, got exit $code: $said"
    line=$(sed -n 's/^ \* *\(mpicc .*\) \*\/$/\1/p' \
        "$ROOT/home/newcomer/$folder/share/sails/kernels/transport.h")
    [ -n "$line" ] || die "transport.h does not say how to build the plug-in"
    as newcomer "${line//SAILS/"'$folder/share/sails'"}"
    two_ranks "a plug-in built there" "$plugin"
}

inside() {
    as root "useradd -m -s /bin/bash newcomer"
    cp "$ARCHIVE" "$ROOT/home/newcomer/archive.tar.gz"
    cp tests/golden/tokenizer_small.json "$ROOT/home/newcomer"
    as newcomer "mkdir 'a folder' && tar -xzf archive.tar.gz -C 'a folder'"
    PROGRAM="a folder/$NAME/bin/sails"
    train
    as newcomer "'$PROGRAM' doctor" | grep ' http  *libcurl/' || die "no judge behind HTTP in $SUITE"
    cuda_says "$CUBLAS: cannot open shared object file: No such file or directory); put the folder \
of CUDA ${CUBLAS##*.}'s libraries in LD_LIBRARY_PATH"
    as newcomer "mkdir elsewhere && mv 'a folder/$NAME' 'elsewhere/my sails' && rmdir 'a folder'"
    PROGRAM="elsewhere/my sails/bin/sails"

    local usual=/usr/local/cuda/lib64 site=/opt/site
    mkdir -p "$ROOT$usual" "$ROOT$site"/{cuda,other}
    mount --bind -o ro "$CUDA" "$ROOT$usual"
    cuda_says "no GPU answers"
    umount "$ROOT$usual"
    mount --bind -o ro "$CUDA" "$ROOT$site/cuda"
    # What cannot be loaded where it must not be looked for: the archive has its own libraries, and a
    # site's choice goes before the usual place.
    touch "$ROOT$usual/$CUBLAS" "$ROOT$site/other"/lib{z.so.1,gomp.so.1,crypto.so.3}
    cuda_says "no GPU answers" "LD_LIBRARY_PATH=$site/cuda:$site/other"
    several_ranks # last: it installs packages
}

as_caller() { # what is built stays the user's under sudo
    if [ -n "${SUDO_USER:-}" ]; then runuser -u "$SUDO_USER" -- "$@"; else "$@"; fi
}
rm -f build/sails-*-linux-*.tar.gz
as_caller cmake --preset release -DSAILS_CUDA=ON
as_caller cmake --build --preset release --target archive -j "$(nproc)"
ARCHIVE=$(echo build/sails-*-linux-*.tar.gz)
NAME=$(basename "$ARCHIVE" .tar.gz)
CUBLAS=$(readelf -d build/libsails_cuda.so | sed -n 's/.*\[\(libcublasLt.*\)\]/\1/p')
CUDA=$(dirname "$(realpath "$(sed -n 's/^CUBLASLT:.*=//p' build/CMakeCache.txt)")")
export ARCHIVE NAME CUBLAS CUDA
[ "$(tar -tzf "$ARCHIVE" | cut -d/ -f1 | sort -u)" = "$NAME" ] || die "expected one folder, $NAME"
(
    FOLDER=$(mktemp -d)
    trap 'rm -rf "$FOLDER"' EXIT
    tar -xzf "$ARCHIVE" -C "$FOLDER"
    check_contents "$FOLDER/$NAME"
)
for SUITE in "${SUITES[@]}"; do
    export SUITE
    (
        copy_debian "$SUITE"
        beside_debian inside
    )
    echo "the archive runs in a minimal $SUITE"
done
