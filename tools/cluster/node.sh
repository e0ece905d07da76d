#!/usr/bin/env bash
# node.sh COMMAND... - runs COMMAND by mpirun, one rank for each of this machine's GPUs.
#
#   tools/cluster/node.sh sails train recipe.yaml --checkpoint-minutes 20 --resume
#
# RANKS           how many; unset: CUDA_VISIBLE_DEVICES, else nvidia-smi, else one
# CORES           binds each rank to so many; unset: none is bound, and sails shares them out.
#                 mpirun by itself binds a rank of one or two to a single core
# MPIRUN_OPTIONS  more of mpirun's, split at spaces: -x NCCL_DEBUG=INFO --hostfile hosts
#
# Exits with COMMAND's code; 7: the state is saved, and --resume goes on from it. mpirun gives its
# ranks one second between TERM and KILL, so TERM is turned into USR1 here, which mpirun hands on
# and lets them take their time. To end them at once: INT (Ctrl-C), or KILL to mpirun.
set -u
[ $# -gt 0 ] || { echo "usage: node.sh COMMAND..." >&2 && exit 2; }

gpus() {
    if [ "${CUDA_VISIBLE_DEVICES+set}" ]; then # empty: no GPU is ours
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .
    else
        nvidia-smi -L 2>/dev/null | grep -c '^GPU'
    fi
}
: "${RANKS:=$(gpus)}"
[ "$RANKS" -gt 0 ] || RANKS=1
binding=(--bind-to none)
[ -z "${CORES:-}" ] || binding=(--map-by "slot:PE=$CORES")

pid='' signalled=yes missed=''
trap 'signalled=yes; kill -USR1 $pid 2>/dev/null || missed=yes' TERM USR1
trap 'signalled=yes' INT # a terminal sends it to mpirun as well
# shellcheck disable=SC2086 # options are words
mpirun -np "$RANKS" "${binding[@]}" ${MPIRUN_OPTIONS:-} "$@" &
pid=$!
if [ "$missed" ]; then # it came before there was a $pid; mpirun needs a moment until it takes one
    sleep 1
    kill -USR1 $pid 2>/dev/null
fi
while [ $signalled ]; do # a signal ends `wait`, not mpirun
    signalled=''
    wait $pid
    code=$?
done
exit "$code"
