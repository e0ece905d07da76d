#!/usr/bin/env bash
# The scripts of tools/cluster, as they are, with the real program and mpirun on a small world: exit
# codes, signals that save, runs that go on to the bytes of one in one piece. What is not on every
# machine is played by a few lines on the PATH that check how they are called: Slurm's srun and
# scontrol, nsys, nvidia-smi.   usage: test_cluster.sh SAILS MPI_PLUGIN
set -u
sails=$(realpath "$1") SAILS_MPI_PLUGIN=$(realpath "$2")
root=$(cd "$(dirname "$0")/.." && pwd)
cluster=$root/tools/cluster
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }
expect() { # WHAT IS WANTED
    [ "$2" = "$3" ] || fail "$1: $2, expected $3; the log: $(tail -n 4 log 2>&1)"
}

export SAILS_MPI_PLUGIN OMP_NUM_THREADS=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_orte_base_help_aggregate=1
unset RANKS CORES CUDA_VISIBLE_DEVICES MPIRUN_OPTIONS "${!SLURM@}" "${!NSYS@}"

# ------------------------------------------------------------------------------- the world --
"$sails" init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions 64 \
    --dtype f32 --seed 5 --std 0.1 --tokenizer "$root/tests/golden/tokenizer_small.json" \
    --out model >/dev/null || exit 1
for i in $(seq 23); do
    echo "{\"prompt\": \"How do I open door $i?\", \"completion\": \"Turn $i keys.\"}"
done >chats.jsonl
train=("$sails" train --model model --dtype f32 --max-length 60 --pack-tokens 64 --batch 4
    --rank 4 --init lora --data chats.jsonl --steps 200 --checkpoint-every 10)
"${train[@]}" --out whole >/dev/null || exit 1

same() { # WHAT FOLDER: has the run come to its end?
    cmp -s whole/adapter_model.safetensors "$2/adapter_model.safetensors" ||
        fail "$1: $2 is not what a run in one piece gives"
}
step5() { # PID: waits until the run, whose words go into `log`, has come so far
    until grep -q 'step 5/' log; do
        kill -0 "$1" 2>/dev/null || return
        sleep 0.02
    done
}
code_of() { # PID
    wait "$1"
    code=$?
}
play() { # NAME: a program of this name, on the PATH, from stdin
    mkdir -p "$work/played"
    cat >"$work/played/$1"
    chmod +x "$work/played/$1"
}

# -------------------------------------------------------------------------- what mpirun gets --
dry=$work/dry
mkdir "$dry"
printf '#!/bin/sh\necho "$@"\nexit 3\n' >"$dry/mpirun"
printf '#!/bin/sh\nprintf "GPU %%s: H100 (UUID)\\n" 0 1 2 3\n' >"$dry/nvidia-smi"
chmod +x "$dry"/*
line() { # WANTED [VARIABLE=VALUE]... COMMAND...
    local wanted=$1
    shift
    expect "$*" "$(env PATH="$dry:$PATH" "$@")" "$wanted"
}
line '-np 4 --bind-to none a b' "$cluster/node.sh" a b
line '-np 2 --bind-to none a' CUDA_VISIBLE_DEVICES=1,3 "$cluster/node.sh" a
line '-np 1 --bind-to none a' CUDA_VISIBLE_DEVICES= "$cluster/node.sh" a
line '-np 6 --map-by slot:PE=5 -x A --host b a' RANKS=6 CORES=5 MPIRUN_OPTIONS='-x A --host b' \
    "$cluster/node.sh" a
PATH=$dry:$PATH "$cluster/node.sh" a >/dev/null
expect "node.sh's code" $? 3
rm "$dry/nvidia-smi"
[ -n "$(command -v nvidia-smi)" ] || line '-np 1 --bind-to none a' "$cluster/node.sh" a

# The MPIJob's launcher is node.sh, and calls mpirun like this. Of the YAML itself only its form is
# looked at: flow lists of one line, indentation by two.
yaml=$cluster/mpijob.yaml
words() { # KEY: of its first flow list
    sed -n "s/^ *$1: \[\(.*\)\]$/\1/p" "$yaml" | head -n 1 | tr -d '",'
}
mapfile -t settings < <(sed -n 's/^ *- {name: \([A-Z_]*\), value: "\(.*\)"}$/\1=\2/p' "$yaml")
expect "the launcher" "$(words command)" /opt/sails/tools/cluster/node.sh
# shellcheck disable=SC2046 # words
line "-np 16 --bind-to none -x NCCL_DEBUG=WARN -x NCCL_SOCKET_IFNAME=eth0 $(words args)" \
    "${settings[@]}" "$cluster/$(basename "$(words command)")" $(words args)
"$sails" train --help >help
for flag in $(words args | grep -o -- '--[a-z-]*'); do
    grep -q -- "^  $flag " help || fail "mpijob.yaml: sails has no $flag"
done
bad=$(grep -nvE '^#|^( {2})*(- )?([a-zA-Z]+: ?.*|\{.*\}|"pkill.*|\{name.*)$' "$yaml")
[ -z "$bad" ] || fail "mpijob.yaml: $bad"
for key in 'cleanPodPolicy: Running' 'backoffLimit: ' 'terminationGracePeriodSeconds: ' \
    'slotsPerWorker: ' 'restartPolicy: OnFailure' 'kind: MPIJob'; do
    grep -q "^ *$key" "$yaml" || fail "mpijob.yaml: no $key"
done

# ---------------------------------------------------------------------------------- one node --
export MPIRUN_OPTIONS=--oversubscribe
[ "$(nproc)" -lt 2 ] || export CORES=1
RANKS=2 "$cluster/node.sh" "${train[@]}" --out node >log 2>&1
expect "node.sh" $? 0
same "node.sh" node
unset CORES

: >log # or the words of the run before are taken for this one's
RANKS=2 "$cluster/node.sh" "${train[@]}" --resume --out stopped >log 2>&1 &
pid=$!
step5 $pid
kill -TERM $pid
code_of $pid
expect "TERM to node.sh" $code 7
grep -q 'stopped by SIGUSR1' log || fail "TERM to node.sh: $(tail -n 3 log)"
[ -n "$(ls stopped/checkpoints)" ] || fail "TERM to node.sh: no checkpoint"

# Again while it is stopped: from there to the end, over a second stop.
: >log # or the words of the run before are taken for this one's
RANKS=2 "$cluster/until_done.sh" "$cluster/node.sh" "${train[@]}" --resume --out stopped >log 2>&1 &
pid=$!
until grep -q 'step [1-9][0-9]*/' log || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -TERM "$(pgrep -P $pid)"
code_of $pid
expect "until_done.sh" $code 0
expect "starts of until_done.sh" "$(grep -c 'going on after step' log)" 2
same "until_done.sh" stopped

# ------------------------------------------------------------------------------- until_done.sh --
printf '%s\n' '#!/bin/bash' 'echo >>starts' 'code=$(sed -n "$(wc -l <starts)p" codes)' \
    '[ $code -lt 128 ] || kill -$((code - 128)) $$' 'exit $code' >fails
chmod +x fails
ends() { # CODE STARTS "the codes that come one after another" [OPTION]
    tr ' ' '\n' <<<"$3" >codes
    : >starts
    "$cluster/until_done.sh" ${4:-} ./fails >log 2>&1
    expect "until_done.sh after $3" $? "$1"
    expect "starts after $3" "$(wc -l <starts)" "$2"
}
ends 0 1 '0'
ends 2 1 '2 0'
ends 0 8 '7 7 137 7 5 143 7 0'
ends 6 2 '7 6 0'
ends 137 4 '137 137 137 137 0'
ends 138 2 '138 138 0' 1
printf '%s\n' '#!/bin/bash' 'trap "exit 7" TERM' 'echo >>starts' \
    '[ "$(wc -l <starts)" -eq 1 ] || exit 0' 'while :; do sleep 0.05; done' >waits
chmod +x waits
: >starts
: >log # or the words of the run before are taken for this one's
"$cluster/until_done.sh" ./waits >log 2>&1 &
pid=$!
until [ -s starts ]; do sleep 0.02; done
sleep 0.1
kill -TERM $pid
code_of $pid
expect "TERM to until_done.sh" $code 7
expect "starts after TERM" "$(wc -l <starts)" 1

# A TERM that comes before the scripts know whom to hand it to, from a line that bash runs first.
cat >early <<'END'
set -T
trap '[ "$BASH_COMMAND" != "pid=\$!" ] || [ "${sent:-}" ] || { sent=yes; kill -TERM $$; }' DEBUG
END
: >starts
BASH_ENV=$work/early timeout 10 "$cluster/until_done.sh" ./waits >log 2>&1
expect "an early TERM to until_done.sh" $? 7
expect "starts after an early TERM" "$(wc -l <starts)" 1
mkdir slow
printf '%s\n' '#!/bin/bash' 'trap "exit 7" USR1' 'while :; do sleep 0.05; done' >slow/mpirun
chmod +x slow/mpirun
PATH=$work/slow:$PATH BASH_ENV=$work/early timeout 10 "$cluster/node.sh" a >log 2>&1
expect "an early TERM to node.sh" $? 7

# --------------------------------------------------------------------------------------- Slurm --
play srun <<'END'
#!/bin/bash
# What Slurm's would do with two tasks; their signals come to mpirun.
[ "$1 $2" = '--mpi=pmix --kill-on-bad-exit=0' ] || { echo "srun: got $1 $2" && exit 99; }
[ "$SRUN_CPUS_PER_TASK" = 1 ] || { echo 'srun: no SRUN_CPUS_PER_TASK' && exit 98; }
shift 2
echo $$ >srun.pid
exec mpirun --oversubscribe --bind-to none -np "$SLURM_NTASKS" "$@"
END
play scontrol <<'END'
#!/bin/sh
echo "$@" >>requeued
END
export SLURM_NTASKS=2 SLURM_CPUS_PER_TASK=1 SLURM_JOB_ID=17
MPIRUN_OPTIONS='--oversubscribe --bind-to core:overload-allowed'
job() { # SCRIPT: starts it as the batch script; its process id in `pid`
    : >log # or the words of the run before are taken for this one's
    rm -f requeued
    PATH=$work/played:$PATH bash "$cluster/$1" "${train[@]}" --resume --out "$1.run" >log 2>&1 &
    pid=$!
}
for script in job.slurm job_mpirun.slurm; do
    for option in '--requeue' '--open-mode=append' '--signal=(B:)?USR1@300'; do
        grep -qE "^#SBATCH $option( |$)" "$cluster/$script" || fail "$script: no $option"
    done
    [ "$script" = job.slurm ] || expect "$script" "$(grep -c '=B:USR1' "$cluster/$script")" 1
    job $script
    step5 $pid # then USR1 comes to the step's tasks, or with B: to the script
    [ $script = job.slurm ] && kill -USR1 "$(cat srun.pid)" || kill -USR1 $pid
    code_of $pid
    expect "$script at USR1" $code 7
    expect "$script at USR1" "$(cat requeued)" 'requeue 17'
    job $script
    code_of $pid
    expect "$script at the end" $code 0
    [ ! -e requeued ] || fail "$script: requeued at the end"
    grep -q 'going on after step' log || fail "$script: $(head -n 5 log)"
    same $script $script.run
done
PATH=$work/played:$PATH bash "$cluster/job.slurm" "$sails" train --no-such-flag >log 2>&1
expect "job.slurm after an error" $? 2
[ ! -e requeued ] || fail "job.slurm: requeued after an error"
printf '#!/bin/sh\nkill -TERM $PPID\nexit 7\n' | play srun # scancel
PATH=$work/played:$PATH bash "$cluster/job.slurm" a >log 2>&1
expect "job.slurm at scancel" $? 7
[ ! -e requeued ] || fail "job.slurm: requeued at scancel"
unset "${!SLURM@}"

# ---------------------------------------------------------------------------------------- nsys --
play nsys <<'END'
#!/bin/bash
printf '%s\n' "$OMPI_COMM_WORLD_RANK $*" >>nsys.calls
while [ "$1" != echo ]; do shift; done
exec "$@"
END
PATH=$work/played:$PATH RANKS=3 NSYS_RANKS=0,2 NSYS_OUTPUT=here SAILS_CAPTURE=a:b \
    MPIRUN_OPTIONS=--oversubscribe "$cluster/node.sh" "$cluster/nsys_rank.sh" echo worked >log 2>&1
expect "nsys_rank.sh" $? 0
expect "ranks that worked" "$(grep -c worked log)" 3
outputs=$(sort nsys.calls | sed 's/^\(.\) profile .*--capture.*=\(.*\) echo.*/\1 \2/' | tr '\n' ' ')
expect "ranks with nsys" "$outputs" '0 here-rank0 2 here-rank2 '
expect "a rank of srun" "$(SLURM_PROCID=1 "$cluster/nsys_rank.sh" echo worked)" worked

[ $failures -eq 0 ] && echo "test_cluster: ok"
exit $((failures != 0))
