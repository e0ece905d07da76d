#!/usr/bin/env bash
# tools/test_slurm.sh - do the jobs of tools/cluster run under a real Slurm? Debian's own, on this
# machine alone, with a controller and a node of two processors, in a temporary folder. Each job is
# stopped by the signal that it asks Slurm for, goes back into the queue, goes on, and must end with
# the bytes of a run in one piece; scancel must end it.
#
# Takes minutes: Slurm looks for jobs near their end twice a minute. Needs root, and installs
# slurm-wlm where it is missing; exits 77 where that cannot be. A Slurm that is here is not touched:
# ports and files are others. There is no authentication (auth/none), so the daemons listen on
# 127.0.0.1 alone; while they run, whoever has an account here is root.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD CLUSTER=$PWD/tools/cluster SAILS=$PWD/build/sails WORK=$(mktemp -d)
export SAILS_MPI_PLUGIN=$PWD/build/libsails_mpi.so SLURM_CONF=$WORK/slurm.conf
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

skip() {
    echo "test_slurm: skipped: $*"
    exit 77
}
die() {
    echo "test_slurm: $*" >&2
    for log in ./*.log; do
        echo "$log: $(tail -n 8 "$log")" >&2
    done
    exit 1
}
end() {
    local daemons
    mapfile -t daemons < <(cat "$WORK"/{slurmctld,slurmd}.pid 2>/dev/null)
    for _ in {1..150}; do
        [ ${#daemons[@]} -gt 0 ] && kill "${daemons[@]}" 2>/dev/null || break # all have ended
        sleep 0.2
    done
    rm -rf "$WORK"
}
trap end EXIT

[ "$(id -u)" -eq 0 ] || skip "needs root"
[ "$(nproc)" -ge 2 ] || skip "needs two processors"
[ -e "$SAILS_MPI_PLUGIN" ] || skip "no MPI plug-in in build/"
if ! { command -v slurmctld && command -v slurmd && command -v sbatch; } >/dev/null; then
    command -v apt-get >/dev/null || skip "no Slurm and no apt-get"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends slurm-wlm; } >"$WORK/apt" 2>&1 ||
        skip "slurm-wlm cannot be installed: $(tail -n 1 "$WORK/apt")"
fi

cd "$WORK"
mkdir state spool
PORT=$((20000 + $$ % 10000))
cat >slurm.conf <<END
ClusterName=sails
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
KillWait=5
NodeName=$(hostname) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
slurmctld -c >ctl.log 2>&1 || die "slurmctld did not start"
slurmd >node.log 2>&1 || die "slurmd did not start"
for _ in {1..100}; do
    [ "$(sinfo -h -o %t 2>/dev/null)" != idle ] || break
    sleep 0.2
done
[ "$(sinfo -h -o %t)" = idle ] || die "the node did not come up"

"$SAILS" init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions 64 \
    --dtype f32 --seed 5 --std 0.1 --tokenizer "$ROOT/tests/golden/tokenizer_small.json" \
    --out model >/dev/null
for i in $(seq 23); do
    echo "{\"prompt\": \"How do I open door $i?\", \"completion\": \"Turn $i keys.\"}"
done >chats.jsonl
# So many steps that the signal comes before the last: it may take half a minute, and 400 steps a
# second were seen.
TRAIN=("$SAILS" train --model model --dtype f32 --max-length 60 --pack-tokens 64 --batch 4 --rank 4
    --init lora --data chats.jsonl --steps "${SAILS_SLURM_STEPS:-25000}")
"${TRAIN[@]}" --out whole >whole.log 2>&1 || die "a run in one piece failed"

state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
submit() { # SCRIPT SIGNAL: its id in `id`
    id=$(sbatch --parsable --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-node=0 --time=3 \
        --output=%x-%j.log --signal="$2" "$CLUSTER/$1" "${TRAIN[@]}" --checkpoint-every 100 \
        --resume --out "$1.run")
}

# A job in the queue again would wait two minutes there.
run_through() { # SCRIPT SIGNAL
    local now
    submit "$1" "$2"
    for ((SECONDS = 0; SECONDS < 900; )); do
        now=$(state "$id")
        case $now in
        PENDING) scontrol update JobId="$id" StartTime=now || true ;;
        RUNNING | COMPLETING) ;;
        *) break ;;
        esac
        sleep 1
    done
    [ "$now" = COMPLETED ] || die "$1: the job is $now"
    grep -q 'stopped by SIGUSR1 after step' sails-"$id".log ||
        die "$1: was not stopped; more SAILS_SLURM_STEPS?"
    grep -q 'going on after step' sails-"$id".log || die "$1: did not go on"
    cmp whole/adapter_model.safetensors "$1.run/adapter_model.safetensors" ||
        die "$1: another adapter than from a run in one piece"
    echo "$1: $(grep -c 'stopped by SIGUSR1' sails-"$id".log) stops, the same bytes, $SECONDS s"
}
cancel() { # SCRIPT SIGNAL
    rm -rf "$1.run"
    submit "$1" "$2"
    until grep -q 'step 9/' sails-"$id".log 2>/dev/null; do sleep 0.2; done
    scancel "$id"
    for _ in {1..100}; do
        [ -n "$(squeue -h -j "$id")" ] || break
        sleep 0.2
    done
    [ "$(state "$id")" = CANCELLED ] || die "$1: after scancel the job is $(state "$id")"
    [ -n "$(ls "$1.run/checkpoints")" ] || die "$1: scancel left no checkpoint"
}
run_through job.slurm USR1@178
run_through job_mpirun.slurm B:USR1@178
cancel job.slurm USR1@10
cancel job_mpirun.slurm B:USR1@10
echo "test_slurm: ok"
