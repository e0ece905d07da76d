#!/usr/bin/env bash
# summary.sh SECONDS - what check.sh found, as a page of Markdown, from the files in OUT.
set -uo pipefail
SAILS=$KIT/bin/sails

# The most worth knowing of `sails bench --derive`: op, shape, GB, GFLOP, ceiling and expected ms.
derived() { # FLAG...
    "$SAILS" bench --derive --csv --shape 9b "$@" |
        awk -F , -v OFS='\t' 'NR > 1 && $3 != "step" { print $3, $7, $8, $10, $11 }'
}

head_and_lines() {
    local about
    about=$(sed -n 's/^# \(.*threads, sails.*\)/\1/p' "$OUT/ops.csv" 2>/dev/null | head -n 1)
    echo "# ${about:-sails on a GPU}"
    echo
    awk -F '\t' -v s="$1" '{ n[$2]++ }
        END { printf "%d lines in %d s: %d ok, %d RED, %d cut, %d not run, %d without time left.\n",
                  NR, s, n["ok"], n["RED"], n["cut"], n["not run"], n["no time left"] }' \
        "$OUT/verdicts.tsv"
    printf '\n| line | verdict | s | |\n|---|---|---|---|\n'
    awk -F '\t' '{ printf "| %s | %s | %s | %s |\n", $1, $2, $3, $4 }' "$OUT/verdicts.tsv"
}

RED='$2 != 0 && $2 != 124 && $2 != 137' # the last two: out of time
# Tests that failed: what they said, and what they said with SAILS_SYNC=1, which names the kernel.
red_tests() {
    local name status
    awk -F '\t' "$RED" "$OUT/tests.tsv" 2>/dev/null | grep -q . || return 0
    printf '\n## Red tests\n\n| test | exit | said | with SAILS_SYNC=1 |\n|---|---|---|---|\n'
    while read -r name status _; do
        echo "| $name | $status | $(culprit tests "$name") | $(culprit sync "$name") |"
    done < <(awk -F '\t' "$RED" "$OUT/tests.tsv")
}
culprit() { # FOLDER NAME
    { grep -m 1 -E '^sails: ' "$OUT/$1/$2.log" || grep -m 1 FAIL "$OUT/$1/$2.log" ||
        tail -n 1 "$OUT/$1/$2.log"; } 2>/dev/null | tr '|' ' ' | cut -c 1-200
}

# Of each op the call that took longest. The ceiling of a call is the larger of its FLOPs at the rate
# that --derive leaves its op, and of its bytes at an H100's 3.35 TB/s.
ops() {
    [ -s "$OUT/ops.csv" ] || return 0
    cat <<'END'

## Ops

What is bound by memory can pass an H100's ceiling on a card with a faster one (an H200's 4.8 TB/s).

| op | shape | us | GB/s | TFLOP/s | H100's ceiling, derived, us | share of it |
|---|---|---|---|---|---|---|
END
    derived --rows 8192 --length 4096 | awk -F '[\t,]' '
        NR == FNR { if ($4 > 0 && $3 / $4 > flops[$1]) flops[$1] = $3 / $4
                    next }
        $2 ~ /^cuda/ && $7 > us[$3] { us[$3] = $7; shape[$3] = $4; gb[$3] = $9; gf[$3] = $10 }
        END { for (op in us) {
                  least = us[op] * gb[op] / 3350
                  by_flops = flops[op] ? us[op] * gf[op] / 1000 / flops[op] : 0
                  if (by_flops > least) least = by_flops
                  printf "| %s | %s | %.1f | %.0f | %.2f | %.1f | %.0f %% |\n", op, shape[op], us[op],
                      gb[op], gf[op] / 1000, least, 100 * least / us[op]
              } }' - "$OUT/ops.csv" | sort -t '|' -k 4 -n -r | head -n 24
}

# A step by op: t(L) = a + b L through 4 and 8 layers, at 42; beside what --derive expects there.
step() { # hh|full TITLE FLAG...
    local pack=$1 title=$2
    shift 2
    [ -s "$OUT/step-$pack-4.csv" ] && [ -s "$OUT/step-$pack-8.csv" ] || return 0
    printf '\n## A step at 9B width, %s\n\n' "$title"
    echo '| ms | 4 layers | 8 layers | 42, by a + b L | H100 derived: ceiling | expected |'
    echo '|---|---|---|---|---|---|'
    derived "$@" | awk -F '[\t,]' "$AT_42"'
        FILENAME == "-" { ceiling[$1] += $4; expected[$1] += $5; all += $4; hope += $5; next }
        $2 !~ /^cuda/ { next }
        FILENAME ~ /-4.csv$/ { four[$3] = $5 }
        FILENAME ~ /-8.csv$/ { eight[$3] = $5 }
        END { ceiling["step"] = all
              expected["step"] = hope
              for (op in eight)
                  printf "| %s | %.3f | %.3f | %.1f | %.1f | %.1f |\n", op, four[op], eight[op],
                      at_42(four[op], eight[op]), ceiling[op], expected[op] }' \
        - "$OUT/step-$pack-4.csv" "$OUT/step-$pack-8.csv" | sort -t '|' -k 5 -n -r | head -n 12
}

rates() {
    [ -s "$OUT/rates.tsv" ] || return 0
    printf '\n## Rates of a step\n\n42 layers: by the line a + b L through the times of 4 and 8.\n\n'
    printf '| pack | tokens/s | 4 layers | 8 layers | 42 layers |\n|---|---|---|---|---|\n'
    awk -F '\t' "$AT_42"'
        $4 > 0 { ms[$1, $2, $3] = $4; tokens[$1, $2] = $5 }
        END { for (key in tokens) {
                  split(key, part, SUBSEP)
                  t4 = ms[key, 4]
                  t8 = ms[key, 8]
                  t = t4 && t8 ? at_42(t4, t8) : 0
                  printf "| %s | %s | %s | %s | %s |\n", part[2], part[1], of(tokens[key], t4),
                      of(tokens[key], t8), of(tokens[key], t)
              } }
        function of(n, t) { return t > 0 ? sprintf("%.0f", 1000 * n / t) : "-" }' "$OUT/rates.tsv" |
        sort
}

head_and_lines "$1"
red_tests
ops
step hh '51 documents of 160 tokens, a quarter targets' --rows 8160 --length 160 --labels 0.25
step full '2 documents of 4096 tokens, all targets' --rows 8192 --length 4096
rates
[ -z "$BRIEF" ] || printf '\nBrief shapes: the rates mean nothing.\n'
