#!/usr/bin/env bash
# tools/same_bits.sh OLD NEW - do two commits compute the same? Builds both on this machine, runs each
# over the planted world that OLD writes, and compares what they leave, byte by byte: scores, bases,
# adapters after training, responses, log-probabilities, a merged checkpoint; in f32 and, where the
# processor computes in it, bf16; training in one pack a step and in several.
#
# For changes of form that must leave the numbers alone. Both builds stay in build-same-bits/, so that
# another comparison with one of them is fast. Prints a line a file; exits 1 if one differs.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 2 ] || { echo "usage: tools/same_bits.sh OLD NEW" >&2 && exit 2; }
ROOT=$PWD/build-same-bits JOBS=$(nproc)

build() { # COMMIT: prints its folder
    local commit folder
    commit=$(git rev-parse --short=12 "$1^{commit}") folder=$ROOT/$commit
    if [ ! -d "$folder/tree" ]; then
        mkdir -p "$folder/tree"
        git archive "$commit" | tar -x -C "$folder/tree"
    fi
    cmake -S "$folder/tree" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DSAILS_CUDA=OFF -DSAILS_SIMT=OFF >"$folder/log"
    cmake --build "$folder/build" --target sails planted_world -j "$JOBS" >"$folder/log" || {
        tail -n 20 "$folder/log" >&2
        return 1
    }
    echo "$folder"
}

# Of the numbers of each step, those that are no times.
strip_times() { # FOLDER
    local file
    find "$1" -name metrics.jsonl | while IFS= read -r file; do
        grep -oE '"(loss|grad_norm|learning_rate)": [^,}]*' "$file" >"$file.numbers"
        rm "$file"
    done
}

run() { # PROGRAM OUT, in the folder that holds the world
    local sails=$1 out=$2 dtype init packs from
    mkdir -p "$out"
    for dtype in f32 bf16; do
        "$sails" score --model world/model --sae 'world/sae/layer_{layer}/*/*/params.npz' \
            --layers 1,2,3 --data world/pairs.jsonl --dtype $dtype --out "$out/$dtype.scores"
        "$sails" subspace --scores "$out/$dtype.scores" --top-k 9 --out "$out/$dtype.subspace"
        for init in lora sails; do
            from=()
            [ $init = lora ] || from=(--subspace "$out/$dtype.subspace")
            for packs in 64 4096; do
                "$sails" train --model world/model --data world/pairs.jsonl --dtype $dtype \
                    --init $init "${from[@]}" --batch 16 --steps 6 --lr 1e-3 \
                    --max-length 64 --pack-tokens $packs --out "$out/$dtype.$init.$packs"
            done
        done
        "$sails" generate --model world/model --adapter "$out/$dtype.sails.64" --dtype $dtype \
            --prompts world/harmful.jsonl --limit 16 --max-new-tokens 24 --out "$out/$dtype.responses"
        "$sails" logprob --model world/model --adapter "$out/$dtype.lora.64" --dtype $dtype \
            --data world/pairs.jsonl --limit 8 --out "$out/$dtype.logprobs"
    done
    "$sails" merge --model world/model --adapter "$out/f32.sails.64" --out "$out/merged"
    strip_times "$out"
}

old=$(build "$1") new=$(build "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$old/build/tools/planted_world" world >/dev/null
run "$old/build/sails" old >log 2>&1 || { tail -n 3 log && exit 1; }
run "$new/build/sails" new >log 2>&1 || { tail -n 3 log && exit 1; }

differ=0 equal=0
while IFS= read -r file; do
    if cmp -s "old/$file" "new/$file"; then
        equal=$((equal + 1))
    else
        echo "differs: $file"
        differ=$((differ + 1))
    fi
done < <({ cd old && find . -type f; cd ../new && find . -type f; } | sort -u)
echo "same_bits: $equal files equal, $differ differ"
[ $differ -eq 0 ] && [ $equal -gt 0 ]
