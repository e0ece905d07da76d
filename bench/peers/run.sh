#!/usr/bin/env bash
# bench/peers/run.sh DATA TOKENIZER [PAIR...] - sails against the Python libraries, in one run.
#
#   DATA       chosen/rejected pairs (HH-RLHF), JSONL, plain or .gz
#   TOKENIZER  folder with Gemma-2's tokenizer.json
#   PAIR       names of pairs (train, full, dpo, inference); none: all there are
#
# Environment: PEERS_VENV, the libraries' virtual environment (~/.cache/sails/peers; made if it is
# not there); PEERS_WORK, for checkpoints and results (a temporary folder, removed at the end);
# SAILS (build/sails); THREADS (2).
#
# A pair is a script beside this one, <name>.sh. It reads common.sh, runs both sides in turns, and
# prints lines "name ours theirs ratio goal" on stdout, and what else it has to say on stderr.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0" && exit 2; }
HERE=$(cd "$(dirname "$0")" && pwd)
DATA=$(realpath "$1") TOKENIZER=$(realpath "$2") && shift 2
SAILS=$(realpath "${SAILS:-$HERE/../../build/sails}") THREADS=${THREADS:-2}
VENV=${PEERS_VENV:-$HOME/.cache/sails/peers} WORK=${PEERS_WORK:-}
if [ ! -x "$VENV/bin/python" ]; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install -q -r "$HERE/requirements.txt" >&2
fi
[ -n "$WORK" ] || { WORK=$(mktemp -d) && trap 'rm -rf "$WORK"' EXIT; }
mkdir -p "$WORK"
export HERE DATA TOKENIZER SAILS THREADS WORK PYTHON=$VENV/bin/python
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=$THREADS

pairs=("$@")
[ ${#pairs[@]} -gt 0 ] || for script in "$HERE"/*.sh; do
    case $(basename "$script" .sh) in run | common) ;; *) pairs+=("$(basename "$script" .sh)") ;; esac
done
: >"$WORK/ratios"
for pair in "${pairs[@]}"; do
    bash "$HERE/$pair.sh" | tee -a "$WORK/ratios"
done
awk '{ n++; if ($4 + 0 >= $5 + 0) met++; else missed = missed " " $1 }
     END { printf "%d of %d goals met%s\n", met, n, missed ? "; missed:" missed : "" }' "$WORK/ratios"
