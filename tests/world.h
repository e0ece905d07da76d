/* world.h - a whole small world on disk for tests of the program: a random model with its own
 * tokenizer, SAEs on two layers, pairs to learn from and prompts to answer. */
#ifndef SAILS_TEST_WORLD_H
#define SAILS_TEST_WORLD_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "host/cli/command.h"
#include "tests/test.h"

#define MUST(call, err) CHECK(call, "%s", (err).text)

enum { WORLD_D = 64, WORLD_FEATURES = 40, WORLD_LAYERS = 4, WORLD_PAIRS = 23, WORLD_PROMPTS = 5 };

static char world[] = "/tmp/sails-test-world-XXXXXX";

/* A path in the world, from static storage that the next four calls leave alone. */
__attribute__((format(printf, 1, 2))) static inline const char *in_world(const char *fmt, ...) {
    static char path[4][512];
    static int next;
    char *p = path[next++ % 4];
    int n = snprintf(p, sizeof path[0], "%s/", world);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p + n, sizeof path[0] - (size_t)n, fmt, ap);
    va_end(ap);
    return p;
}

/* What the words of a line say, split at spaces in place: they must live as long as *a. */
static inline bool world_args(Args *a, const Command *c, char *line, Err *err) {
    char *argv[256];
    int n = 0;
    for (char *w = strtok(line, " "); w && n < 256; w = strtok(NULL, " ")) argv[n++] = w;
    return args_parse(a, c, n, argv, err);
}

/* Runs a command in this process, its words split at spaces. */
static inline bool world_run(const Command *c, const char *line, Err *err) {
    char text[8192];
    snprintf(text, sizeof text, "%s", line);
    Args a;
    if (!world_args(&a, c, text, err)) return false;
    bool ok = c->run(&a, err);
    args_free(&a);
    return ok;
}

/* A SAELens folder with noise: JumpReLU of threshold 0.1. */
static inline void world_sae(int layer) {
    static const char *const name[] = {"W_dec", "W_enc", "b_dec", "b_enc", "threshold"};
    size_t D = WORLD_D, S = WORLD_FEATURES;
    size_t dim[5][2] = {{S, D}, {D, S}, {D, 1}, {S, 1}, {S, 1}};
    Err err;
    StWriter *w;
    MUST(files_mkdirs(in_world("sae/%d", layer), &err), err);
    MUST(st_writer_open(&w, in_world("sae/%d/sae_weights.safetensors", layer), &err), err);
    for (int i = 0; i < 5; i++) st_writer_tensor(w, name[i], ST_F32, i < 2 ? 2 : 1, dim[i]);
    for (int i = 0; i < 5; i++)
        for (size_t j = 0; j < dim[i][0] * dim[i][1]; j++) {
            float x = i < 2 ? (float)test_noise((uint64_t)(layer * 8 + i), j) : i == 4 ? 0.1f : 0;
            MUST(st_writer_data(w, &x, sizeof x, &err), err);
        }
    MUST(st_writer_finish(w, &err), err);
    char cfg[512];
    int n = snprintf(cfg, sizeof cfg,
                     "{\"architecture\": \"jumprelu\", \"d_in\": %d, \"d_sae\": %d, \"dtype\": "
                     "\"float32\", \"apply_b_dec_to_input\": true, \"normalize_activations\": "
                     "\"none\", \"metadata\": {\"sae_lens_version\": \"6.0.0\", \"hook_name\": "
                     "\"blocks.%d.hook_resid_post\"}}",
                     WORLD_D, WORLD_FEATURES, layer);
    MUST(files_write(in_world("sae/%d/cfg.json", layer), cfg, (size_t)n, &err), err);
}

static inline void world_data(void) {
    Err err;
    FILE *pairs = fopen(in_world("pairs.jsonl"), "w"),
         *prompts = fopen(in_world("prompts.jsonl"), "w");
    CHECK(pairs && prompts, "the test's files cannot be written");
    static const char *const thing[] = {"bread", "a lock", "the red door", "two or three rivers"};
    for (int i = 0; i < WORLD_PAIRS; i++)
        fprintf(pairs,
                "{\"chosen\": \"\\n\\nHuman: How do I open %s number %d?\\n\\nAssistant: I cannot "
                "help with %s.\", \"rejected\": \"\\n\\nHuman: How do I open %s number "
                "%d?\\n\\nAssistant: Take %d keys and turn them%s\"}\n",
                thing[i % 4], i, thing[i % 3], thing[i % 4], i, i, i % 2 ? "." : " twice, slowly.");
    for (int i = 0; i < WORLD_PROMPTS; i++)
        fprintf(prompts, "{\"prompt\": \"Tell me about %s.\", \"category\": \"c%d\"}\n",
                thing[i % 4], i % 2);
    CHECK(fclose(pairs) == 0 && fclose(prompts) == 0, "the test's files cannot be written");
    static const char benign[] = "{\"prompt\": \"How is soup made?\"}\n";
    MUST(files_write(in_world("benign.jsonl"), benign, sizeof benign - 1, &err), err);
}

extern const Command cmd_init;

static inline void world_make(void) {
    Err err;
    char line[1024];
    CHECK(mkdtemp(world), "no temporary folder");
    snprintf(line, sizeof line,
             "--layers %d --hidden %d --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 --window 16 "
             "--positions 256 --dtype f32 --seed 5 --std 0.1 --json --tokenizer "
             "tests/golden/tokenizer_small.json --out %s",
             WORLD_LAYERS, WORLD_D, in_world("model"));
    MUST(world_run(&cmd_init, line, &err), err);
    world_sae(1);
    world_sae(2);
    world_data();
}

static inline void world_remove(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", world);
    CHECK(system(command) == 0, "%s", command);
    memset(world + sizeof world - 7, 'X', 6); /* for another one */
}

#endif
