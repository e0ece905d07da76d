/* Settings that cannot be: flags and keys that nobody knows, values out of range, and sound files
 * that do not fit each other. Each ends in one line and leaves the world as it was. */
#include "host/cli/command.h"

#include "tests/bad_rows.h"

#define NARROW "--model narrow --dtype f32 "
#define SCORE "score --data pairs.jsonl --max-length 128 --out new/scores "
#define MOMENTS "moments --data pairs.jsonl --max-length 128 --out new/moments "
#define LAYERS "--sae sae/{layer} --layers 1,2 "
#define SUBSPACE "subspace --scores scores --out new/basis "
#define DIRECT "subspace --moments moments --init direct-mean --out new/basis "
#define TRAIN "train --data pairs.jsonl --max-length 128 --out new/adapter "
#define PAIRS MODEL "--init lora --method dpo "
#define THEORY "theory --out new/theory "
#define ALIGN "align run.yaml "

static const struct {
    int code;
    const char *line, *words;
} row[] = {
    /* unknown flags and keys, with the nearest that exists */
    {2, "evla", "unknown command evla; did you mean eval?"},
    {2, TRAIN MODEL "--init lora --lrr 1", "unknown flag --lrr; did you mean --lr?"},
    {2, TRAIN MODEL "--init lora --set train.rnak=1",
     "unknown key train.rnak; did you mean train.rank?"},
    {2, TRAIN MODEL "--init lora --set rank=1", "unknown key rank; did you mean train.rank?"},
    {2, SCORE MODEL LAYERS "--max_length 3", "did you mean --max-length?"},
    {2, "generate " MODEL "--promts prompts.jsonl", "did you mean --prompts?"},
    {2, "eval --response responses", "did you mean --responses?"},
    {2, "merge --model model --adaptor adapter --out new/m", "did you mean --adapter?"},
    {2, "init --hiden 3 --out new/m", "did you mean --hidden?"},
    {2, "inspect --jsn model", "did you mean --json?"},
    {2, "plan --stag train", "did you mean --stage?"},
    {2, ALIGN "--metods base", "did you mean --methods?"},
    /* values */
    {2, TRAIN MODEL "--init lora --rank 5000", "--rank: expected"},
    {2, TRAIN MODEL "--init lora --rank -1", "--rank: expected"},
    {2, TRAIN MODEL "--init lora --rank 0", "--init lora needs a number"},
    {2, TRAIN MODEL "--init lora --targets q,x", "list of q|k|v|o|gate|up|down"},
    {2, TRAIN MODEL "--init pissa --rank 2 --set train.freeze-basis=true",
     "--freeze-basis: it is for starts from a subspace"},
    {2, "train frozen.yaml " MODEL "--out new/adapter --init pissa --rank 2",
     "with --init pissa neither does"},
    {2, "train frozen.yaml " MODEL "--out new/adapter --init olora --rank 2",
     "with --init olora neither does"},
    {2, TRAIN MODEL "--init lora-ga --method dpo", "expected another start with --method dpo"},
    {2, TRAIN MODEL "--init corda --method dpo", "expected another start with --method dpo"},
    {2, "plan --init corda --method dpo " MODEL, "expected another start with --method dpo"},
    {2, ALIGN "--methods sails,olora --freeze-basis", "with the method olora neither does"},
    {2, TRAIN MODEL "--init lora --pack-tokens 64", "--pack-tokens"},
    {2, TRAIN MODEL, "--subspace is needed"},
    {2, TRAIN MODEL "--init lora --method dbo", "--method: expected one of lora|full|dpo"},
    {2, TRAIN MODEL "--init lora --beta 1", "--beta: --method dpo alone has it"},
    {2, TRAIN MODEL "--init lora --loss-type ipo", "--loss-type: --method dpo alone has it"},
    {2, TRAIN MODEL "--method full --weights all", "--weights: --method dpo alone has it"},
    {2, TRAIN MODEL "--method dpo --weights all --rank 4",
     "--rank: it is for adapters, and --weights all trains the weights themselves"},
    {2, TRAIN PAIRS "--side rejected", "--method dpo takes both sides"},
    {2, TRAIN PAIRS "--loss-type exo_pair", "expected --label-smoothing above 0"},
    {2, TRAIN PAIRS "--label-smoothing 0.1", "--loss-type robust and exo_pair alone"},
    {2, TRAIN PAIRS "--loss-type robust --label-smoothing 0.5", "--label-smoothing: expected 0 to"},
    {2, TRAIN PAIRS "--beta 0", "--beta: expected"},
    {2, TRAIN PAIRS "--pack-tokens 255", "expected at least 256 for pairs, twice --max-length"},
    {2, "plan --train.method dpo --label-smoothing 0.1 " MODEL, "exo_pair alone"},
    {3, TRAIN PAIRS "--eval-data prompts.jsonl",
     "prompts.jsonl: line 1: expected \"chosen\" and \"rejected\""},
    /* flags for another method, or for other starts */
    {2, TRAIN MODEL "--method full --rank 4", "--rank: it is for adapters, and --method full"},
    {2, "plan --method full --rank 4 " MODEL, "--rank: it is for adapters, and --method full"},
    {2, "plan --init lora --beta 1 " MODEL, "--beta: --method dpo alone has it"},
    {2, TRAIN MODEL "--init lora --gain norm", "--gain: it is for starts from a subspace"},
    {2, TRAIN MODEL "--init pissa --basis-scale 2", "--basis-scale: it is for starts from a sub"},
    {2, TRAIN MODEL "--init lora --subspace basis", "--subspace: it is for starts from a subspace"},
    {2, TRAIN MODEL "--init eva --subspace basis --only-scored",
     "--only-scored: it is for starts from directions of the stream"},
    {2, TRAIN MODEL "--init-adapter adapter --rank 4",
     "--rank: it is for a new adapter, and --init-adapter names an old one"},
    {2, DIRECT "--variance 0.9", "--variance: it is for starts from the span of so many features"},
    {2, DIRECT "--top-k 4", "--top-k: it is for starts from the span of so many features"},
    {2, DIRECT "--by t", "--by: it is for starts from the best features"},
    {2, DIRECT "--scores scores", "--scores: it is for starts from features of an SAE"},
    {2, SUBSPACE "--moments moments", "--moments: it is for starts without an SAE"},
    {2, SUBSPACE "--init random-features --by t", "--by: it is for starts from the best features"},
    {2, SUBSPACE "--init sails-span --top-k 4", "--top-k: it is for starts from the span of so"},
    {2, SUBSPACE "--init sails-span --rank 0 --variance 0.9", "that may leave some of it out"},
    {2, ALIGN "--methods lora,pissa --gain norm", "--gain: it is for starts from a subspace"},
    {2, ALIGN "--methods lora,direct-mean --subspace.top-k 4",
     "--subspace.top-k: it is for starts from the span of so many features"},
    {2, ALIGN "--method full", "unknown flag --method"},
    {2, "subspace --out new/basis", "--init sails: --scores is needed"},
    {2, SUBSPACE "--init direct-mean", "--init direct-mean: --moments is needed"},
    {2, "subspace --moments moments --init direct-mean --rank 0 --out new/basis",
     "--init direct-mean needs a number"},
    {2, "subspace --moments moments --init direct-mean --rank 65 --out new/basis",
     "--rank 65: expected at most the model's width 64"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--rank 0",
     "--init eva needs a number"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--rank 65",
     "--rank 65: expected at most 64, the width that qkv reads"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--set train.targets=",
     "--targets: expected at least one with --init eva"},
    {2, ALIGN "--methods eva --rank 65",
     "--rank 65: expected at most 64, the width that qkv reads"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--preserve pairs.jsonl",
     "--preserve-rank 32: expected less than 32, the width that k_proj writes"},
    {2,
     "inputs --data pairs.jsonl --out new/inputs " MODEL
     "--preserve pairs.jsonl --set train.targets=",
     "--targets: expected at least one with --init salora"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--preserve-rank 4",
     "--preserve-rank: it is for --preserve"},
    {2, "inputs --data pairs.jsonl --out new/inputs " MODEL "--samples 4",
     "--samples: it is for --preserve"},
    {2, "inputs --data pairs.jsonl --out new/inputs --preserve pairs.jsonl " MODEL "--rho 2",
     "--rho: it is for the start eva"},
    {2, TRAIN MODEL "--init lora --rho 2", "--rho: it is for the start eva; leave it out"},
    {2, TRAIN MODEL "--init eva --rho 0.5", "--rho: expected 1 to"},
    {2, ALIGN "--methods salora", "inputs.preserve: the method salora needs it"},
    {2, ALIGN "--methods lora --preserve-rank 4", "--preserve-rank: it is for the start salora"},
    {2, ALIGN "--methods lora,salora --basis-scale 2", "--basis-scale: salora's directions are no"},
    {2, SUBSPACE "--init salora", "--init salora: its subspace is made by sails inputs"},
    {2, TRAIN MODEL "--init salora", "--subspace is needed: a file written by sails inputs"},
    {2, ALIGN "--methods lora,eva --sae sae/{layer}",
     "--sae: it is for starts from features of an SAE; leave it out"},
    {2, ALIGN "--methods full --sae sae/{layer}", "--sae: it is for adapters"},
    {2, SUBSPACE "--init eva", "--init eva: its subspace is made by sails inputs"},
    {2, TRAIN MODEL "--init eva", "--subspace is needed: a file written by sails inputs"},
    {2, TRAIN MODEL "--init eva --rank 4 --subspace basis",
     "for --init sails, not eva; name that start, or make another by sails inputs"},
    {2, MOMENTS MODEL "--layers 9", "--layers: expected 0 to 3"},
    {2, MOMENTS MODEL "--layers 1 --aligned pairs.jsonl", "expected both or neither"},
    {2, ALIGN "--methods direct-pairs --aligned pairs.jsonl --unaligned pairs.jsonl",
     "the method direct-pairs needs pairs"},
    {2, SUBSPACE "--top-k 0", "--top-k: expected 1 to"},
    {2, SUBSPACE "--variance 2", "--variance: expected 1e-06 to 1"},
    {2, SUBSPACE "--variance 0", "--variance: expected 1e-06 to 1"},
    {2, SCORE MODEL "--sae sae/{layer} --layers 1-9", "--layers: expected 0 to 3"},
    {2, SCORE MODEL "--sae sae/{layer} --layers one", "--layers: expected numbers"},
    {2, "eval --responses responses --judge file", "--judgements is needed"},
    /* the recovery experiment: worlds that cannot be */
    {2, THEORY "--study epz", "--study: expected one of all|eps|"},
    {2, THEORY "--rank 129", "--rank 129: expected at most 128"},
    {2, THEORY "--rank 128 --study coherence", "--rank 128: expected at most 127"},
    {2, THEORY "--rank 64 --width 64 --coherence 0.5 --study eps", "expected at most 63"},
    {2, THEORY "--rank 0", "--rank: expected 1 to"},
    {2, THEORY "--features 8", "--features 8: expected more than the 8 of the task"},
    {2, THEORY "--features 31", "--features 31: expected at least the 32"},
    {2, THEORY "--loud 505", "--loud 505: expected at most 504"},
    {2, THEORY "--loud 0", "--loud 0: expected at least 1"},
    {2, THEORY "--rate 0.9 --delta 0.2", "--delta 0.2: expected at most 0.1"},
    {2, THEORY "--rate 0.4 --delta 0.5 --study contrast", "--delta 0.5: expected below 0.45"},
    {2, THEORY "--delta 0.0001", "--delta 0.0001: choosing features would take"},
    {2, THEORY "--delta 0", "--delta: expected"},
    {2, THEORY "--delta -0.1", "--delta: expected"},
    {2, THEORY "--rate 0", "--rate: expected"},
    {2, THEORY "--eps -1", "--eps: expected 0 to"},
    {2, THEORY "--sigma nan", "--sigma: expected"},
    {2, THEORY "--coherence 1", "--coherence: expected 0 to"},
    {2, THEORY "--documents 0", "--documents: expected 2 to"},
    {2, THEORY "--contrast-documents 1", "--contrast-documents: expected 2 to"},
    {2, THEORY "--repeats 0", "--repeats: expected 1 to"},
    {2, THEORY "--width 4096", "--width: expected 2 to 1024"},
    {3, "theory --study eps --documents 10 --out prompts.jsonl/there", "prompts.jsonl/there"},
    /* an SAE that is not for this layer, or not for this model */
    {3, SCORE MODEL "--sae sae/1 --layers 2", "write {layer} in --sae"},
    {3, SCORE MODEL "--sae sae/{layer} --layers 0", "no SAE for layer 0"},
    {3, SCORE MODEL "--sae sae/* --layers 1", "found 2"},
    {3, SCORE NARROW LAYERS, "another model?"},
    {3, ALIGN "--model narrow", "another model?"},
    {3, ALIGN "--layers 0", "no SAE for layer 0"},
    /* k beyond the SAE's width, ranks beyond the model's */
    {2, SUBSPACE "--top-k 41", "--top-k 41: expected at most the 40 features"},
    {2, ALIGN "--subspace.top-k 41", "--top-k 41: expected at most the 40 features"},
    {2, SUBSPACE "--top-k 6 --rank 65", "--rank 65: expected at most the model's width 64"},
    {2, ALIGN "--rank 65", "--rank 65: expected at most the model's width 64"},
    /* a basis, an adapter and a tokenizer of other models */
    {3, TRAIN NARROW "--subspace basis", "width 64"},
    {3, TRAIN NARROW "--init-adapter adapter", "another model's file?"},
    {3, "merge --model narrow --adapter adapter --out new/m", "another model's file?"},
    {3, "logprob --model narrow --adapter adapter --data pairs.jsonl --out new/l",
     "another model's"},
    {3, TRAIN "--model few --dtype f32 --tokenizer model --init lora", "tokenizer has ids up to"},
    {3, TRAIN "--model short --dtype f32 --init lora", "ask for shorter texts"},
    {3, "generate --model short --dtype f32 --prompts pairs.jsonl --out new/r", "shorten"},
    /* what does not fit into memory is said before any work */
    {4, SCORE MODEL LAYERS "--pack-tokens 16000000", "does not fit"},
    {4,
     "generate --model long --prompts prompts.jsonl --batch 4096 --max-new-tokens 1000000 --out "
     "new/r",
     "does not fit"},
};

int main(void) {
    bad_world();
    program_must(
        "init --layers 4 --hidden 32 --ffn 48 --heads 2 --kv-heads 1 --head-dim 16 "
        "--tokenizer model --dtype f32 --out narrow");
    program_must(
        "init --layers 1 --hidden 32 --ffn 48 --heads 2 --kv-heads 1 --head-dim 16 "
        "--vocab 100 --dtype f32 --out few");
    program_must(
        "init --layers 1 --hidden 32 --ffn 48 --heads 2 --kv-heads 1 --head-dim 16 "
        "--positions 12 --tokenizer model --dtype f32 --out short");
    program_must(
        "init --layers 8 --hidden 64 --ffn 48 --heads 8 --kv-heads 8 --head-dim 256 "
        "--positions 1048576 --tokenizer model --dtype f32 --out long");
    write_text(
        "run.yaml",
        "out: new/run\nmodel: {path: model, dtype: f32}\n"
        "data: {path: pairs.jsonl, max-length: 128}\n"
        "score: {sae: 'sae/{layer}', layers: [1, 2]}\nsubspace: {top-k: 4}\n"
        "train: {rank: 2, steps: 1, methods: [sails]}\ngenerate: {prompts: prompts.jsonl}\n");
    write_text("frozen.yaml", "data: {path: pairs.jsonl}\ntrain: {freeze-basis: true, beta: 1}\n");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Tree before = tree_read(".");
        Ended e = program_run(row[i].line);
        Tree after = tree_read(".");
        const char *change = tree_difference(&before, &after);
        EXPECT(e.code == row[i].code, "sails %s: exit %d, expected %d: %s", row[i].line, e.code,
               row[i].code, e.err);
        EXPECT(program_one_line(e.err, row[i].words), "sails %s: expected one line with \"%s\": %s",
               row[i].line, row[i].words, e.err);
        EXPECT(row[i].code == EXIT_USAGE || strchr(e.err, ';') || strchr(e.err, '?'),
               "sails %s: expected a remedy in: %s", row[i].line, e.err);
        EXPECT(!change, "sails %s: changed %s", row[i].line, change ? change : "");
        tree_free(&before), tree_free(&after);
    }
    world_remove();
    return test_done("bad settings");
}
