#!/usr/bin/env bash
# lines.sh LINE - one line of check.sh, in its environment. What it prints last goes into the
# summary. Exits 77 where the machine lacks what the line needs, 124 where its time, LIMIT, was short.
set -uo pipefail
SAILS=$KIT/bin/sails
JOBS=$(nproc) # tests at a time: their references in double, on the processor, take longest
[ "$JOBS" -le 4 ] || JOBS=4
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TQDM_DISABLE=1

lacks() { echo "$*" && exit 77; }

# tool NAME: where it is, on the path or in a toolkit.
tool() {
    command -v "$1" && return
    local file
    for file in "${CUDA_HOME:-/usr/local/cuda}"/bin/"$1" /usr/local/cuda*/bin/"$1" \
        /opt/nvidia/nsight-compute/*/"$1"; do
        [ -x "$file" ] && echo "$file" && return
    done
    return 1
}

need_python() { # MODULE...
    local missing
    command -v "$PYTHON" >/dev/null || lacks "no $PYTHON"
    missing=$("$PYTHON" -c 'import importlib.util as u, sys
print(*[m for m in sys.argv[1:] if not u.find_spec(m)])' "$@") || lacks "$PYTHON does not run"
    [ -z "$missing" ] || lacks "no $missing"
}

# world: the planted one, made once.
world() {
    [ -d "$WORK/world" ] && return
    "$KIT/tools/planted_world" "$WORK/world.part" && mv "$WORK/world.part" "$WORK/world"
}

# wide LAYERS: a random model of 9B width in $WORK/LAYERS, made by the line `models`.
wide() {
    local shape=(--preset 9b)
    [ -z "$BRIEF" ] || shape+=(--hidden 32 --ffn 32 --heads 4 --kv-heads 2 --head-dim 8 --vocab 300)
    [ -d "$WORK/$1" ] && return
    "$SAILS" init "${shape[@]}" --layers "$1" --out "$WORK/$1.part" && mv "$WORK/$1.part" "$WORK/$1"
}

# The packs of bench/results.md: how many documents of which length, and how many labels of each.
pack() { # hh|full
    case $1$BRIEF in
    hh) echo 51 160 40 ;;
    full) echo 2 4096 4095 ;;
    hh1) echo 3 8 2 ;;
    full1) echo 2 16 15 ;;
    esac
}

# documents hh|full: four steps of them in $WORK/NAME.jsonl, random ids with labels at the end.
documents() {
    local n length labels
    read -r n length labels < <(pack "$1")
    awk -v n=$((4 * n)) -v length_="$length" -v labels="$labels" -v vocab="${BRIEF:+300}" 'BEGIN {
        seed = 7
        for (; n > 0; n--) {
            ids = "2"
            marks = "0"
            for (i = 1; i < length_; i++) {
                seed = seed * 16807 % 2147483647
                ids = ids ", " (3 + seed % ((vocab ? vocab : 256000) - 3))
                marks = marks ", " (i >= length_ - labels)
            }
            print "{\"tokens\": [" ids "], \"labels\": [" marks "]}"
        }
    }' >"$WORK/$1.jsonl"
}

# rate WHO PACK LAYERS MS TOKENS: for the summary.
rate() { printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$OUT/rates.tsv"; }

# said_at_42 WHO: both packs at 42 layers.
said_at_42() {
    awk -F '\t' -v who="$1" "$AT_42"'
        $1 == who { ms[$2, $3] = $4; tokens[$2] = $5 }
        END { for (pack in tokens) if (ms[pack, 4] && ms[pack, 8]) {
                  t = at_42(ms[pack, 4], ms[pack, 8])
                  printf "%s%s: %.0f ms, %.0f tokens/s", sep, pack, t, 1000 * tokens[pack] / t
                  sep = "; "
              }
              print sep ? " at 42 layers" : "no two rates" }' "$OUT/rates.tsv"
}

# --------------------------------------------------------------------------------- the tests --

# chosen op|model...: the names of these tests, of those asked for.
chosen() {
    local kind name
    while read -r kind name; do
        [[ " $* " == *" $kind "* && (-z $TESTS || ,$TESTS, == *,$name,*) ]] && echo "$name"
    done <"$KIT/tests/device_tests"
}

# run_test FOLDER NAME [TOOL...]: one test until DEADLINE at most, and for half of the line's time; its
# log, and its exit status and seconds in OUT/FOLDER.tsv.
run_test() {
    local folder=$1 name=$2 status=0 left start=$SECONDS
    shift 2
    left=$((DEADLINE - $(date +%s)))
    [ $left -le $((LIMIT / 2)) ] || left=$((LIMIT / 2))
    if [ $left -ge 2 ]; then
        SAILS_TEST_DEVICE=cuda OMP_WAIT_POLICY=passive timeout --foreground -k 2 $left \
            "$@" "$KIT/tests/test_$name" >"$OUT/$folder/$name.log" 2>&1 || status=$?
    else
        status=124
    fi
    printf '%s\t%s\t%s\n' "$name" $status $((SECONDS - start)) >>"$OUT/$folder.tsv"
}
export -f run_test

# run_tests FOLDER SHARE KIND... -- [TOOL...]: the tests of these kinds, JOBS at a time, in that share
# of the line's seconds.
run_tests() {
    local folder=$1 share=$2 kinds=()
    shift 2
    while [ "$1" != -- ]; do kinds+=("$1") && shift; done
    shift
    export DEADLINE=$(($(date +%s) + LIMIT * share / 100))
    mkdir -p "$OUT/$folder" && : >"$OUT/$folder.tsv"
    chosen "${kinds[@]}" | xargs -P "$JOBS" -I NAME bash -c 'run_test "$@"' - "$folder" NAME "$@"
}

# said_of FOLDER WORD: how many were well, which were not; the line's exit status.
said_of() {
    awk -F '\t' -v word="$2" '
        $2 == 0 { good++ }
        $2 == 124 || $2 == 137 { cut = cut " " $1 }
        $2 != 0 && $2 != 124 && $2 != 137 { red = red " " $1 }
        END { printf "%d of %d %s%s%s\n", good, NR, word, red ? "; red:" red : "",
                  cut ? "; out of time:" cut : ""
              exit red || !NR ? 1 : cut ? 124 : 0 }' "$OUT/$1.tsv"
}

# ---------------------------------------------------------------------------------- the lines --

line_doctor() {
    "$SAILS" doctor | tee "$WORK/doctor" || return
    sed -n 's/^ok *cuda *//p' "$WORK/doctor" | paste -sd ';' | grep . ||
        { echo 'no card answers' && return 1; }
}

line_card() {
    local name fields=name,driver_version,compute_cap,memory.total,clocks.sm,clocks.max.sm,clocks.mem
    fields+=,power.draw,power.limit,temperature.gpu
    ldd "${SAILS_CUDA_PLUGIN:-$KIT/lib/sails/libsails_cuda.so}"
    for name in nvcc compute-sanitizer ncu "$PYTHON"; do
        printf '%s: %s\n' "$name" "$(tool "$name" || echo 'not here')"
    done
    ! tool nvcc >/dev/null || "$(tool nvcc)" --version | tail -n 2
    for name in torch transformers peft safetensors; do
        "$PYTHON" -c 'import importlib.metadata as m, sys
print(sys.argv[1], m.version(sys.argv[1]))' $name 2>/dev/null || echo "$name: not here"
    done
    tool nvidia-smi >/dev/null || lacks 'no nvidia-smi'
    "$(tool nvidia-smi)" && "$(tool nvidia-smi)" "--query-gpu=$fields" --format=csv
}

line_tests() {
    local name status
    export SAILS_STRICT=1 ${BRIEF:+SAILS_TEST_BRIEF=1}
    run_tests tests 75 op model --
    mkdir -p "$OUT/sync"
    DEADLINE=$(($(date +%s) + LIMIT / 5))
    while read -r name status _; do
        [ "$status" -eq 0 ] || [ "$status" -eq 124 ] || SAILS_SYNC=1 run_test sync "$name"
    done <"$OUT/tests.tsv"
    sort -k 3 -n -r -o "$OUT/tests.tsv" "$OUT/tests.tsv"
    cat "$OUT/tests.tsv"
    said_of tests green
}

line_logits() {
    need_python torch transformers peft safetensors
    local status=0
    export SAILS_TEST_DEVICE=cuda
    "$PYTHON" tools/check_peft.py "$KIT" || status=1
    "$PYTHON" tools/check_wide.py "$KIT" | tee "$WORK/wide" || status=1
    sed 's/logits to.*max/max/' "$WORK/wide" | paste -sd '|' | sed 's/|/; /g' | grep .
    return $status
}

line_lora() {
    need_python torch transformers peft safetensors
    "$PYTHON" tools/check_step.py "$SAILS" cuda | tee "$WORK/lora"
    local status=$?
    sed 's/: loss.*gradients/: error/' "$WORK/lora" | paste -sd '|' | sed 's/|/; /g' | grep .
    return $status
}

# Both devices run the recipe in f32. The first four steps agree within 1e-5 of the loss, as in
# tests/simt/test_whole.c. After that small differences grow: two levels of one processor, which do
# no more than add in another order, were 3e-5 apart in the first 20 steps and 4e-4 in all 70. Five
# times that is the bound.
line_planted() {
    local device method less=()
    [ -z "$BRIEF" ] || less=(--steps 4 --data.limit 16 --train.batch 4 --subspace.top-k 4
        --generate.limit 4 --max-new-tokens 6)
    world || return
    for device in cuda cpu; do
        "$SAILS" align "$WORK/world/recipe.yaml" --device $device --out "$WORK/$device" \
            "${less[@]}" || return
    done
    for method in lora sails; do
        paste <(losses cuda $method) <(losses cpu $method) | nl | tee "$OUT/losses-$method"
    done | awk '
        { off = $2 > $3 ? $2 - $3 : $3 - $2
          off = NF == 3 && $2 == $2 + 0 ? off / $3 : 1
          if ($1 <= 4 && off > few) few = off
          if (off > all) all = off }
        END { printf "%d losses; off by %.1e in the first four steps (1e-5), %.1e in all (2e-3)\n",
                  NR, few, all
              exit !(NR && few <= 1e-5 && all <= 2e-3) }'
}
losses() { # cuda|cpu METHOD
    grep -o '"loss":[^,}]*' "$WORK/$1/adapters/$2/metrics.jsonl" | cut -d : -f 2
}

line_ops() {
    local bench=("$SAILS" bench --ops --csv --device cuda --dtype bf16)
    if [ -n "$BRIEF" ]; then
        wide 4 && "${bench[@]}" --model "$WORK/4" --rows 16 --seconds 0 >"$OUT/ops.csv" || return
    else
        "${bench[@]}" --shape 9b --seconds 0.1 >"$OUT/ops.csv" &&
            "${bench[@]}" --shape 9b --seconds 0.1 --rows 8192 --filter gemm >>"$OUT/ops.csv" ||
            return
    fi
    cat "$OUT/ops.csv"
    awk -F , '$2 ~ /^cuda/ { n++; if ($10 > most[$3]) most[$3] = $10 }
        $3 == "gemm" && /,NN [0-9]*x3584x256000,/ { split($4, size, /[ x]/); head[size[2]] = $10 }
        END { printf "%d rows; best TFLOP/s: gemm %.1f, attn_fwd %.1f, attn_bwd %.1f", n,
                  most["gemm"] / 1000, most["attn_fwd"] / 1000, most["attn_bwd"] / 1000
              for (rows = 256; rows <= 2048; rows *= 2)
                  if (rows in head) printf "; head of %d rows, backward: %.1f", rows, head[rows] / 1000
              print ""
              exit !n }' "$OUT/ops.csv"
}

line_models() {
    local room
    room=$(df --output=avail -B 1G "$WORK" | tail -n 1)
    [ -n "$BRIEF" ] || [ "$room" -ge 10 ] || lacks "$room GB in $WORK; two models need 10"
    wide 4 && wide 8 || return
    du -sh "$WORK/4" "$WORK/8"
    echo "4 and 8 layers of 9B width in $WORK"
}

line_step() {
    local layers pack n length file status=0
    [ -d "$WORK/8" ] || lacks 'no models of 9B width'
    for layers in 4 8; do
        for pack in hh full; do
            read -r n length _ < <(pack $pack)
            documents $pack
            file=$OUT/step-$pack-$layers.csv
            "$SAILS" bench --step --csv ${BRIEF:+--runs 1} --device cuda --dtype bf16 \
                --model "$WORK/$layers" --data "$WORK/$pack.jsonl" --batch "$n" \
                --max-length "$length" --pack-tokens $((n * length)) >"$file" || status=1
            cat "$file"
            rate sails $pack $layers "$(awk -F , '$3 == "step" { print $5 }' "$file")" \
                $((n * length))
        done
    done
    said_at_42 sails
    return $status
}

# on_ranks N COMMAND...: by the MPI of this machine, for which the plug-in is built where that can be.
on_ranks() {
    local n=$1
    shift
    [ -e "$WORK/libsails_mpi.so" ] || ! tool mpicc >/dev/null ||
        mpicc -O2 -shared -fPIC -I "$KIT/share/sails" -o "$WORK/libsails_mpi.so" \
            "$KIT/share/sails/kernels/transport_mpi.c" || return
    [ ! -e "$WORK/libsails_mpi.so" ] || export SAILS_MPI_PLUGIN=$WORK/libsails_mpi.so
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --bind-to none -np "$n" "$@"
}

line_ranks() {
    local n small=(--init lora --device cuda --dtype f32 --max-length 256 --pack-tokens 256)
    [ -z "$BRIEF" ] || small+=(--limit 12 --steps 2 --batch 6 --rank 2)
    [ "$BRIEF" ] || small+=(--steps 4 --batch 16)
    n=${SIMT_GPUS:-$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')}
    [ "$n" -ge 2 ] || lacks 'one card'
    tool mpirun >/dev/null || lacks 'no mpirun'
    world || return
    small+=(--model "$WORK/world/model" --data "$WORK/world/pairs.jsonl")
    "$SAILS" train "${small[@]}" --out "$WORK/on1" || return
    on_ranks 2 "$SAILS" train "${small[@]}" --out "$WORK/on2" || return
    cmp "$WORK/on1/adapter_model.safetensors" "$WORK/on2/adapter_model.safetensors" || return
    if [ -d "$WORK/4" ] && [ -z "$BRIEF" ]; then
        documents hh
        on_ranks 2 "$SAILS" bench --step --device cuda --dtype bf16 --model "$WORK/4" \
            --data "$WORK/hh.jsonl" --batch 204 --max-length 160 --pack-tokens 8160 |
            tee "$OUT/step-ranks" | grep -E 'of work|by the formula'
        echo "the bytes of one; $(grep 'of work' "$OUT/step-ranks")"
    else
        echo 'two ranks: the bytes of one'
    fi
}

line_peers() {
    need_python torch transformers peft safetensors
    [ -d "$WORK/8" ] || lacks 'no models of 9B width'
    local layers pack n length batch result failed=''
    for pack in hh full; do
        read -r n length _ < <(pack $pack)
        documents $pack
        batch=$((length < 4096 ? 8 : 1)) # logits and scores of two such documents need 90 GB
        for layers in 4 8; do
            result=$(DEVICE=cuda THREADS=$(nproc) BATCH=$batch "$PYTHON" \
                bench/peers/train_hf.py "$WORK/$layers" "$WORK/$pack.jsonl" bf16) ||
                failed="$failed $pack at $layers layers"
            echo "$pack $layers $result"
            result=$(sed -n 's/.*"rate": \([0-9.]*\).*/\1/p' <<<"$result")
            [ -z "$result" ] || rate peft $pack $layers \
                "$(awk -v n=$((n * length)) -v r="$result" 'BEGIN { print 1000 * n / r }')" \
                $((n * length))
        done
    done
    [ -z "$failed" ] || lacks "$(said_at_42 peft); the peer failed:$failed"
    said_at_42 peft
}

# refused LOG...: what NVIDIA's tools say where the machine does not let them; asked where nothing went
# well.
refused() {
    local why='Device not supported|Failed to initialize the profiler|ERR_NVGPUCTRPERM'
    ! why=$(grep -h -m 1 -E "$why" "$@" /dev/null) || lacks "${why%%$'\n'*}"
}

# The tests of ops under a tool of compute-sanitizer. Brief ones: code and sizes count, not values.
sanitize() { # memcheck|racecheck
    local sanitizer
    sanitizer=$(tool compute-sanitizer) || lacks 'no compute-sanitizer'
    export SAILS_TEST_BRIEF=1
    JOBS=2 # one that runs out of time leaves its test behind, until the line ends
    run_tests "$1" 90 op -- "$sanitizer" --tool "$1" --error-exitcode 99
    cut -f 2 "$OUT/$1.tsv" | grep -qx 0 || refused "$OUT/$1"/*.log
    said_of "$1" clean
}
line_memcheck() { sanitize memcheck; }
line_racecheck() { sanitize racecheck; }

# Of a training step: tests of ops fill memory with NaN before, which counts as written.
line_initcheck() {
    local sanitizer status
    sanitizer=$(tool compute-sanitizer) || lacks 'no compute-sanitizer'
    world && "$sanitizer" --tool initcheck --error-exitcode 99 "$SAILS" train \
        --model "$WORK/world/model" --data "$WORK/world/pairs.jsonl" --init lora --device cuda \
        --dtype bf16 --batch 4 --steps 1 --out "$WORK/initcheck" | tee "$WORK/initcheck.log"
    status=$?
    [ $status -eq 0 ] || refused "$WORK/initcheck.log"
    return $status
}

# The timed call of each op, with all counters; the clock is left as it is.
line_ncu() {
    local ncu op log status=0
    ncu=$(tool ncu) || lacks 'no ncu'
    mkdir -p "$OUT/ncu"
    for op in attn_fwd attn_bwd gemm_f32 xent sae; do
        log=$OUT/ncu/$op.log
        "$ncu" --nvtx --nvtx-include 'sails@timed/' --set full --clock-control none \
            "$SAILS" bench --ops --once --device cuda --dtype bf16 --shape 9b --filter $op \
            >"$log" 2>&1
        grep -q Duration "$log" || refused "$log"
        grep -E '^ +k_|Duration|(SM|DRAM|Memory)\)? Throughput|Registers Per' "$log" ||
            { echo "$op: no kernel was profiled" && status=1; }
    done
    echo "$(grep -l Duration "$OUT"/ncu/*.log | wc -l) of 5 ops profiled"
    return $status
}

"line_$1"
