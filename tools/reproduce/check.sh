#!/usr/bin/env bash
# check.sh 2b|9b FOLDER [FLAG OF sails align]... - what a reproduction needs and costs, before it starts.
#
#   tools/reproduce/check.sh 9b /data/sails
#   GPUS=2 tools/reproduce/check.sh 9b /data/sails --methods base,lora,sails --seeds 1
#
# Looks for every input in FOLDER: by its hash where one is known (hashes.txt), else by its shape, and
# prints the commands that fetch what is missing; nothing is fetched here. Then the plan of every
# stage, GPU-hours and disk. Nothing is loaded onto a GPU, none need be here, nothing is written.
#
# GPUS        how many will run it (8), of GPU_MEMORY GB each (80)
# PRICE       of one for an hour, in any currency (2.50: an assumption, ask who lets you one)
# HASHES      another list than hashes.txt: /dev/null takes any data
#
# Exit codes are sails': 0 all is there and fits, 3 something is missing or is something else, 4 it
# does not fit.
set -u
# shellcheck source=inputs.sh
source "$(dirname "${BASH_SOURCE[0]}")/inputs.sh"
: "${GPUS:=8}" "${GPU_MEMORY:=80}" "${PRICE:=2.50}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

refuse() { # CODE LINE
    echo "check.sh: $2" >&2
    exit "$1"
}
fact() { # FILE KEY: a number of what `sails inspect --json` said
    sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" "$1"
}

# ------------------------------------------------------------------------------- each input --
declare -A known
while read -r kind hash name; do
    [[ $kind == '#'* ]] || known[$name]="$kind $hash"
done <"${HASHES:-$reproduce/hashes.txt}"

hash_of() { # KIND FILE
    case $1 in
    sha256) sha256sum <"$2" ;;
    git) { printf 'blob %s\0' "$(stat -Lc %s "$2")" && cat "$2"; } | sha1sum ;;
    esac | cut -d ' ' -f 1
}

# Is a file or folder that is there what it should be? Says what it is.
holds() { # NAME
    local path=$root/$1 kind hash files
    if [ -n "${known[$1]:-}" ]; then
        read -r kind hash <<<"${known[$1]}"
        [ "$(hash_of "$kind" "$path")" = "$hash" ] && echo "its hash" && return
        echo "expected $kind $hash, found another file"
        return 1
    fi
    case $1 in
    gemma-*/*.npz)
        "$sails" inspect --json "$path" >"$scratch/fact" 2>"$scratch/why" || { tail -n 1 "$scratch/why" && return 1; }
        [ "$(fact "$scratch/fact" features) $(fact "$scratch/fact" 'stream width')" = "$features $width" ] &&
            echo "$features features of width $width" && return
        echo "expected $features features of width $width, found $(fact "$scratch/fact" features) of $(fact "$scratch/fact" 'stream width')"
        return 1
        ;;
    gemma-*)
        "$sails" inspect --json "$path" >"$scratch/fact" 2>"$scratch/why" || { tail -n 1 "$scratch/why" && return 1; }
        [ "$(fact "$scratch/fact" parameters)" = "$parameters" ] && echo "$parameters parameters" && return
        echo "expected $parameters parameters, found $(fact "$scratch/fact" parameters)"
        return 1
        ;;
    HEx-PHI)
        files=("$path"/category_*.csv)
        [ ${#files[@]} -ge 10 ] && echo "${#files[@]} categories" && return
        echo "expected category_1.csv, category_3.csv to category_11.csv, found ${#files[@]} of the kind"
        return 1
        ;;
    *) echo "$(wc -l <"$path") lines" ;;
    esac
}

missing=0 wrong=0 said=''
look() { # WORD INPUT...: of those that are not there the word, and how to fetch them
    local word=$1 input name rest what fetch found
    shift
    for input in "$@"; do
        name=${input%%|*} rest=${input#*|}
        what=${rest%%|*} fetch=${rest#*|}
        if [ ! -e "$root/$name" ]; then
            printf '%-9s %s (%s)\n' "$word" "$name" "$what"
            [ "$fetch" = "$said" ] || printf '          %s\n' "$fetch"
            said=$fetch
            [ "$word" != missing ] || missing=$((missing + 1))
        elif found=$(holds "$name"); then
            printf '%-9s %s: %s\n' ok "$name" "$found"
        else
            printf '%-9s %s: %s\n' wrong "$name" "$found"
            wrong=$((wrong + 1))
        fi
    done
}
echo "inputs, in $root:"
look missing "${needed[@]}"
look without "${wanted[@]}"
[ $((missing + wrong)) -eq 0 ] ||
    refuse 3 "$missing of the ${#needed[@]} inputs that are needed are missing, $wrong are not what they should be; see above"

# --------------------------------------------------------------------------------- the plan --
benign_file "$scratch/xstest-safe.csv"
plan() { # FLAGS
    "$sails" align "$recipe" "${inputs[@]}" --check --gpu-memory "$GPU_MEMORY" --ranks "$GPUS" "$@"
}
plan_tuned() { # FLAGS
    [ ! -e "$root/$tuned" ] ||
        plan "$@" "${untrained[@]}" --model "$root/$tuned" --out "$tuned_run"
}
echo
echo "plan, with $GPU_MEMORY GB a GPU and as many ranks as GPUs, $GPUS:"
plan "$@" --model "$root/$model" --out "$run" || {
    code=$?
    [ $code -ne 4 ] || echo "check.sh: --methods names the rows that are wanted; full needs the most" >&2
    exit $code
}
echo
plan_tuned || exit

# --------------------------------------------------------------------------- what it costs --
value() { # KEY: a number of the recipe; the last one of that name, generate's
    sed -n "s/^  $1: *\([0-9]*\).*/\1/p" "$recipe" | tail -n 1
}
{ plan --json "$@" --model "$root/$model" --out "$run" && plan_tuned --json |
    sed -n "/\"generate\"/s/\"row\":\"\"/\"row\":\"$tuned\"/p"; } >"$scratch/plan" || exit
runs=$(sed -n 's/.*"stage":"generate".*"runs":\([0-9]*\).*/\1/p' "$scratch/plan" | awk '{ n += $1 } END { print n }')
other() { # NAME PROMPTS: replies to prompts beside the recipe's, which are of 64 tokens, about
    [ "$2" -eq 0 ] || echo "{\"stage\":\"generate\",\"row\":\"$1\",\"tokens\":$((runs * $2 * 64)),\"made\":$((runs * $2 * $(value max-new-tokens)))}" >>"$scratch/plan"
}
other HEx-PHI "$(cat "$root"/HEx-PHI/category_*.csv 2>/dev/null | wc -l)"
[ ! -e "$root/gcg.jsonl" ] || other GCG "$(wc -l <"$root/gcg.jsonl")"

pack=$(value pack-tokens)
rate=$("$sails" bench --derive --csv --model "$root/$model" --rows "$pack" --length 154 --labels 0.3 |
    sed -n 's/.*,step,gemm at 650 TFLOP\/s,//p' | cut -d , -f 10)
[ -n "$rate" ] || refuse 1 "no step on paper: sails bench --derive says nothing of 650 TFLOP/s"
"$sails" inspect --json "$root/$model" >"$scratch/fact"
layers_of=$(fact "$scratch/fact" layers)
kv=$((2 * 2 * layers_of * $(fact "$scratch/fact" 'key\/value heads') * $(fact "$scratch/fact" 'head width')))
last=${saes##* }
echo
echo "time, derived from a step on paper ($rate tokens/s of LoRA on an H100); no card has been measured;"
echo "reading weights and hashing inputs are not in it, and replies are as long as they may be:"
awk -f "$reproduce/hours.awk" -v rate="$rate" -v pack="$pack" -v gpus="$GPUS" -v price="$PRICE" \
    -v parameters="$parameters" -v layers="$layers_of" -v width="$width" -v kv=$kv \
    -v features="$features" -v saes="$(wc -w <<<"$saes")" -v top="${last%:*}" \
    -v batch="$(value batch)" -v words="$(value max-new-tokens)" -v longest=350 \
    "$scratch/plan"
echo "on the disk now: $(du -shL "$root" 2>/dev/null | cut -f 1); free: $(df -h --output=avail "$root" | tail -n 1 | tr -d ' ')"
