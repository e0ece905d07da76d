/* Bad data files in every record form, responses, judgements, recipes, and what is in a run folder.
 * What a row means: bad_rows.h. */
#include "host/cli/command.h"

#include <zlib.h>

#include "tests/bad_rows.h"

#define TOKENIZE "tokenize --tokenizer model --data data --out new/tokens"
#define ZIPPED "tokenize --tokenizer model --data data.gz --out new/tokens"
#define SCORE_ON "score " MODEL SOME_DATA "--sae sae/{layer} --layers 1 --out new/scores "
#define SCORE_PAIRS SCORE_ON "--data pairs.jsonl"
#define SCORE_CORPORA SCORE_ON "--aligned data --unaligned unaligned"
#define TRAIN TRAIN_ON "--init lora"
#define TRAIN_PAIRS TRAIN " --method dpo"
#define GENERATE "generate " MODEL "--prompts prompts.jsonl --max-new-tokens 2 --out new/replies"
#define BENIGN GENERATE " --benign benign.jsonl"
#define EVAL "eval --responses responses --out new/judged"
#define JUDGED EVAL " --judge file --judgements judgements"
#define RECIPE "eval recipe.yaml --out new/judged"
#define TRAIN_RECIPE TRAIN " recipe.yaml"
#define INSPECT "inspect data"

/* A row for one JSONL record. */
#define LINE(record, words) \
    { 3, IS("data", record "\n"), TOKENIZE, words }

static const Row record_rows[] = {
    {3, GONE("data"), TOKENIZE, "cannot open"},
    {3, EMPTY("data"), TOKENIZE, "at least one record"},
    {3, IS("data", " \n\n\t\n"), TOKENIZE, "at least one record"},
    {3, HALF("data"), TOKENIZE, "data:1: expected a JSON object on each line"},
    {3, IS("data", "{\"text\": \"a\"}\n{\"text\": }\n"), TOKENIZE, "data:2: "},
    {3, IS("data", "{\"text\": \"a\"}\n[1]\n"), TOKENIZE, "data:2: expected a JSON object, one"},
    {3, IS("data", "{\"text\": \"\xff\"}\n"), TOKENIZE, "byte offset 10: expected valid UTF-8"},
    {3, IS("data", "\xff\xfe{\0"), TOKENIZE, "this is UTF-16; convert it: iconv"},
    {3, IS("data", "{\"text\": \"a\", \"text\": \"b\"}"), TOKENIZE, "duplicate"},
    {3, IS("data", "{\"text\": NaN}"), TOKENIZE, "invalid token"},
    {3, MANY("data", "{\"a\":", 100000), TOKENIZE, "maximum parsing depth"},
    {3, MANY("data", "[", 100000), TOKENIZE, "expected a JSON list that ends"},
    {3, MANY("data", "{\"text\": \"", (64 << 20) + 1), TOKENIZE, "at most 64 MB"},
    {3, EMPTY("data"), INSPECT, "at least one record"},
    {3, HALF("data"), INSPECT, "expected a JSON object"},
    /* each form */
    LINE("{\"question\": 1}", "expected one of"),
    LINE("{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\"}", "\"rejected\": expected"),
    LINE("{\"chosen\": \"a\", \"rejected\": \"b\"}", "\"chosen\": expected text that starts"),
    LINE("{\"chosen\": 1, \"rejected\": 2}", "\"chosen\": expected HH-RLHF text or a list"),
    LINE("{\"chosen\": [], \"rejected\": []}", "\"chosen\": expected"),
    LINE("{\"messages\": []}", "\"messages\": expected a list of messages"),
    LINE("{\"messages\": {\"role\": \"user\"}}", "\"messages\": expected a list of messages"),
    LINE("{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}]}", "no system role"),
    LINE("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "expected user"),
    LINE("{\"messages\": [{\"role\": \"user\", \"content\": [\"a\"]}]}",
         "content: expected a string"),
    LINE("{\"messages\": [{\"role\": \"user\"}]}", "content: expected a string"),
    LINE("{\"prompt\": 5}", "\"prompt\": expected text"),
    LINE("{\"prompt\": \"\"}", "\"prompt\": expected text"),
    LINE("{\"prompt\": \"a\", \"completion\": 7}", "\"completion\": expected a string"),
    LINE("{\"instruction\": null}", "\"instruction\": expected text"),
    LINE("{\"goal\": {}}", "\"goal\": expected text"),
    LINE("{\"text\": 5}", "\"text\": expected a string"),
    LINE("{\"text\": \"a <bos> b\"}", "holds <bos>"),
    LINE("{\"tokens\": []}", "\"tokens\": expected a list of ids"),
    LINE("{\"tokens\": \"2 3\"}", "\"tokens\": expected a list of ids"),
    LINE("{\"tokens\": [2, -1]}", "\"tokens\"[1]: expected a token id"),
    LINE("{\"tokens\": [2, 1.5]}", "\"tokens\"[1]: expected a token id"),
    LINE("{\"tokens\": [2, 3], \"labels\": [1]}", "\"labels\": expected 0 or 1 for each of 2"),
    LINE("{\"tokens\": [2, 3], \"labels\": [0, -100]}", "\"labels\": expected 0 or 1"),
    LINE("{\"tokens\": [2, 3], \"labels\": [0, true]}", "\"labels\": expected 0 or 1"),
    LINE("{\"tokens\": [2, 99999]}", "\"tokens\"[1]: expected an id from 0"),
    LINE("{\"prompt\": \"a\", \"context\": \"b\"}",
         "\"context\": this form of record has no place"),
    LINE("{\"system\": \"s\", \"prompt\": \"a\"}", "\"system\": Gemma has no system role; put its"),
    LINE("{\"prompt\": \"a\", \"completion\": \"b<end_of_turn>\"}", "the text holds <end_of_turn>"),
    LINE("{\"prompt\": \"a\", \"completion\": \"Assistant: b\"}", "rendered for a model already"),
    {3, IS("data", "PAR1 and so on"), TOKENIZE, "this is Parquet; convert it: "},
    {3, IS("data", "goal,target\ra,b\r"), TOKENIZE, "found CR alone; convert"},
    {3, IS("data", "Just a sentence.\n"), TOKENIZE, "Plain text is made prompts"},
    /* a JSON list, and CSV */
    {3, IS("data", "[{\"text\": \"a\"}, {\"text\": \"b\"}"), TOKENIZE,
     "a JSON list that ends in ']'"},
    {3, IS("data", "[{\"text\": \"a\"}] x"), TOKENIZE, "nothing behind the JSON list"},
    {3, IS("data", "[{\"text\": \"a\"},, {}]"), TOKENIZE, "expected a JSON object"},
    {3, IS("data", "text,text\na,b\n"), TOKENIZE, "column 'text' is there twice"},
    {3, IS("data", "text,id\na\n"), TOKENIZE, "expected 2 fields as in the header, got 1"},
    {3, IS("data", "text\n\"a\n"), TOKENIZE, "expected a closing quote"},
    {3, IS("data", "text\n\"a\"b\n"), TOKENIZE, "expected a comma behind"},
    {3, IS("data", "text\n\xff\n"), TOKENIZE, "expected valid UTF-8"},
    {3, IS("data", "colour\nred\n"), TOKENIZE, "expected one of"},
    /* gzip */
    {3, HALF("data.gz"), ZIPPED, "ends too early"},
    {3, PUT("data.gz", -8, "\0\0\0\0"), ZIPPED, "incorrect data check"},
    {3, PUT("data.gz", 12, "\xff\xff\xff"), ZIPPED, "cannot read"},
    /* as every command meets them */
    {3, IS("pairs.jsonl", "{\"prompt\": \"a\"}\n"), SCORE_PAIRS,
     "expected \"chosen\" and \"rejected\""},
    {3, IS("pairs.jsonl", "{\"prompt\": \"a\"\n"), TRAIN, "expected a JSON object on each line"},
    {3, IS("pairs.jsonl", "{\"text\": \"a\"}\n"), TRAIN_PAIRS, "line 1: expected \"chosen\" and"},
    {3, IS("pairs.jsonl", "{\"prompt\": \"a\", \"chosen\": \" \", \"rejected\": \"b\"}\n"),
     TRAIN_PAIRS, "at least one record to use"},
    {3, IS("pairs.jsonl", "{\"prompt\": \"a\"}\n"), TRAIN, "no document has a training target"},
    {3, HALF("data"), SCORE_CORPORA, "expected a JSON object"},
    {3, IS("unaligned", "{\"messages\": 1}\n"), SCORE_CORPORA, "\"messages\": expected a list"},
    {3, IS("unaligned", "{\"prompt\": \"a\"}\n"), SCORE_CORPORA, "unaligned corpus has no token"},
    {3, GONE("prompts.jsonl"), GENERATE, "cannot open"},
    {3, HALF("prompts.jsonl"), GENERATE, "expected a JSON object"},
    {3, IS("benign.jsonl", "{\"messages\": 1}\n"), BENIGN, "\"messages\": expected a list"},
};

static const Row response_rows[] = {
    {3, GONE("responses"), EVAL, "cannot open"},
    {3, EMPTY("responses"), EVAL, "expected responses, found none"},
    {3, HALF("responses"), EVAL, "expected valid JSON"},
    {3, IS("responses", "[]\n"), EVAL, "line 1: expected a JSON object"},
    {3, IS("responses", "{\"id\": \"a\"}\n"), EVAL, "expected a text \"response\", found none"},
    {3, IS("responses", "{\"response\": \"a\"}\n"), EVAL, "expected a text \"id\", found none"},
    {3, IS("responses", "{\"id\": 1, \"response\": \"a\"}\n"), EVAL, "\"id\", got another type"},
    {3, IS("responses", "{\"id\": \"a\", \"response\": null}\n"), EVAL, "got another type"},
    {3, IS("responses", "{\"id\": \"\xff\", \"response\": \"\"}\n"), EVAL, "unable to decode"},
    {3, IS("responses", "{\"id\": \"a\", \"response\": \"\", \"category\": 1}\n"), EVAL,
     "category"},
    {3,
     IS("responses", "{\"id\": \"a\", \"response\": \"\"}\n{\"id\": \"a\", \"response\": \"\"}\n"),
     EVAL, "id a: two responses"},
    {3, MANY("responses", "[", 100000), EVAL, "maximum parsing depth"},
    {3, GONE("judgements"), JUDGED, "cannot open"},
    {3, EMPTY("judgements"), JUDGED, "expected a judgement of id 1, found none"},
    {3, HALF("judgements"), JUDGED, "expected"},
    {3, SWAP("judgements", "\"score\": 1", "\"score\": 0"), JUDGED,
     "id 1: expected a score from 1"},
    {3, SWAP("judgements", "\"score\": 1", "\"score\": \"1\""), JUDGED, "id 1: expected a score"},
    {3, SWAP("judgements", "\"score\": 1", "\"score\": 1e400"), JUDGED, "real number overflow"},
    {3, SWAP("judgements", "\"2\"", "\"1\""), JUDGED, "id 1: expected one judgement"},
    {3, SWAP("judgements", "{\"id\": \"1\"", "{\"di\": \"1\""), JUDGED, "expected a text \"id\""},
};

/* Usage needs no remedy beside what was expected: the line can be typed again. */
static const Row recipe_rows[] = {
    {3, GONE("recipe.yaml"), RECIPE, "cannot open"},
    {2, IS("recipe.yaml", "eval: {responses: responses"), RECIPE, "line 2: not YAML"},
    {2, IS("recipe.yaml", "\teval: 1\n"), RECIPE, "line 1: not YAML"},
    {2, IS("recipe.yaml", "eval: \xff\n"), RECIPE, "not YAML: "},
    {2, IS("recipe.yaml", "eval: \"a\\0b\"\n"), RECIPE, "NUL"},
    {2, IS("recipe.yaml", "eval:\n  jugde: refusal\n"), RECIPE, "did you mean eval.judge?"},
    {2, IS("recipe.yaml", "evil:\n  judge: refusal\n"), RECIPE, "did you mean eval.judge?"},
    {2, IS("recipe.yaml", "eval:\n  judge: me\n"), RECIPE, "expected a list of refusal|http|file"},
    {2, IS("recipe.yaml", "train: {alpha: 2000000}\n"), TRAIN_RECIPE,
     "alpha: expected 0.0001 to 1000000"},
    {2, IS("recipe.yaml", "train: {clip: .inf}\n"), TRAIN_RECIPE, "expected a number"},
    {2, IS("recipe.yaml", "eval: {suite: [xstest]}\n"), RECIPE, "expected one value, got a list"},
    {2, IS("recipe.yaml", "a: &x [*x]\n"), RECIPE, "anchors (&name) are not supported"},
    {2, IS("recipe.yaml", "eval: {a: {b: {c: 1}}}\n"), RECIPE, "another level of sections"},
    {2, MANY("recipe.yaml", "[", 100000), RECIPE, "recipe.yaml: line 1: "},
    {2, MANY("recipe.yaml", "a: [\n", 100000), RECIPE, "recipe.yaml: line "},
    {3, MANY("recipe.yaml", "# much\n", (1 << 20) + 1), RECIPE, "at most 1048576 bytes"},
};

static const Row run_rows[] = {
    {3, HALF("run/manifest.json"), "inspect run", "expected valid JSON"},
    {3, IS("run/manifest.json", "[]"), "inspect run", "expected an object"},
    {3, HALF("run/summary.json"), "inspect run", "expected valid JSON"},
    {3, IS("run/summary.json", "{\"rows\": 1}"), "inspect run", "expected a list of rows"},
};

static void write_gz(void) {
    static const char text[] = "{\"text\": \"one\"}\n{\"text\": \"two or three\"}\n";
    gzFile gz = gzopen("data.gz", "wb");
    CHECK(gz && gzwrite(gz, text, sizeof text - 1) == sizeof text - 1 && gzclose(gz) == Z_OK, "gz");
}

/* A run folder's own files may be lost: what they kept is made again, and nothing else happens. */
static void test_run_files(void) {
    static const Damage damage[] = {GONE("run/manifest.json"),
                                    EMPTY("run/manifest.json"),
                                    HALF("run/manifest.json"),
                                    IS("run/manifest.json", "[1]"),
                                    IS("run/manifest.json", "{\"inputs\": {\"pairs.jsonl\": 5}}"),
                                    GONE("run/stages/score.json"),
                                    HALF("run/stages/score.json"),
                                    MANY("run/stages/score.json", "[", 100000),
                                    IS("run/stages/score.json", "{\"key\": 1, \"outputs\": []}"),
                                    HALF("run/scores.safetensors"),
                                    EMPTY("run/subspaces/sails.safetensors"),
                                    GONE("run/adapters/sails/adapter_config.json"),
                                    HALF("run/adapters/sails/metrics.jsonl"),
                                    HALF("run/responses/sails.jsonl"),
                                    IS("run/eval/sails.json", "[]"),
                                    GONE("run/recipe.yaml.tmp.1")};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        Buf bytes;
        read_bytes(&bytes, damage[i].file);
        if (damage[i].apply(&bytes, &damage[i]))
            write_bytes(damage[i].file, &bytes);
        else
            unlink(damage[i].file);
        buf_free(&bytes);
        Ended e = program_run("align run.yaml");
        EXPECT(e.code == 0, "%s: exit %d: %s", damage[i].file, e.code, e.err);
        EXPECT(strstr(e.out, "sails"), "%s: no table, but: %s", damage[i].file, e.out);
        Tree after = tree_read("run");
        const char *left = tree_temporary(&after);
        EXPECT(!left, "%s: left %s", damage[i].file, left ? left : "");
        tree_free(&after);
    }
}

int main(void) {
    bad_world();
    write_text("data", "{\"prompt\": \"Where?\", \"completion\": \"There, behind the door.\"}\n");
    write_text("unaligned", "{\"prompt\": \"Where?\", \"completion\": \"Nowhere.\"}\n");
    write_text("recipe.yaml", "eval:\n  responses: responses\n");
    write_text("run.yaml",
               "out: run\nmodel: {path: model, dtype: f32}\n"
               "data: {path: pairs.jsonl, heldout: 0.2, max-length: 128, limit: 8}\n"
               "score: {sae: 'sae/{layer}', layers: [1]}\nsubspace: {top-k: 4}\n"
               "train: {batch: 4, rank: 2, steps: 1, methods: [sails]}\n"
               "generate: {prompts: prompts.jsonl, max-new-tokens: 2}\n");
    write_gz();
    program_must("align run.yaml");
#define RUN(rows) check_rows(rows, sizeof rows / sizeof rows[0])
    RUN(record_rows);
    RUN(response_rows);
    RUN(recipe_rows);
    RUN(run_rows);
    test_run_files();
    world_remove();
    return test_done("bad records");
}
