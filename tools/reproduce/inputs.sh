# shellcheck shell=bash disable=SC2034 # the scripts that source it use them
# inputs.sh - what the scripts beside it share: what the recipe NAME.yaml needs in a folder, and how it
# comes there. To be sourced with the scripts' arguments. NAME is 2b, 9b, or the path of another such
# recipe without .yaml, beside which NAME.facts lies. Sets
#
#   needed, wanted   inputs, each "path|what it is|command that fetches it": without the first nothing
#                    runs, without the others a row or a column of the table is empty
#   inputs           flags of `sails align` for them; benign_file writes one more, and adds its flag
#   model, tuned     folders of the models, in $root
#   run, tuned_run   run folders: of the recipe, and of the instruction-tuned model
#   untrained        the arguments that mean something where nothing is trained

reproduce=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cluster=$reproduce/../cluster
usage() {
    echo "usage: $(basename "$0") 2b|9b FOLDER [FLAG OF sails align]..." >&2
    exit 2
}
[ $# -ge 2 ] || usage
case $1 in
*/*) recipe=$1.yaml ;;
*) recipe=$reproduce/$1.yaml ;;
esac
recipe_name=$1 size=$(basename "$1") root=${2%/}
shift 2
[ -e "$recipe" ] || usage
# shellcheck source=9b.facts
source "${recipe%.yaml}.facts"

# The program: SAILS, else that of this build or installation, else the one on the PATH.
for sails in "${SAILS:-}" "$reproduce/../../build/sails" "$reproduce/../../../bin/sails" \
    "$(command -v sails)"; do
    [ ! -x "$sails" ] || break
done
[ -x "$sails" ] || { echo "$(basename "$0"): no program sails: build it, or name it in SAILS" >&2 && exit 2; }

model=gemma-2-$size tuned=gemma-2-$size-it scope=gemma-scope-$size-pt-res
layers=()
include=()
for sae in $saes; do
    layers+=("layer_${sae%:*}/$sae_folder/average_l0_${sae#*:}/params.npz")
    include+=("--include '${layers[-1]}'")
done
hub="hf download google"
needed=(
    "$model|Gemma-2 $size, $download, under Gemma's terms: hf auth login first|$hub/$model --local-dir '$root/$model'"
    "hh-rlhf/harmless-base/train.jsonl.gz|HH-RLHF to train on|hf download Anthropic/hh-rlhf --repo-type dataset --include 'harmless-base/*' --local-dir '$root/hh-rlhf'"
    "hh-rlhf/harmless-base/test.jsonl.gz|HH-RLHF, the table's prompts|(the same command)")
for layer in "${layers[@]}"; do
    needed+=("$scope/$layer|Gemma Scope|$hub/$scope ${include[*]} --local-dir '$root/$scope'")
done
wanted=(
    "$tuned|the instruction-tuned model's row, $tuned_download|$hub/$tuned --local-dir '$root/$tuned'"
    "HEx-PHI|harmfulness; its owners grant access|hf download LLM-Tuning-Safety/HEx-PHI --repo-type dataset --local-dir '$root/HEx-PHI'"
    "xstest_prompts.csv|over-refusal|curl -fL https://raw.githubusercontent.com/paul-rottger/xstest/main/xstest_prompts.csv -o '$root/xstest_prompts.csv'"
    "gcg.jsonl|prompts with GCG's suffixes, {\"prompt\"} a line|(made elsewhere: sails attacks nobody)")

run=$root/runs/$size tuned_run=$root/runs/$size-it benign=$root/runs/xstest-safe.csv
inputs=(--data "$root/hh-rlhf/harmless-base/train.jsonl.gz"
    --sae "$root/$scope/layer_{layer}/$sae_folder/average_l0_*/params.npz"
    --prompts "$root/hh-rlhf/harmless-base/test.jsonl.gz")

# What was given of flags that are not about training: for a model that is not trained.
untrained=(--methods base)
for ((i = 1; i <= $#; i++)); do
    case ${!i} in
    --methods | --train.methods | --seeds | --rates) i=$((i + 1)) ;;
    --methods=* | --train.methods=* | --seeds=* | --rates=*) ;;
    *) untrained+=("${!i}") ;;
    esac
done

# XSTest's prompts that are safe to answer: the others are not for over-refusal.
benign_file() { # TO
    [ -e "$root/xstest_prompts.csv" ] || return 0
    mkdir -p "$(dirname "$1")"
    { head -n 1 "$root/xstest_prompts.csv" && grep ',safe,' "$root/xstest_prompts.csv"; } >"$1"
    inputs+=(--benign "$1")
}
