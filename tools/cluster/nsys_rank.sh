#!/usr/bin/env bash
# nsys_rank.sh COMMAND... - stands between launcher and COMMAND: a timeline by nsys of some ranks.
#
#   NSYS_RANKS=0,7 tools/cluster/node.sh tools/cluster/nsys_rank.sh sails train recipe.yaml
#   SAILS_CAPTURE='step 10:step 12' srun --mpi=pmix tools/cluster/nsys_rank.sh sails train ..
#
# NSYS_RANKS      which ranks, by commas; unset: 0. The others run as they are
# NSYS_OUTPUT     the files are NSYS_OUTPUT-rank3.nsys-rep; unset: sails
# NSYS_OPTIONS    more of nsys' own, split at spaces
# SAILS_CAPTURE   first:last of sails' ranges, to record those alone (.github/CONTRIBUTING.md)
#
# With mpirun over several machines hand the variables on: MPIRUN_OPTIONS='-x NSYS_RANKS'.
set -u
[ $# -gt 0 ] || { echo "usage: nsys_rank.sh COMMAND..." >&2 && exit 2; }
rank=${OMPI_COMM_WORLD_RANK:-${SLURM_PROCID:-0}}
[[ ,${NSYS_RANKS:-0}, == *,$rank,* ]] || exec "$@"

options=('--trace=cuda,nvtx,cublas' --sample=none --cpuctxsw=none --force-overwrite=true)
[ -z "${SAILS_CAPTURE:-}" ] ||
    options+=(--capture-range=cudaProfilerApi --capture-range-end=stop)
# shellcheck disable=SC2086 # options are words
exec nsys profile "${options[@]}" "--output=${NSYS_OUTPUT:-sails}-rank$rank" \
    ${NSYS_OPTIONS:-} "$@"
