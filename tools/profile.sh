#!/usr/bin/env bash
# tools/profile.sh nsys|ncu [--steps A[-B]] [--range NAME[:NAME]] [--out FILE] COMMAND... - where the
# time of a sails command goes on a GPU.
#
#   tools/profile.sh nsys --steps 10-12 train recipe.yaml          a timeline of three steps
#   tools/profile.sh ncu --range 'layer 07' train recipe.yaml      each kernel of a layer, in depth
#
# nsys draws kernels and copies under the ranges that sails names: step > microbatch > forward >
# layer 07 > attn; calls of several ranks, "exchange gradients", have their own. ncu runs each kernel many times to read all of its counters, so it needs a part
# of the run. Recorded is from the first range of the first name to the end of the first of the
# second, everything without --steps and --range. Steps are train's; generate has "pass N", score
# "pack N". FILE is sails-profile unless given. SAILS is the program, build/sails unless set.
# Where the profiler is missing, prints what would have run and exits 2.
set -euo pipefail
usage() {
    echo "usage: tools/profile.sh nsys|ncu [--steps A[-B]] [--range NAME[:NAME]] [--out FILE] COMMAND..." >&2
    exit 2
}
TOOL=${1:-} CAPTURE='' OUT=sails-profile
SAILS=${SAILS:-$(dirname "$0")/../build/sails}
[ $# -eq 0 ] || shift
while [ $# -gt 1 ]; do
    case $1 in
    --steps) CAPTURE="step ${2%-*}:step ${2#*-}" ;;
    --range) CAPTURE="${2%%:*}:${2#*:}" ;;
    --out) OUT=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -gt 0 ] || usage

case $TOOL in
nsys)
    run=(nsys profile '--trace=cuda,nvtx,cublas' --sample=none --cpuctxsw=none --stats=true
        --force-overwrite=true "--output=$OUT")
    [ -z "$CAPTURE" ] || run+=(--capture-range=cudaProfilerApi --capture-range-end=stop)
    home='Nsight Systems, https://developer.nvidia.com/nsight-systems'
    ;;
ncu)
    [ -n "$CAPTURE" ] || { echo "profile: ncu needs --steps or --range: a whole run takes days" >&2 && exit 2; }
    run=(ncu --nvtx --set=full --import-source=yes --force-overwrite "--export=$OUT"
        --profile-from-start=off)
    home='Nsight Compute, https://developer.nvidia.com/nsight-compute, and the right to read counters
(root, or the driver option NVreg_RestrictProfilingToAdminUsers=0)'
    ;;
*) usage ;;
esac
[ -z "$CAPTURE" ] || run=(env "SAILS_CAPTURE=$CAPTURE" "${run[@]}")
run+=("$SAILS" "$@")

if ! command -v "$TOOL" >/dev/null; then
    printf 'profile: %s is not on the path. It is part of the CUDA toolkit and comes with\n%s.\n' \
        "$TOOL" "$home" >&2
    printf 'It would run:\n%s\n' "${run[*]@Q}" >&2
    exit 2
fi
exec "${run[@]}"
