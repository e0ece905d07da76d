#!/usr/bin/env bash
# table.sh 2b|9b FOLDER - "paper | ours | where we chose" of a reproduction, as Markdown.
#
# Reads what run.sh has left in FOLDER/runs, finished or not: what is not there yet is "-". A number of
# ours is the mean over the row's seeds, and in brackets the least and the largest; the intervals and
# tests are in the run folder's summary.json.
set -u
# shellcheck source=inputs.sh
source "$(dirname "${BASH_SOURCE[0]}")/inputs.sh"

rows=$({ # as the recipe has them, where all are done
    sed -n 's/^      "name": "\(.*\)",*$/\1/p' "$run/summary.json" 2>/dev/null
    for file in "$run"/responses/*.jsonl; do
        [ ! -e "$file" ] || basename "$file" .jsonl
    done | sed 's/\..*//'
} | awk '!seen[$0]++')

values() { # SUITE ROW KEY: a line a seed
    local folder=$run row=$2
    [ "$row" != it ] || folder=$tuned_run row=base
    for file in "$folder/judged/$1/$row".json "$folder/judged/$1/$row".*.json; do
        [ ! -e "$file" ] || sed -n "s/^  \"$3\": \([-0-9.e]*\),*$/\1/p" "$file"
    done
}
numbers() { # FORMAT: the mean of lines, and their range where there are several
    awk -v f="$1" '{ s += $1; n++; if (n == 1 || $1 < a) a = $1; if (n == 1 || $1 > b) b = $1 }
        END { if (!n) print "-"; else { printf f, s / n
              if (n > 1) { printf " (" f " to " f ")", a, b } print "" } }'
}
percent() { # SUITE ROW KEY
    values "$@" | awk '{ print 100 * $1 }' | numbers '%.1f'
}
harm() { # ROW
    values HEx-PHI "$1" harmfulness | numbers '%.2f'
}
success() { # ROW: of an attack: answers that are not safe
    values gcg "$1" safety_rate | awk '{ print 100 * (1 - $1) }' | numbers '%.1f'
}
trainable() { # ROW
    [ ! -e "$run/summary.json" ] || awk -v row="$1" '
        /^      "name": / { gsub(/.*: "|",*$/, ""); name = $0 }
        /^      "trainable_percent": / && name == row { gsub(/.*: |,$/, ""); print }
    ' "$run/summary.json"
}
over_full() {
    paste -d ' ' <(values hh-rlhf sails safety_rate | numbers '%.6f') \
        <(values hh-rlhf full safety_rate | numbers '%.6f') |
        sed 's/([^)]*)//g' | awk '$1 == "-" || $2 == "-" { print "-"; next } { printf "%+.1f\n", 100 * ($1 - $2) }'
}
theory() { # COLUMN: of the smallest error of the dictionary that is not zero
    [ ! -e "$root/runs/theory/eps.csv" ] || awk -F , -v column="$1" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $1 > 0 { print $at[column]; exit }' "$root/runs/theory/eps.csv"
}
judges=$(sed -n 's/^  "judge": "\(.*\)",*$/\1/p' "$run"/judged/*/*.json 2>/dev/null | sort -u | paste -sd ' ')

line() { # WHAT PAPER OURS CHOICE
    echo "| $1 | ${2:--} | ${3:--} | $4 |"
}
echo "Gemma-2 $size"
echo
echo "| | paper | ours | where we chose |"
echo "|---|---|---|---|"
line "safety rate on HH-RLHF's harmless test, %" "up to ${paper_safety:-(of 9B)}" "$(percent hh-rlhf sails safety_rate)" \
    "SAILS: U in A of q, k, v and in B of o, the rest zero; judge ${judges:--}, theirs kimi-k2"
line "over full fine-tuning, points" "${paper_over_full:-}" "$(over_full)" "full: rate 2e-5; adapters 2e-4"
line "instruction-tuned, %" "matched" "$(percent hh-rlhf it safety_rate)" "$tuned"
line "trainable, %" "${paper_trainable:-}" "$(trainable sails | numbers '%.4f')" "rank 16 on q, k, v, o; rank 32 on two of them counts the same"
line "HEx-PHI harmfulness, LoRA" "${paper_harm_lora:-}" "$(harm lora)" "300 prompts; theirs may be 330"
line "HEx-PHI harmfulness, SAILS" "${paper_harm_sails:-}" "$(harm sails)" "the same"
line "GCG's success, LoRA, %" "${paper_gcg_lora:-}" "$(success lora)" "suffixes made elsewhere, if any; sails attacks nobody"
line "GCG's success, SAILS, %" "${paper_gcg_sails:-}" "$(success sails)" "the same"
line "error of a subspace by SAEs" "arbitrarily small" "$(theory sae_error)" "sails theory: a dictionary off by 0.001"
line "error of a direct one" "sqrt(r-1) or more" "$(theory mean_error), floor $(theory floor)" "of one mean difference, r = 8; others have no floor"
echo
echo "| row | safe, % | scored 5, % | over-refusal, % | HEx-PHI | GCG, % | trainable, % |"
echo "|---|---|---|---|---|---|---|"
for row in $rows it; do
    echo "| $row | $(percent hh-rlhf "$row" safety_rate) | $(percent hh-rlhf "$row" high_risk) |" \
        "$(percent hh-rlhf "$row" over_refusal) | $(harm "$row") | $(success "$row") |" \
        "$(trainable "$row" | numbers '%.4f') |"
done
echo
echo "Where the paper says nothing we chose: SAEs $saes (layer:L0, of $scope); the final reply's tokens, pooled;"
sed -n 's/^  \([a-z0-9-]*\): *\([^ #]*\) *# open.*/\1 \2/p' "$recipe" | paste -sd, | sed 's/,/, /g; s/$/;/'
echo "layers without an SAE take the nearest one's basis; AdamW, cosine, 3 % warm-up. $run/manifest.json has all."
