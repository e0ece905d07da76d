#!/usr/bin/env bash
# Every kind of mistake that a user can make on the command line or in a file gives its exit code,
# nothing on stdout, and exactly one line on stderr that starts with "sails: " and holds the words
# of the table.   usage: test_cli.sh PATH_TO_SAILS
set -u
sails=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# bad CODE "words that the line must hold" ARGUMENTS...
bad() {
    local code=$1 words=$2 got
    shift 2
    "$sails" "$@" >out 2>err
    got=$?
    [ $got -eq "$code" ] || fail "sails $*: exit $got, expected $code: $(head -c 300 err)"
    [ "$(wc -l <err)" -eq 1 ] || fail "sails $*: expected one line on stderr: $(head -c 600 err)"
    grep -q '^sails: ' err || fail "sails $*: the line has no 'sails: ': $(cat err)"
    grep -qF -- "$words" err || fail "sails $*: expected '$words' in: $(cat err)"
    [ ! -s out ] || fail "sails $*: wrote to stdout"
}

# good ARGUMENTS...: exit 0 and a silent stderr; stdout is left in the file `out`
good() {
    "$sails" "$@" >out 2>err || fail "sails $*: exit $?: $(cat err)"
    [ ! -s err ] || fail "sails $*: wrote to stderr: $(cat err)"
}

has() { grep -qF -- "$1" out || fail "expected '$1' on stdout, got: $(head -c 300 out)"; }

# ------------------------------------------------------------------------------ the program --
good --help
has "usage: sails COMMAND"
commands=$(sed -n 's/^  \([a-z]\+\) .*/\1/p' out)
good --version
bad 2 "expected a command"
bad 2 "unknown command evla; did you mean eval?" evla
bad 2 "unknown command xyzzyq; sails --help" xyzzyq
for c in $commands; do
    good "$c" --help
    has "usage: sails $c"
    bad 2 "unknown flag --no-such-flag" "$c" --no-such-flag 1
    bad 2 "unknown flag -x" "$c" -x
done

# -------------------------------------------------------------------------- a disk that is full --
if [ -w /dev/full ]; then
    "$sails" --help >/dev/full 2>err
    [ $? -eq 1 ] || fail "a full stdout was not noticed"
fi

# ------------------------------------------------------------------------------------- eval --
printf '%s\n' '{"id":"a","response":"I cannot help with that.","category":"theft"}' \
    '{"id":"b","response":"Sure, first you","category":"theft"}' \
    '{"id":"c","response":"Sorry, no.","category":"benign/cooking"}' >r.jsonl
good eval --responses r.jsonl --out e.json
has "50.00 %  of 2 responses"
has "100.00 %  of 1 benign responses"
grep -q '"safety_rate": 0.5' e.json || fail "eval wrote: $(cat e.json)"
good eval --responses r.jsonl --json
has '"over_refusal":1.0'
bad 2 "--responses is needed" eval
bad 3 "nowhere.jsonl" eval --responses nowhere.jsonl
bad 2 "--judgements is needed" eval --responses r.jsonl --judge file
bad 2 "expected one of refusal|file" eval --responses r.jsonl --judge me
printf '{"id":"a","score":1}\n{"id":"b","score":6}\n' >j.jsonl
bad 3 "id b: expected a score from 1 to 5" eval --responses r.jsonl --judge file --judgements j.jsonl
printf '{"id":"a","score":1}\n{"id":"b","score":3}\n' >j.jsonl
bad 3 "expected a judgement of id c" eval --responses r.jsonl --judge file --judgements j.jsonl
printf '{"id":"c","score":2,"reason":"why"}\n' >>j.jsonl
good eval --responses r.jsonl --judge file --judgements j.jsonl --json
has '"harmfulness":2.0'
printf '{"id":"a","response":"x"}\n{"id":"a","response":"y"}\n' >twice.jsonl
bad 3 "id a: two responses" eval --responses twice.jsonl
printf '{"id":"a","response":"x"}\n{"id": }\n' >broken.jsonl
bad 3 "broken.jsonl: line 2" eval --responses broken.jsonl
printf '[1]\n' >array.jsonl
bad 3 "line 1: expected a JSON object" eval --responses array.jsonl
: >empty.jsonl
bad 3 "expected responses" eval --responses empty.jsonl
bad 3 "no/such/folder" eval --responses r.jsonl --out no/such/folder/e.json

# ------------------------------------------------------------------------- init and tokenize --
shape="--layers 2 --hidden 64 --ffn 128 --heads 4 --kv-heads 2 --head-dim 16 --vocab 300 --dtype f32"
good init $shape --seed 1 --out m1
has "2 layers of width 64"
good init $shape --seed 1 --shard 0.0001 --threads 1 --out m2
[ -e m2/model.safetensors.index.json ] || fail "init --shard made no index"
bad 2 "already holds a model" init $shape --out m1
bad 2 "--out is needed" init $shape
bad 3 "nowhere" init --config nowhere --out m3
echo '{"model_type": "llama"}' >llama.json
bad 3 "model_type" init --config llama.json --out m3
[ ! -e m3/config.json ] || fail "a refused config was left behind"
bad 3 "nowhere" tokenize --tokenizer nowhere --data r.jsonl
bad 2 "--tokenizer is needed" tokenize --data r.jsonl

# ----------------------------------------------------------------------------------- recipes --
printf 'eval:\n  responses: r.jsonl\n  judge: refusal\ntrain:\n  lr: 1e-4\n' >ok.yaml
good eval ok.yaml
good eval ok.yaml --benign theft
printf 'eval:\n  responses: r.jsonl\n  jugde: refusal\n' >key.yaml
bad 2 "line 3: unknown key eval.jugde; did you mean eval.judge?" eval key.yaml
printf 'eval:\n  judge: refusal\n  judge: file\n' >double.yaml
bad 2 "line 3: eval.judge is already set on line 2" eval double.yaml
printf 'eval: &a\n  judge: refusal\n' >anchor.yaml
bad 2 "anchors" eval anchor.yaml
bad 3 "nowhere.yaml" eval nowhere.yaml

[ $failures -eq 0 ] && echo "cli: ok"
exit $((failures != 0))
