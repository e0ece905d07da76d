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
. "$root/tests/cli.sh"

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
    "$sails" "$c" --help >help
    for flag in $(sed -n 's/^  \(--[a-z0-9.-]\+\).*/\1/p' help); do # what it lists is understood
        "$sails" "$c" "$flag" --no-such-flag >out 2>err # which keeps it from running
        grep -qE -- "unknown flag $flag[; ]|several sections" err && fail "$c lists $flag: $(cat err)"
    done
done

for c in train score align explain tokenize generate logprob plan bench inspect; do # they read records
    "$sails" "$c" --help >help
    grep -q "^records (JSONL" help || fail "$c --help has no table of records"
    grep -q "^  instruction, output  .*Alpaca" help || fail "$c --help: $(tail -n 12 help)"
done

# ------------------------------------------------------------------------ how threads wait --
waiting() { # NAME=VALUE... : what doctor says of them
    env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT "$@" "$sails" doctor >out 2>err || fail "doctor: $(cat err)"
}
waiting
has "waiting    threads sleep while other programs want their cores"
waiting OMP_WAIT_POLICY=active GOMP_SPINCOUNT=7
has "waiting    as the environment says: OMP_WAIT_POLICY=active GOMP_SPINCOUNT=7"
waiting GOMP_SPINCOUNT=7
has "waiting    as the environment says: GOMP_SPINCOUNT=7"

# -------------------------------------------------------------------------- a disk that is full --
if [ -w /dev/full ]; then
    "$sails" --help >/dev/full 2>err
    [ $? -eq 1 ] || fail "a full stdout was not noticed"
fi

# ----------------------------------------------------------------------------------- theory --
small="--documents 300 --repeats 2"
good theory --study eps $small --out th
has "sae_error"
for f in eps.csv eps-error.svg eps-captured.svg recipe.yaml; do
    [ -s "th/$f" ] || fail "theory wrote no $f"
done
[ "$(ls th | wc -l)" -eq 4 ] || fail "theory wrote more: $(ls th)"
grep -q '^eps,sae_error,sae_error_se,sae_closed,' th/eps.csv || fail "eps.csv: $(head -n 1 th/eps.csv)"
[ "$(wc -l <th/eps.csv)" -eq 11 ] || fail "eps.csv: $(cat th/eps.csv)"
good theory th/recipe.yaml --out th2 --threads 1 # which says all that the numbers depend on
for f in eps.csv eps-error.svg eps-captured.svg; do
    cmp -s "th/$f" "th2/$f" || fail "theory: another $f of the same recipe on one thread"
done
good theory --study eps $small --seed 1 --out th2 # over what is there
cmp -s th/eps.csv th2/eps.csv && fail "theory: the seed changes nothing"
good theory --study selection --repeats 1 --json
has '{"study":"selection","rows":[{"documents":'
good theory --width 48 --features 64 --rank 4 --delta 0.4 --loud 4 $small --contrast-documents 1000 --out th3
[ "$(ls th3/*.csv | wc -l)" -eq 10 ] || fail "theory: $(ls th3)"
if command -v xmllint >/dev/null; then
    xmllint --noout th/*.svg th3/*.svg || fail "theory: figures are not XML"
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
good eval --responses r.jsonl --benign-categories theft # beside those of generate.benign
has "of 3 benign responses"
bad 2 "--responses is needed" eval
bad 3 "nowhere.jsonl" eval --responses nowhere.jsonl
bad 2 "--judgements is needed" eval --responses r.jsonl --judge file
bad 2 "expected a list of refusal|http|file" eval --responses r.jsonl --judge me
printf '{"id":"a","score":1}\n{"id":"b","score":6}\n' >j.jsonl
bad 3 "id b: expected a score from 1 to 5" eval --responses r.jsonl --judge file --judgements j.jsonl
printf '{"id":"a","score":1}\n{"id":"b","score":3}\n' >j.jsonl
bad 3 "expected a judgement of id c" eval --responses r.jsonl --judge file --judgements j.jsonl
printf '{"id":"c","score":2,"reason":"why"}\n' >>j.jsonl
good eval --responses r.jsonl --judge file --judgements j.jsonl --json
has '"harmfulness":2.0'
printf '{"id":"a","response":"x"}\n{"id":"a","response":"y"}\n' >twice.jsonl
bad 3 "twice.jsonl: line 2: id a: two responses" eval --responses twice.jsonl
printf '\n{"id":"a","response":"x"}\n\n{"response":"y"}\n' >nameless.jsonl # empty lines count
bad 3 'nameless.jsonl: line 4: expected a text "id", found none' eval --responses nameless.jsonl
bad 3 'nameless.jsonl: line 2: id a: expected a score from 1 to 5' \
    eval --responses r.jsonl --judge file --judgements nameless.jsonl
printf '{"id":"a","response":"x"}\n{"id": }\n' >broken.jsonl
bad 3 "broken.jsonl: line 2" eval --responses broken.jsonl
printf '[1]\n' >array.jsonl
bad 3 "line 1: expected a JSON object" eval --responses array.jsonl
: >empty.jsonl
bad 3 "expected responses" eval --responses empty.jsonl
bad 3 "no/such/folder" eval --responses r.jsonl --out no/such/folder/e.json
printf 'id,type,prompt\na,homonyms,a b\nb,contrast_homonyms,b\nc,homonyms,c d\nd,homonyms,d\n' >suite.csv
good eval --responses r.jsonl --suite xstest --prompts suite.csv --versus e.json
has " 1     0.00   [0.0, 79.3]"
has " 2   100.00   [34.2, 100.0]"
has "1 prompts of the suite have no response"
has "harmful: safe here alone 0, there alone 0, p 1"
bad 3 "suite xstest: nowhere" eval --responses r.jsonl --suite xstest --prompts nowhere

# ------------------------------------------------------------------------- init and tokenize --
shape="--layers 2 --hidden 64 --ffn 128 --heads 4 --kv-heads 2 --head-dim 16 --vocab 300 --dtype f32"
good init $shape --seed 1 --out m1
has "2 layers of width 64"
good init $shape --seed 1 --shard 0.0001 --threads 1 --out m2
[ -e m2/model.safetensors.index.json ] || fail "init --shard made no index"
bad 2 "already holds a model" init $shape --out m1
bad 2 "--out is needed" init $shape
bad 3 "nowhere" init --config nowhere --out m3
bad 3 "preset 2b with the flags given: num_key_value_heads: expected a divisor of 3 heads" \
    init --heads 3 --out m3
echo '{"model_type": "llama"}' >llama.json
bad 3 "llama.json: model_type" init --config llama.json --out m3
[ ! -e m3 ] || fail "a refused config left a folder behind"
good init $shape --seed 1 --threads 1 --out m4
cmp -s m1/model.safetensors m4/model.safetensors || fail "init depends on the number of threads"
good init $shape --seed 2 --out m5
cmp -s m1/model.safetensors m5/model.safetensors && fail "init does not depend on the seed"
bad 3 "nowhere" tokenize --tokenizer nowhere --data r.jsonl
bad 2 "--tokenizer is needed" tokenize --data r.jsonl

# ------------------------------------------------------- score, subspace, train, generate, merge --
tokenizer=$root/tests/golden/tokenizer_small.json
shape="--layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions 64"
good init $shape --tokenizer "$tokenizer" --dtype f32 --out m
printf '%s\n' '{"prompt":"Where is the red door?","completion":"I cannot say."}' \
    '{"prompt":"And now?","completion":"No."}' >chats.jsonl
printf '{"id":"p","prompt":"Where?"}\n' >prompts.jsonl
unset SAILS_PEAK
good train --model m --data chats.jsonl --init lora --rank 2 --max-length 60 --dtype f32 --out ad
has "% of peak |" # as measured
has "trainable params: 1,792 ||"
has "step 1/1 | loss"
[ -s ad/adapter_model.safetensors ] && [ -s ad/metrics.jsonl ] || fail "train wrote: $(ls ad)"
export SAILS_PEAK=0
good train --model m --data chats.jsonl --init-adapter ad --max-length 60 --steps 2 --out ad2
grep -q "of peak" out && fail "a share of no peak: $(cat out)"
bad 2 "--subspace is needed" train --model m --data chats.jsonl --out ad3
bad 2 "--rank auto takes the rank" train --model m --data chats.jsonl --init lora --rank 0 --out ad3
bad 2 "unknown flag --scores" train --model m --data chats.jsonl --init lora --out ad3 --scores x
bad 3 "nowhere" train --model m --data chats.jsonl --init sails --subspace nowhere --out ad3
bad 3 "nowhere" train --model m --data chats.jsonl --init-adapter nowhere --out ad3
bad 3 "nowhere" train --model nowhere --data chats.jsonl --init lora --out ad3
bad 3 "m/config.json: expected a folder with config.json" train --model m/config.json \
    --data chats.jsonl --init lora --out ad3
bad 3 "expected a folder with config.json" merge --model m/model.safetensors --adapter ad --out ad3
bad 3 "none: expected a folder with config.json" merge --model none --adapter ad --out ad3
bad 3 "expected a folder with adapter_config.json" train --model m --data chats.jsonl \
    --init-adapter ad/adapter_model.safetensors --out ad3
bad 3 "expected a folder with adapter_config.json" generate --model m --prompts prompts.jsonl \
    --adapter ad/adapter_config.json
bad 3 "m: expected a file, this is a folder" train --model m --data m --init lora --out ad3
bad 3 "m: expected a file, this is a folder" train --model m --data chats.jsonl --init sails \
    --subspace m --out ad3
bad 3 "chats.jsonl: cannot make this folder: Not a directory" train --model nowhere --data nowhere --init lora \
    --out chats.jsonl
bad 3 "chats.jsonl/ad: cannot make" merge --model nowhere --adapter nowhere --out chats.jsonl/ad
bad 3 "no document has a training target" train --model m --data chats.jsonl --init lora \
    --max-length 5 --out ad3
bad 3 "prompts.jsonl" train --model m --data prompts.jsonl --init lora --out ad3
[ ! -e ad3 ] || fail "a refused training left a folder behind"
good generate --model m --adapter ad --prompts prompts.jsonl --max-new-tokens 3 --out g.jsonl
grep -q '"id":"p"' g.jsonl || fail "generate wrote: $(cat g.jsonl)"
good generate --model m --prompts prompts.jsonl --max-new-tokens 3 --temperature 1 --seed 4
good generate --model m --suite xstest --prompts suite.csv --limit 2 --max-new-tokens 1 \
    --out g.jsonl
grep -q '"id":"b".*"category":"contrast_homonyms"' g.jsonl || fail "generate wrote: $(cat g.jsonl)"
grep -c . g.jsonl | grep -qx 2 || fail "generate wrote: $(cat g.jsonl)"
good init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --positions 12 \
    --tokenizer "$tokenizer" --dtype f32 --out short
bad 3 "chats.jsonl: line 1" generate --model short --prompts chats.jsonl
echo '{"text":"a b c d e f g h i j k l m n o p q r s t u v w x y z"}' >long.jsonl
bad 3 "long.jsonl: line 1: prompt of more than 11 tokens" generate --model short --prompts long.jsonl
bad 3 "nowhere" generate --model m --prompts nowhere
bad 3 "no/g.jsonl: cannot write" generate --model nowhere --prompts nowhere --out no/g.jsonl
echo '{"text":"a <bos> b"}' >bos.jsonl
bad 3 "bos.jsonl: line 1: the text holds <bos>" logprob --model m --data bos.jsonl --max-length 60
good logprob --model m --adapter ad --data chats.jsonl --max-length 60
[ "$(wc -l <out)" -eq 2 ] || fail "logprob wrote $(wc -l <out) lines"
good logprob --model m --data chats.jsonl --max-length 60 --out lp.jsonl --json
has '"documents":2'
[ "$(wc -l <lp.jsonl)" -eq 2 ] || fail "logprob wrote $(wc -l <lp.jsonl) lines"
good tokenize --tokenizer m --data chats.jsonl --out t.jsonl --json
has '"documents":2'
good merge --model m --adapter ad --out merged
has "largest weight error"
bad 2 "already holds a model" merge --model m --adapter ad --out m1
mkdir pickle gguf adpt saept noweights # weights that other tools read: what they are, and what to do
cp m/config.json m/tokenizer.json pickle/ && echo x >pickle/pytorch_model.bin
echo x >gguf/gemma-2-2b-Q4.gguf && cp ad/adapter_config.json adpt/ && echo x >adpt/adapter_model.bin
cp m/config.json m/tokenizer.json noweights/
echo x >saept/ae.pt && echo x >pickle/training_args.bin
bad 3 "pickle/pytorch_model.bin: expected safetensors, this is a PyTorch pickle; convert it with tran" \
    logprob --model pickle --data chats.jsonl
bad 3 "gguf/gemma-2-2b-Q4.gguf: expected safetensors, this is a GGUF file; take the model's own" \
    logprob --model gguf --data chats.jsonl
bad 3 "gemma-2-2b-Q4.gguf: expected safetensors, this is a GGUF file" \
    generate --model gguf/gemma-2-2b-Q4.gguf --prompts prompts.jsonl
bad 3 "adapter_model.bin: expected safetensors, this is a PyTorch pickle; convert it with PEFT" \
    merge --model m --adapter adpt --out merged3
bad 3 "saept/ae.pt: expected safetensors, this is a PyTorch pickle; load it where it was trained" \
    score --model m --sae saept --layers 0 --max-length 60 --data chats.jsonl --out s
bad 3 "expected model.safetensors or model.safetensors.index.json in this folder" \
    logprob --model noweights --data chats.jsonl
cp -r m dressed # with all that other tools look for beside the weights
for f in tokenizer.model tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json \
    vocab.txt merges.txt spiece.model chat_template.json chat_template.jinja processor_config.json \
    preprocessor_config.json video_preprocessor_config.json; do
    echo "{\"$f\": 1}" >dressed/$f
done
mkdir dressed/additional_chat_templates
echo tool >dressed/additional_chat_templates/tool_use.jinja
echo rag >dressed/additional_chat_templates/rag.jinja
good merge --model dressed --adapter ad --out redressed
diff -rq -x model.safetensors dressed redressed || fail "merge lost files"
good init $shape --dtype f32 --tokenizer dressed --out newborn
diff -rq -x model.safetensors -x 'generation_config.json' -x config.json dressed newborn ||
    fail "init --tokenizer lost files"
mkdir bare && cp m/config.json m/model.safetensors bare/ && echo x >bare/tokenizer.model
good merge --model bare --adapter ad --out rebare
cmp -s bare/tokenizer.model rebare/tokenizer.model || fail "merge lost tokenizer.model"
ls redressed | grep -q tmp && fail "merge left $(ls redressed)"
bad 3 "nowhere" merge --model m --adapter nowhere --out merged2
bad 2 "--aligned and --unaligned" score --model m --sae x --layers 0 --aligned r.jsonl --out s
bad 2 "expected --data with pairs" score --model m --sae x --layers 0 --out s
bad 3 "no SAE for layer 0" score --model m --sae x --layers 0 --max-length 60 --data chats.jsonl --out s
bad 2 "expected 0 to 1" score --model m --sae x --layers 2 --max-length 60 --data chats.jsonl --out s
bad 3 "nowhere" subspace --scores nowhere --out b

# ------------------------------------------------- a device that cannot be had: cuda, then auto --
without_gpu() { # "why"
    bad 2 "--device cuda: $1" generate --model m --prompts prompts.jsonl --device cuda
    good train --model m --data chats.jsonl --init lora --rank 2 --max-length 60 --dtype f32 \
        --steps 1 --device auto --out "auto$((autos += 1))"
    has "1 steps of 64 documents, cpu "
}
autos=0
SAILS_CUDA_PLUGIN=$work/none.so without_gpu "the CUDA plug-in does not load ($work/none.so"
cc -shared -x c -o libneeded.so.1 -Wl,-soname,libneeded.so.1 /dev/null
cc -shared -x c -o needy.so /dev/null -x none -Wl,--no-as-needed libneeded.so.1 && rm libneeded.so.1
no_file="cannot open shared object file: No such file or directory"
SAILS_CUDA_PLUGIN=$work/needy.so without_gpu \
    "the CUDA plug-in does not load (libneeded.so.1: $no_file); put the folder of CUDA"
if [ -e "$(dirname "$sails")/libsails_cuda.so" ] && [ ! -e /dev/nvidiactl ]; then
    without_gpu "no GPU answers"
fi

# -------------------------------------------------------- a level of the processor's: one, any --
levels=$("$sails" train --help | sed -n 's/.*--cpu \([^ ]*\).*/\1/p')
least=$(cut -d'|' -f2 <<<"$levels")
bad 2 "--cpu: expected one of $levels" train --model m --data chats.jsonl --cpu pentium
good train --model m --data chats.jsonl --init lora --rank 2 --max-length 60 --dtype f32 \
    --steps 1 --cpu "$least" --out least
has "1 steps of 64 documents, cpu $least f32"
# A processor of 2008, made of software. A sanitizer's program cannot run on it.
on_nehalem() { # WORDS ARGUMENTS...
    local words=$1 said
    shift
    said=$(qemu-x86_64 -cpu Nehalem "$sails" "$@" 2>&1) && fail "it ran"
    [ $? -eq 2 ] || fail "another exit code than 2"
    [[ $said == "sails: --cpu $words"* && $said != *$'\n'* ]] || fail "$said"
}
if [ "$(uname -m)" = x86_64 ] && ! grep -q __asan_init "$sails"; then
    command -v qemu-x86_64 >/dev/null || fail "qemu-x86_64 is missing; run tools/install.sh test"
    on_nehalem "auto: this processor is too old: " subspace --scores s --out b
    on_nehalem "amx: this processor cannot run that level" subspace --scores s --out b --cpu amx
fi

# ------------------------------------------------------------------------------------- plan --
common="--model m --dtype f32 --seed 1 --threads 1"
good plan --stage train $common --data chats.jsonl --max-length 60 --init lora --rank 2 --lr 1e-3 \
    --train.batch 4 --data.limit 1
good plan --stage logprob $common --adapter ad --data chats.jsonl --side rejected --max-length 60
good plan --stage generate $common --prompts prompts.jsonl --benign chats.jsonl --generate.batch 4 \
    --generate.limit 1 --max-new-tokens 3 --temperature 1 --top-k 3 --top-p 0.5
has "key/value cache"
bad 2 "--batch is a key of several sections; write --train.batch or --generate.batch" \
    plan $common --batch 3
bad 2 "--limit is a key of several sections; write --data.limit or --generate.limit" \
    plan $common --limit 3
bad 2 "--prompts is needed for generate" plan --stage generate $common
good plan $common
has "64 documents"
bad 2 "plan: --data is needed" plan --stage logprob $common
bad 2 "or --aligned and --unaligned" plan --stage score $common
good plan --stage inputs $common --data chats.jsonl --rank 2 --ranks 3
has "moments of inputs"
has ", rank 0"
good plan --stage inputs $common --data chats.jsonl --rank 2 --ranks 3 --json
has '"rank_0_alone":true'
has '"rank_0_alone":false'
bad 2 "plan: --data is needed" plan --stage inputs $common
bad 2 "expected at most" plan --stage inputs $common --data chats.jsonl --rank 4000
bad 2 "--sae and --layers are needed for score" plan --stage score $common --data chats.jsonl

# ------------------------------------------------------------------- documents without a target --
long=$(printf 'lock %.0s' $(seq 40))
printf '{"prompt":"%s","completion":"ok"}\n' "$long" "$long" "$long" >dropped.jsonl
printf '{"prompt":"Hi","completion":"Sure.","mood":"x"}\n' >>dropped.jsonl
small="--init lora --rank 2 --max-length 32 --train.batch 1 --epochs 2 --dtype f32"
good train --model m --data dropped.jsonl $small --out ad4
has "1 documents, "
has "3 documents without a target dropped"
has "fields ignored: mood"
has "step 2/2 |"
grep -q '"loss":0.0' ad4/metrics.jsonl && fail "a step without a target: $(cat ad4/metrics.jsonl)"
good train --model m --data dropped.jsonl $small --out ad4 --json
has '"documents":1,"dropped":3,"steps":2'
good plan --model m --data dropped.jsonl $small --json
has '"documents":1,"dropped":3'
good plan --model m --data dropped.jsonl $small
has "  3 documents without a target dropped"
good bench --step --model m --data dropped.jsonl --rank 2 --max-length 32 --batch 4 --runs 1
has "3 documents without a target dropped"
printf 'out: run\nmodel: {path: m, dtype: f32}\ndata: {path: dropped.jsonl, max-length: 32}\n' >drop.yaml
printf 'train: {methods: [lora], rank: 2, batch: 1, epochs: 2}\ngenerate: {prompts: prompts.jsonl, max-new-tokens: 2}\n' >>drop.yaml
good align drop.yaml
has "3 documents without a target dropped"
grep -q '"dropped": 3' run/manifest.json || fail "the manifest does not count: $(cat run/manifest.json)"
head -n 3 dropped.jsonl >none.jsonl
for c in "train --out ad5" plan; do
    bad 3 "within 32 tokens; raise --max-length" ${c%% *} --model m --data none.jsonl $small ${c#"${c%% *}"}
done
bad 3 "prompts without a reply; add a \"completion\"" train --model m --data prompts.jsonl $small --out ad5

# -------------------------------------------------------------------------- ids need no tokenizer --
mkdir untold && cp m/config.json m/model.safetensors untold
printf '{"tokens":[2,40,41,42],"labels":[0,0,1,1]}\n' >ids.jsonl
good train --model untold --data ids.jsonl $small --out ad6
good logprob --model untold --data ids.jsonl --max-length 32 --out lp2.jsonl
good plan --model untold --data ids.jsonl $small
bad 3 "dropped.jsonl: line 1: text needs a tokenizer, and there is no untold/tokenizer.json; add it" \
    train --model untold --data dropped.jsonl $small --out ad7
bad 3 "untold/tokenizer.json" generate --model untold --prompts prompts.jsonl
printf '{"tokens":[2,99999]}\n' >far.jsonl
bad 3 "expected an id from 0 to" logprob --model bare --data far.jsonl

# ------------------------------------------------------------------------ another chat template --
cp -r m talk
printf '{"chat_template":"{{ bos_token }}[INST] {{ messages[0].content }} [/INST]"}' >talk/tokenizer_config.json
"$sails" logprob --model talk --data chats.jsonl --max-length 60 >out 2>err || fail "$(cat err)"
[ "$(wc -l <err)" -eq 1 ] || fail "expected one line of notice: $(cat err)"
grep -q "talk/tokenizer_config.json: has another chat template" err || fail "no notice: $(cat err)"
printf '{"other_chat_template": 1}' >talk/tokenizer_config.json
good logprob --model talk --data chats.jsonl --max-length 60
printf '%s' "{{ bos_token }}" >talk/chat_template.jinja
sed -i 's/path: m,/path: talk,/; s/out: run/out: run2/' drop.yaml
"$sails" align drop.yaml >out 2>err || fail "$(cat err)"
grep -q "talk/chat_template.jinja: has another" err || fail "no notice: $(cat err)"
grep -q '"other_chat_template": "talk/chat_template.jinja"' run2/manifest.json || fail "no note"

# ---------------------------------------------------------------------------------- inspect --
good inspect m ad chats.jsonl m/model.safetensors
has "kind: PEFT LoRA adapter"
has "tensors: 24"
has "  user:  Where is the red door?"
good inspect chats.jsonl --tokenizer m --limit 1
has "[["
good inspect m/config.json --json
has '"layers":2'
good inputs --model m --data chats.jsonl --max-length 60 --rank 2 --out in.safetensors
good inspect in.safetensors # of what q, k and v read, and o, in two layers
has "layers: 2"
has "bases: 4"
bad 3 "nowhere" inspect nowhere
bad 3 "expected a folder with adapter_config.json" inspect .
bad 3 "broken.jsonl" inspect broken.jsonl
printf 'no tensors at all' >junk.safetensors
bad 3 "junk.safetensors: expected a safetensors header" inspect junk.safetensors
printf 'no archive at all' >junk.npz
bad 3 "junk.npz: expected a .npz archive" inspect junk.npz

# -------------------------------------------------------------------- writing over what is read --
# Of every command, each file or folder that it may read given as what it may write, too: by its
# name, through links, and within a folder.
mkdir real real/eval
for f in metrics.jsonl manifest.json recipe.yaml adapter_config.json; do echo '{}' >real/$f; done
ln -s real linked
ln real/metrics.jsonl hard.jsonl
pairs=0
for c in $commands; do
    "$sails" "$c" --help >help
    flags=$(sed -nE 's/^  --([a-z0-9.-]+) (FILE|FOLDER|PATH).*/\1 \2/p' help)
    needed=$(awk '/^  --/ { flag = substr($1, 3) } /\[needed/ || /, needed/ { print flag }' help)
    grep -q 'RECIPE.yaml \[--' help && recipe=real/recipe.yaml || recipe=
    while read -r out kind; do
        case $out in *out | *-export) ;; *) continue ;; esac
        while read -r in what; do
            case $in in *out | *-export | '') continue ;; esac
            others=()
            for n in $needed; do [ "$n" = "$in" ] || [ "$n" = "$out" ] || others+=("--$n" other); done
            for from in real linked; do
                for to in real linked "$work/real/eval/.."; do
                    read=$from write=$to
                    [ "$what" = FILE ] && read=$from/metrics.jsonl
                    [ "$kind" = FILE ] && write=$to/metrics.jsonl
                    bad 2 "--$out $write: would write over" "$c" $recipe "${others[@]}" \
                        "--$in" "$read" "--$out" "$write"
                    pairs=$((pairs + 1))
                done
            done
            [ "$kind" = FILE ] && bad 2 "which is read as --$in" "$c" $recipe "${others[@]}" \
                "--$in" "$read" "--$out" hard.jsonl
        done <<<"$flags"
    done <<<"$flags"
done
[ $pairs -ge 200 ] || fail "only $pairs pairs of input and output were tried"
bad 2 "the recipe" tokenize real/recipe.yaml --tokenizer m --data chats.jsonl --out real/recipe.yaml
mkdir -p real/models/full && echo '{}' >real/models/full/config.json
bad 2 "would write over real/models/full/config.json" \
    align real/recipe.yaml --model real/models/full --data other --prompts other --out real
good tokenize --tokenizer m --data chats.jsonl --out real/new.jsonl
cp chats.jsonl same.jsonl && bad 2 "would write over same.jsonl" \
    tokenize --tokenizer m --data same.jsonl --out same.jsonl
cmp -s chats.jsonl same.jsonl || fail "an input was written over"

# ------------------------------------------------------------------------------ names of the hub --
bad 3 "google/gemma-2-2b: no such file or folder, and sails fetches nothing" \
    generate --model google/gemma-2-2b --prompts prompts.jsonl
bad 3 "fetch it (hf download NAME" tokenize --tokenizer google/gemma-2-2b --data chats.jsonl
mkdir -p hub/models--g--m/refs hub/models--g--m/snapshots && cp -r m hub/models--g--m/snapshots/v1
good inspect hub/models--g--m
good logprob --model hub/models--g--m --data chats.jsonl --max-length 60
mkdir narrow && cp m/tokenizer.json m/model.safetensors narrow/
sed 's/"vocab_size": [0-9]*/"vocab_size": 300/' m/config.json >narrow/config.json
"$sails" doctor --model narrow >out 2>err && fail "doctor took ids beyond the embedding"
has "the tokenizer has ids up to"

# --------------------------------------------------------------------------------- a signal --
"$sails" init --preset 9b --dtype f32 --out big >out 2>err &
pid=$!
for _ in $(seq 100); do ls big/tmp.*/* >ls 2>&1 && break; sleep 0.05; done
kill -TERM $pid
wait $pid
code=$?
[ $code -eq 143 ] || fail "SIGTERM gave exit $code, expected death by the signal (143)"
[ "$(wc -l <err)" -eq 1 ] || fail "SIGTERM: expected one line, got: $(cat err)"
[ ! -e big ] || fail "SIGTERM left half a model: $(ls big)"
good init --layers 2 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 \
    --positions 200000 --tokenizer "$tokenizer" --dtype f32 --out long
for seconds in 2 10 30; do # more on a machine so busy that it has not even begun, and says nothing
    timeout --preserve-status -s TERM -k 60 $seconds "$sails" generate --model long \
        --prompts prompts.jsonl --max-new-tokens 199900 --out endless.jsonl >out 2>err # for minutes
    code=$?
    [ ! -s err ] || break
done
[ $code -eq 143 ] || fail "SIGTERM in generate gave exit $code, expected 143 within a minute"
grep -q "interrupted by SIGTERM" err || fail "SIGTERM in generate: $(cat err)"
ls endless.jsonl* >ls 2>&1 && fail "SIGTERM in generate left $(cat ls)"

# ----------------------------------------------------------------------------------- recipes --
printf 'eval:\n  responses: r.jsonl\n  judge: refusal\ntrain:\n  lr: 1e-4\n' >ok.yaml
good eval ok.yaml
good eval ok.yaml --benign-categories theft
printf 'eval:\n  responses: r.jsonl\n  jugde: refusal\n' >key.yaml
bad 2 "line 3: unknown key eval.jugde; did you mean eval.judge?" eval key.yaml
printf 'eval:\n  judge: refusal\n  judge: file\n' >double.yaml
bad 2 "line 3: eval.judge is already set on line 2" eval double.yaml
printf 'eval: &a\n  judge: refusal\n' >anchor.yaml
bad 2 "anchors" eval anchor.yaml
bad 3 "nowhere.yaml" eval nowhere.yaml

[ $failures -eq 0 ] && echo "cli: ok"
exit $((failures != 0))
