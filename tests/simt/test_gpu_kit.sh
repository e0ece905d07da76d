#!/usr/bin/env bash
# test_gpu_kit.sh BUILD verdicts|lines - tools/gpu/check.sh in an unpacked kit, the simulated device
# in the card's place. verdicts: what is said of lines that work, fail, hang, lack a tool or have no
# time left. lines: all that work here, at brief shapes; it takes minutes.
set -euo pipefail
export PYTHON=/no/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kit=$work/kit
cmake --install "$1" --prefix "$kit" >/dev/null
cmake --install "$1" --prefix "$kit" --component kit >/dev/null
failed=0

fail() {
    echo "FAIL $*"
    failed=1
}

# checked EXIT OPTION... : a run into $out.
checked() {
    local expected=$1 status=0
    shift
    out=$(mktemp -d -p "$work")
    "$kit/check.sh" --brief "$@" "$out" >"$out.said" 2>&1 || status=$?
    [ $status -eq "$expected" ] || fail "check.sh $*: exit $status, not $expected: $(cat "$out.said")"
}

# says PATTERN... : each is in a line of the summary.
says() {
    local pattern
    for pattern in "$@"; do
        grep -qE -- "$pattern" "$out/summary.md" || fail "no '$pattern' in: $(cat "$out/summary.md")"
    done
}

# A test that fails, of an op that is named where every launch is waited for.
plant() {
    cat >"$kit/tests/test_planted_red" <<'END'
#!/bin/sh
[ "${SAILS_SYNC:-}" != 1 ] || { echo "sails: kernels/fake.cu:7: k_fake: expected order" && exit 134; }
echo "something is off"
exit 1
END
    chmod +x "$kit/tests/test_planted_red"
    echo 'op planted_red' >>"$kit/tests/device_tests"
}

# A tool that never ends, and leaves its number.
hang() {
    mkdir -p "$work/bin"
    printf '#!/bin/sh\necho $$ >"%s/pid"\nsleep 1000\n' "$work" >"$work/bin/nvidia-smi"
    chmod +x "$work/bin/nvidia-smi"
}

verdicts() {
    checked 0 --lines tests,logits,lora,peers --tests embed,top_k --limit 300
    says '^4 lines in [0-9]+ s: 1 ok, 0 RED, 0 cut, 3 not run' '^[|] tests [|] ok .* 2 of 2 green [|]$' \
        '^[|] (logits|lora|peers) [|] not run [|] [0-9]+ [|] no /no/python [|]$'
    plant
    checked 1 --lines tests,logits --tests embed,planted_red --limit 300
    says '^2 lines .* 1 RED,' '^[|] tests [|] RED .* 1 of 2 green; red: planted_red [|]$' \
        '^[|] planted_red [|] 1 [|] something is off [|] sails: .* k_fake: expected order [|]$' \
        '^[|] logits [|] not run '
    hang
    PATH=$work/bin:$PATH checked 1 --lines card,logits --limit 5
    says '^[|] card [|] cut ' '^[|] logits [|] (not run|cut) '
    ! kill -0 "$(cat "$work/pid")" 2>/dev/null || fail 'what hung is still there'
    checked 1 --lines doctor,ops --seconds 5
    says '^2 lines .* 2 without time left' '^[|] ops [|] no time left [|] 0 [|]  [|]$'
    checked 2 --lines nonsense
}

lines() {
    checked 0 --lines doctor,tests,planted,ops,step,memcheck,initcheck,ncu --tests embed,rope,loss \
        --limit 900 --seconds 1700
    says '^8 lines .* [5-8] ok, 0 RED, 0 cut, ' '^[|] doctor [|] ok .* matmul is right' \
        '^[|] planted [|] ok .* 8 losses; off by ' '^[|] sae_stats [|] 16x' '^[|] attn_fwd [|] 1 in ' \
        '^[|] step [|] [0-9.]+ [|] [0-9.]+ [|] [0-9.]+ [|]' '^[|] (hh|full) [|] sails [|] [1-9]'
}

"$2"
[ $failed -ne 0 ] || echo "test_gpu_kit $2: ok"
exit $failed
