/* The whole method on the simulated CUDA device against the CPU device: a short `sails align` on
 * the planted world, and the log-probabilities of its texts.
 *
 * In f32 the losses of all steps and the perplexities agree within 1e-5, and the responses and the
 * rest of the table are the same. In bf16 two devices round differently, so that what is held
 * against f32 is the error: at most twice the CPU device's. However streams and threads are
 * ordered, the device's own files are the same bits.
 *
 * Needs SAILS, the program, and SAILS_PLANTED, the folder that planted_world has written. */
#include <math.h>

#include "tests/files.h"
#include "tests/program.h"

enum { METHODS = 3, STEPS = 4, LOSSES = (METHODS - 1) * STEPS, MAX_TOKENS = 4096 };
static const char *const method[METHODS] = {"base", "lora", "sails"};

typedef struct Outcome {
    double loss[LOSSES], perplexity[METHODS];
    json_t *rows; /* of summary.json */
} Outcome;

static json_t *read_json(const char *folder, const char *name) {
    char path[512];
    json_t *value;
    Err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK(files_read_json(&value, path, 1 << 20, &err), "%s", err.text);
    return value;
}

static double number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    CHECK(json_is_number(value), "no number %s", name);
    return json_number_value(value);
}

static FILE *open_in(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    CHECK(f, "%s: %s", path, strerror(errno));
    return f;
}

static void read_losses(double *loss, const char *run, const char *name) {
    char path[64];
    json_t *line;
    snprintf(path, sizeof path, "adapters/%s/metrics.jsonl", name);
    FILE *f = open_in(run, path);
    int n = 0;
    for (; (line = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)); json_decref(line))
        if (n++ < STEPS) loss[n - 1] = number(line, "loss");
    CHECK(n == STEPS, "%s/%s: %d steps", run, path, n);
    fclose(f);
}

/* align on this device into the folder `run`. On the CPU strict mode would take minutes. */
static Outcome align(const char *run, const char *device, const char *dtype) {
    const char *planted = getenv("SAILS_PLANTED");
    CHECK(planted, "expected SAILS_PLANTED, the folder that planted_world has written");
    char line[1024];
    setenv("SAILS_STRICT", strcmp(device, "cuda") == 0 ? "1" : "0", 1);
    snprintf(line, sizeof line,
             "align %s/recipe.yaml --out %s --device %s --dtype %s --threads 1 --json --steps %d "
             "--data.limit 16 --train.batch 4 --subspace.top-k 4 --generate.limit 4 "
             "--max-new-tokens 6 --documents 3 --draws 1",
             planted, run, device, dtype, STEPS);
    program_must(line);
    Outcome o;
    json_t *summary = read_json(run, "summary.json");
    o.rows = json_incref(json_object_get(summary, "rows"));
    json_decref(summary);
    CHECK(json_array_size(o.rows) == METHODS, "%zu rows", json_array_size(o.rows));
    for (size_t m = 0; m < METHODS; m++)
        o.perplexity[m] = number(json_array_get(o.rows, m), "perplexity");
    read_losses(o.loss, run, "lora");
    read_losses(o.loss + STEPS, run, "sails");
    return o;
}

/* Same bytes in both folders? */
static bool same_file(const char *a, const char *b, const char *name) {
    FILE *x = open_in(a, name), *y = open_in(b, name);
    int from_x, from_y;
    do from_x = getc(x), from_y = getc(y);
    while (from_x == from_y && from_x != EOF);
    fclose(x), fclose(y);
    return from_x == from_y;
}

static void test_agrees(const Outcome *cpu, const Outcome *cuda) {
    static const char *const judged[] = {"safety_rate", "harmfulness", "high_risk", "over_refusal"};
    test_close("losses in f32", cuda->loss, cpu->loss, LOSSES, 0, 1e-5);
    test_close("perplexities in f32", cuda->perplexity, cpu->perplexity, METHODS, 0, 1e-5);
    EXPECT(cpu->loss[STEPS - 1] < 0.9 * cpu->loss[0], "nothing was learned");
    for (size_t m = 0; m < METHODS; m++) {
        char name[64];
        snprintf(name, sizeof name, "responses/%s.jsonl", method[m]);
        EXPECT(same_file("cpu", "lazy", name), "%s differs", name);
        for (size_t j = 0; j < sizeof judged / sizeof *judged; j++)
            EXPECT(number(json_array_get(cuda->rows, m), judged[j]) ==
                       number(json_array_get(cpu->rows, m), judged[j]),
                   "%s: %s differs", method[m], judged[j]);
    }
}

/* Lazy streams are the default: the other orders must give its bits. */
static void test_order(const char *streams, const char *seed) {
    static const char *const file[] = {"scores.safetensors",
                                       "subspaces/sails.safetensors",
                                       "adapters/lora/adapter_model.safetensors",
                                       "adapters/sails/adapter_model.safetensors",
                                       "responses/base.jsonl",
                                       "responses/lora.jsonl",
                                       "responses/sails.jsonl",
                                       "explain/features.json",
                                       "explain/energy/sails.json",
                                       "explain/causal/base.json",
                                       "explain/causal/sails.json"};
    setenv("SIMT_STREAMS", streams, 1);
    setenv("SIMT_SEED", seed, 1);
    Outcome o = align(streams, "cuda", "f32");
    json_decref(o.rows);
    for (size_t i = 0; i < sizeof file / sizeof *file; i++)
        EXPECT(same_file("lazy", streams, file[i]), "%s streams: %s differs", streams, file[i]);
    unsetenv("SIMT_STREAMS");
    setenv("SIMT_SEED", "0", 1);
}

static double rms_error(const double *got, const double *want, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (got[i] - want[i]) * (got[i] - want[i]);
    return sqrt(sum / (double)n);
}

static void expect_half_as_good(const char *what, double cuda, double cpu) {
    printf("%s in bf16, RMS error against f32: %.2e, the CPU's %.2e\n", what, cuda, cpu);
    EXPECT(cuda <= 2 * cpu, "%s: an error of %g, twice the CPU's is %g", what, cuda, 2 * cpu);
}

/* Of all tokens of 16 texts; returns how many there are. */
static size_t logprobs(double *value, const char *device, const char *dtype) {
    char line[1024];
    setenv("SAILS_STRICT", "0", 1);
    snprintf(line, sizeof line,
             "logprob --model %1$s/model --data %1$s/pairs.jsonl --data.limit 16 --device %2$s "
             "--dtype %3$s --threads 1 --out logprobs.jsonl --json",
             getenv("SAILS_PLANTED"), device, dtype);
    program_must(line);
    FILE *f = open_in(".", "logprobs.jsonl");
    size_t n = 0;
    for (json_t *doc; (doc = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)); json_decref(doc)) {
        size_t i;
        json_t *each;
        json_array_foreach (json_object_get(doc, "logprobs"), i, each) {
            CHECK(n < MAX_TOKENS, "more than %d tokens", MAX_TOKENS);
            value[n++] = json_number_value(each);
        }
    }
    fclose(f);
    CHECK(n > 0, "no tokens");
    return n;
}

static void test_logprobs(void) {
    static double f32[MAX_TOKENS], cpu16[MAX_TOKENS], cuda[MAX_TOKENS];
    size_t n = logprobs(f32, "cpu", "f32");
    CHECK(logprobs(cpu16, "cpu", "bf16") == n && logprobs(cuda, "cuda", "bf16") == n, "tokens");
    expect_half_as_good("log-probabilities", rms_error(cuda, f32, n), rms_error(cpu16, f32, n));
    CHECK(logprobs(cuda, "cuda", "f32") == n, "tokens");
    for (size_t i = 0; i < n; i++) /* of a distribution: its absolute error is what matters */
        EXPECT(fabs(cuda[i] - f32[i]) <= 1e-5 * fmax(1, fabs(f32[i])), "token %zu: %.9g, not %.9g",
               i, cuda[i], f32[i]);
}

int main(void) {
    test_path("");
    CHECK(chdir(test_folder) == 0, "%s: %s", test_folder, strerror(errno));
    Outcome cpu = align("cpu", "cpu", "f32"), cuda = align("lazy", "cuda", "f32");
    test_agrees(&cpu, &cuda);
    test_order("eager", "0");
    test_order("random", "1");
    Outcome cpu16 = align("cpu-bf16", "cpu", "bf16"), cuda16 = align("bf16", "cuda", "bf16");
    expect_half_as_good("losses", rms_error(cuda16.loss, cpu.loss, LOSSES),
                        rms_error(cpu16.loss, cpu.loss, LOSSES));
    test_logprobs();
    json_decref(cpu.rows), json_decref(cuda.rows), json_decref(cpu16.rows),
        json_decref(cuda16.rows);
    return test_done("test_whole");
}
