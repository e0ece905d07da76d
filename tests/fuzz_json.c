/* Fuzzing of the JSON files beside the weights. The first byte chooses which one the rest is:
 * c config.json, a adapter_config.json, s an SAE's cfg.json, i an index of shards, r responses,
 * v a judgement that is compared with. */
#include <stdlib.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "host/stage/evaluate.h"
#include "model/config.h"
#include "model/peft.h"
#include "model/sae_file.h"
#include "model/tensors.h"
#include "tests/fuzz.h"

/* The readers take a folder: in it, each name that they look for leads to the file in memory. */
static const char *const LINK[] = {"config.json", "adapter_config.json", "cfg.json",
                                   "model.safetensors.index.json"};
static const char *const SHARD[] = {"a.safetensors", "b.safetensors", "sae_weights.safetensors",
                                    "responses.jsonl"};
enum { LINKS = 4, SHARDS = 4, D = 2, S = 3 };

static FuzzFile file;
static char folder[] = "/tmp/sails-fuzz-XXXXXX";
static bool sliding[] = {true, false};
static const Config config = {
    .L = 2, .D = 16, .F = 24, .V = 9, .H = 2, .K = 1, .E = 8, .sliding = sliding};

static char *in_folder(const char *name) {
    return files_join(folder, name);
}

static void remove_folder(void) {
    for (int i = 0; i < LINKS + SHARDS; i++) {
        char *path = in_folder(i < LINKS ? LINK[i] : SHARD[i - LINKS]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
}

static void write_tensors(const char *shard, const char *const *name, int n, size_t dim[][2]) {
    char *path = in_folder(shard);
    StWriter *w;
    Err err;
    CHECK(st_writer_open(&w, path, &err), "%s", err.text);
    for (int i = 0; i < n; i++) st_writer_tensor(w, name[i], ST_F32, dim[i][1] ? 2 : 1, dim[i]);
    for (int i = 0; i < n; i++) {
        size_t count = dim[i][0] * (dim[i][1] ? dim[i][1] : 1);
        float *zero = mem_array(count, sizeof *zero);
        CHECK(st_writer_data(w, zero, count * sizeof *zero, &err), "%s", err.text);
        free(zero);
    }
    CHECK(st_writer_finish(w, &err), "%s", err.text);
    free(path);
}

static void open_once(void) {
    static const char *const sae[] = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"};
    size_t sae_dim[5][2] = {{D, S}, {S, D}, {S, 0}, {D, 0}, {S, 0}}, one[1][2] = {{1, 0}};
    fuzz_file_open(&file, "json");
    CHECK(mkdtemp(folder), "%s", folder);
    atexit(remove_folder);
    for (int i = 0; i < LINKS; i++) {
        char *path = in_folder(LINK[i]);
        CHECK(symlink(file.path, path) == 0, "%s", path);
        free(path);
    }
    write_tensors(SHARD[0], (const char *[]){"a"}, 1, one);
    write_tensors(SHARD[1], (const char *[]){"b"}, 1, one);
    write_tensors(SHARD[2], sae, 5, sae_dim);
    char *path = in_folder(SHARD[3]);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs("{\"id\": \"1\", \"response\": \"I cannot.\"}\n", f) >= 0, "%s", path);
    CHECK(fclose(f) == 0, "%s", path);
    free(path);
}

static void fuzz_config(void) {
    Config c;
    Err err;
    if (!config_load(&c, folder, &err)) {
        fuzz_refused(&err, EXIT_INPUT, "config.json");
        CHECK(!c.sliding, "a refused config is zeroed");
        return;
    }
    CHECK(c.L > 0 && c.D > 0 && c.H % c.K == 0 && c.E % 8 == 0 && c.window > 0, "a shape");
    CHECK(c.bos < c.V && c.pad < c.V && c.neos >= 0 && c.neos <= 8, "%d ids", c.neos);
    for (int l = 0; l < c.L; l++) CHECK(config_attn(&c, l).window >= 0, "layer %d", l);
    CHECK(tensors_parameters(&c) > 0, "parameters");
    config_free(&c);
}

static void fuzz_adapter(void) {
    LoraShape shape;
    Err err;
    if (!peft_read(&shape, &config, folder, &err)) {
        fuzz_refused(&err, EXIT_INPUT, "adapter_config.json: ");
        return;
    }
    int most = 0;
    for (int i = 0; i < config.L * PROJ_COUNT; i++)
        if (shape.rank[i] > most) most = shape.rank[i];
    CHECK(most > 0, "an adapter of nothing");
    lora_shape_free(&shape);
}

static void fuzz_sae(void) {
    SaeFile f;
    Err err;
    if (!sae_file_open(&f, folder, 3, 0, &err)) {
        fuzz_refused(&err, EXIT_INPUT, folder);
        return;
    }
    CHECK(f.D == D && f.S == S, "%d x %d", f.D, f.S);
    CHECK(f.act != SAE_TOPK || (f.topk > 0 && f.topk <= S), "k %d", f.topk);
    sae_file_close(&f);
}

static void fuzz_index(void) {
    StSet *set;
    Err err;
    if (!st_open_folder(&set, folder, "model", &err)) {
        fuzz_refused(&err, EXIT_INPUT, folder);
        return;
    }
    for (size_t i = 0; i < st_count(set); i++)
        CHECK(st_find(set, st_at(set, i)->name) == st_at(set, i), "%s", st_at(set, i)->name);
    st_close(set);
}

static void evaluated(const char *responses, const char *versus) {
    Settings s = {.eval = {.judge = "refusal",
                           .judge_export = "",
                           .labels = "",
                           .benign_categories = "benign,b",
                           .prompts = "",
                           .versus = versus}};
    Evaluation e = {0};
    Err err;
    if (evaluate(&e, responses, &s, &err))
        CHECK(e.harmful.n + e.benign > 0 && e.empty <= e.harmful.n + e.benign, "no response");
    else
        fuzz_refused(&err, EXIT_INPUT, file.path);
    evaluation_free(&e);
}

static void fuzz_responses(void) {
    evaluated(file.path, "");
}

static void fuzz_judgement(void) {
    char *responses = in_folder(SHARD[3]);
    evaluated(responses, file.path);
    free(responses);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct {
        char first;
        void (*fuzz)(void);
    } kind[] = {{'c', fuzz_config}, {'a', fuzz_adapter},   {'s', fuzz_sae},
                {'i', fuzz_index},  {'r', fuzz_responses}, {'v', fuzz_judgement}};
    if (!file.path[0]) open_once();
    if (size == 0) return 0;
    fuzz_file_set(&file, NULL, 0, data + 1, size - 1);
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++)
        if (data[0] == kind[i].first) kind[i].fuzz();
    return 0;
}
