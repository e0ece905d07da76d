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

# fake FOLDER NAME: a program of that name from what is read.
fake() {
    mkdir -p "$work/$1"
    { echo '#!/bin/sh' && cat; } >"$work/$1/$2"
    chmod +x "$work/$1/$2"
}

# A tool that never ends, whatever it is sent, nor does what it started; it leaves their numbers.
hang() {
    fake hang nvidia-smi <<END
trap '' TERM
sleep 1000 &
echo \$\$ \$! >"$work/pids"
wait
END
}
# Both have ended; that nobody has asked yet how (Z) is up to their new parent.
ended() {
    local pid state
    for pid in $(cat "$work/pids"); do
        ! state=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) || [ "${state:0:1}" = Z ] ||
            fail "what hung is still there: $pid, $state"
    done
}

# NVIDIA's tools and Python's libraries, as far as a line can tell.
fake_tools() {
    fake tools compute-sanitizer <<'END'
while [ "${1#--}" != "$1" ]; do shift 2; done
exec "$@"
END
    fake tools ncu <<'END'
echo "  k_fake, of $*"
echo '    Duration us 1'
END
    fake tools python <<'END'
case $* in
*train_hf.py*) echo '{"rate": 100.0}' ;;
*.py*) echo 'as it should be: max 1e-9' ;;
esac
END
}

# A program whose rates are known.
fake_sails() {
    mv "$kit/bin/sails" "$kit/bin/sails.real"
    fake kit/bin sails <<'END'
[ "$1" = bench ] || { for last; do :; done && mkdir -p "$last" && exit; }
echo 'card,cuda bf16,gemm,NN 256x3584x256000,1,1,1,1,111000,222000,33'
echo 'card,cuda bf16,gemm,NT 256x3584x3584,1,1,1,1,444000,333000,33'
echo 'card,cuda bf16,attn_fwd,1 in 4096,1,1,1,1,555000,111000,33'
END
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
    PATH=$work/hang:$PATH checked 1 --lines card,logits --limit 5
    says '^[|] card [|] cut ' '^[|] logits [|] (not run|cut) '
    ended
    # 3 of the 12 are the summary's; the clock counts whole seconds, the first of them may be short.
    PATH=$work/hang:$PATH checked 1 --lines card,ops --seconds 12
    says '^2 lines in ([89]|1[0-4]) s: .* 2 without time left' '^[|] card [|] no time left [|] ([89]|1[0-3]) ' \
        '^[|] ops [|] no time left [|] 0 [|]  [|]$'
    ended
    checked 2 --lines nonsense
    SIMT_GPUS=2 checked 0 --lines ranks --limit 120
    says '^[|] ranks [|] ok .* two ranks: the bytes of one'
    sanitizers
    fake_sails
    checked 0 --lines ops --limit 60
    says '^[|] ops [|] ok .* 3 rows; best TFLOP/s: gemm 333.0, attn_fwd 111.0, attn_bwd 0.0; head of 256 rows'
    mv "$kit/bin/sails.real" "$kit/bin/sails"
}

# What a sanitizer finds is red; what it may not look at is not run.
sanitizers() {
    echo 'exit 99' | fake finds compute-sanitizer
    PATH=$work/finds:$PATH checked 1 --lines memcheck,initcheck --tests embed --limit 60
    says '^[|] memcheck [|] RED .* red: embed [|]$' '^[|] initcheck [|] RED '
    echo 'echo "Device not supported" && exit 1' | fake refused compute-sanitizer
    PATH=$work/refused:$PATH checked 1 --lines memcheck,racecheck --tests embed --limit 60
    says '^2 lines .* 0 RED, 0 cut, 2 not run' '^[|] racecheck [|] not run .* Device not supported'
}

lines() {
    fake_tools
    PATH=$work/tools:$PATH PYTHON=$work/tools/python checked 0 --tests embed,rope,loss --limit 900 \
        --seconds 1700 --lines doctor,tests,logits,lora,planted,ops,models,step,ranks,peers,memcheck,\
racecheck,initcheck,ncu
    says '^14 lines .* 13 ok, 0 RED, 0 cut, 1 not run' '^[|] ranks [|] not run .* one card' '^[|] doctor [|] ok .* matmul is right' \
        '^[|] planted [|] ok .* 8 losses; off by ' '^[|] sae_stats [|] 16x' '^[|] attn_fwd [|] 1 in ' \
        '^[|] step [|] [0-9.]+ [|] [0-9.]+ [|] [0-9.]+ [|]' '^[|] (hh|full) [|] sails [|] [1-9]' \
        '^[|] (hh|full) [|] peft [|] 100 [|]' '^[|] ncu [|] ok .* 5 of 5 ops profiled'
}

"$2"
[ $failed -ne 0 ] || echo "test_gpu_kit $2: ok"
exit $failed
