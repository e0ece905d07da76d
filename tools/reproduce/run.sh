#!/usr/bin/env bash
# run.sh 2b|9b FOLDER [FLAG OF sails align]... - a reproduction from its inputs to its table.
#
#   GPUS=8 tools/reproduce/run.sh 9b /data/sails
#   sbatch --nodes=1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 --time=12:00:00 \
#       --requeue --open-mode=append --signal=USR1@300 \
#       --wrap 'GPUS=8 tools/reproduce/run.sh 9b /data/sails'
#
# Runs check.sh, which says what it needs and costs, and then, in FOLDER/runs: the recipe; the
# instruction-tuned model; every row's replies to HEx-PHI and to prompts with GCG's suffixes, if they
# are there; the theory's experiment; judgements; and prints table.sh's table. The same command goes
# on where it was stopped, with any number of GPUs, and gives the same bytes.
#
# GPUS, GPU_MEMORY, HASHES   as check.sh
# LAUNCH      what starts a command on all ranks; unset: tools/cluster's until_done.sh and node.sh,
#             within a job of Slurm's job.slurm (job_mpirun.slurm where srun does not start this MPI)
# JUDGE       flags of `sails eval`, split at spaces; unset: --judge refusal. {} stands for SUITE/RUN, as
#             in '--judge file --judgements scores/{}.jsonl' with an LLM's scores of runs/9b/SUITE/RUN.jsonl
#             (hh-rlhf's are in responses/); the run of the instruction-tuned model is it
#
# Exit codes are those of the command that ended: 7 stopped with its state saved; job.slurm has put the
# job back into the queue then.
set -u
# shellcheck source=inputs.sh
source "$(dirname "${BASH_SOURCE[0]}")/inputs.sh"
: "${GPUS:=8}"
export GPUS RANKS=$GPUS SAILS=$sails
if [ -n "${LAUNCH:-}" ]; then
    read -ra launch <<<"$LAUNCH"
elif [ -n "${SLURM_JOB_ID:-}" ]; then
    launch=(bash "$cluster/job.slurm")
else
    launch=("$cluster/until_done.sh" "$cluster/node.sh")
fi
read -ra judge <<<"${JUDGE:---judge refusal}"

pid='' last=''
stop() { # SIGNAL: goes to the step, which is the last one
    last=$1 signalled=yes
    [ -z "$pid" ] || kill -"$1" "$pid" 2>/dev/null
}
trap 'stop TERM' TERM
trap 'stop USR1' USR1
step() { # COMMAND...: any code but 0 is this script's
    local code=143
    if [ -z "$last" ]; then
        "$@" &
        pid=$! signalled=yes
        while [ $signalled ]; do # a signal ends `wait`, not the command
            signalled=''
            wait $pid
            code=$?
        done
        pid=''
    fi
    [ $code -eq 0 ] && [ -z "$last" ] && return
    [ $code -ne 7 ] || echo "run.sh: stopped and saved; the same command goes on" >&2
    exit "$code"
}

step "$reproduce/check.sh" "$recipe_name" "$root" "$@"
benign_file "$benign"
step "${launch[@]}" "$sails" align "$recipe" "${inputs[@]}" --model "$root/$model" --out "$run" "$@"
[ ! -e "$root/$tuned" ] || step "${launch[@]}" "$sails" align "$recipe" "${inputs[@]}" \
    "${untrained[@]}" --model "$root/$tuned" --out "$tuned_run"

# ------------------------------------------------------------------ other prompts, every row --
wearing() { # RUN_FOLDER NAME: flags that open what that run's row has left, in `worn`
    worn=(--model "$root/$model")
    if [ "$1" = "$tuned_run" ]; then
        worn=(--model "$root/$tuned")
    elif [ -e "$1/adapters/$2" ]; then
        worn+=(--adapter "$1/adapters/$2")
    elif [ -e "$1/models/$2" ]; then
        worn=(--model "$1/models/$2")
    fi
}
number() { # KEY: of the recipe
    sed -n "s/^  $1: *\([0-9]*\).*/\1/p" "$recipe" | tail -n 1
}
each_run() { # COMMAND...: with run folder and name behind it
    local folder file name
    for folder in "$run" "$tuned_run"; do
        for file in "$folder"/responses/*.jsonl; do
            name=$(basename "$file" .jsonl)
            [ ! -e "$file" ] || [[ $name == *.validation ]] || "$@" "$folder" "$name"
        done
    done
}
reply() { # SUITE PROMPTS FLAGS_OF_SUITE RUN_FOLDER NAME
    local out=$4/$1/$5.jsonl worn suite
    [ ! "$out" -nt "$4/responses/$5.jsonl" ] || return 0 # which is made anew with its adapter
    read -ra suite <<<"$3"
    wearing "$4" "$5"
    mkdir -p "$4/$1"
    step "${launch[@]}" "$sails" generate "${worn[@]}" "${suite[@]}" --prompts "$2" \
        --max-new-tokens "$(number max-new-tokens)" --batch "$(number batch)" --resume --out "$out"
}
judged() { # SUITE RESPONSES_FOLDER FLAGS_OF_SUITE RUN_FOLDER NAME
    local suite name=$5
    [ "$4" != "$tuned_run" ] || name=it
    read -ra suite <<<"$3"
    [ "$1" != HEx-PHI ] || suite+=(--prompts "$root/HEx-PHI")
    mkdir -p "$4/judged/$1"
    step "$sails" eval --responses "$4/$2/$5.jsonl" "${suite[@]}" "${judge[@]//'{}'/$1/$name}" \
        --out "$4/judged/$1/$5.json" >/dev/null
}
each_run judged hh-rlhf responses ''
if [ -e "$root/HEx-PHI" ]; then
    each_run reply HEx-PHI "$root/HEx-PHI" '--suite hex-phi'
    each_run judged HEx-PHI HEx-PHI '--suite hex-phi'
fi
if [ -e "$root/gcg.jsonl" ]; then
    each_run reply gcg "$root/gcg.jsonl" ''
    each_run judged gcg gcg ''
fi
[ -e "$root/runs/theory/eps.csv" ] || step "$sails" theory --study eps --out "$root/runs/theory" >/dev/null
"$reproduce/table.sh" "$recipe_name" "$root" | tee "$run/table.md"
