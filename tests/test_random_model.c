/* init: every element is the one that (seed, tensor's name, index) gives, in every piece and shard;
 * shapes and ids are what the flags and the tokenizer say. */
#include <math.h>

#include "data/base/rng.h"
#include "host/cli/command.h"
#include "model/config.h"
#include "tests/world.h"

enum { SHARD = 200000 };            /* bytes */
enum { VOCAB = 16500, WIDTH = 64 }; /* an embedding of more than the 2^20 elements of a piece */

static uint64_t fnv1a(const char *name) {
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

static void check_tensor(const StSet *set, const char *name, double std, uint64_t seed) {
    const StTensor *t = st_find(set, name);
    EXPECT(t, "%s is not there", name);
    if (!t) return;
    float *x = mem_array(t->count, sizeof *x);
    st_read_f32(t, x, 0, t->count);
    size_t wrong = 0;
    for (size_t i = 0; i < t->count; i++)
        wrong += x[i] != (float)(std * rng_normal(seed, fnv1a(name), i));
    EXPECT(wrong == 0, "%s: %zu of %zu elements are others", name, wrong, t->count);
    free(x);
}

/* No shard is larger than was asked for, unless it holds one tensor that is. */
static void check_shards(const StSet *set) {
    for (size_t i = 0; i < st_count(set); i++) {
        size_t bytes = 0, tensors = 0;
        for (size_t j = 0; j < st_count(set); j++) {
            if (strcmp(st_at(set, j)->file, st_at(set, i)->file) != 0) continue;
            bytes += st_at(set, j)->bytes;
            tensors++;
        }
        EXPECT(bytes <= SHARD || tensors == 1, "%s: %zu bytes", st_at(set, i)->file, bytes);
    }
}

int main(void) {
    extern const Command cmd_init;
    Err err;
    Config c;
    StSet *set;
    char line[1024];
    CHECK(mkdtemp(world), "no temporary folder");
    snprintf(line, sizeof line,
             "--layers 3 --hidden %d --ffn 96 --heads 6 --kv-heads 2 --head-dim 24 --window 5 "
             "--positions 77 --vocab %d --dtype f32 --seed 11 --std 0.3 --norm-std 0.7 --shard %g "
             "--json --tokenizer tests/golden/tokenizer_small.json --out %s",
             WIDTH, VOCAB, SHARD / 1e9, in_world("m"));
    MUST(world_run(&cmd_init, line, &err), err);
    MUST(config_load(&c, in_world("m"), &err), err);
    EXPECT(c.L == 3 && c.D == WIDTH && c.F == 96 && c.H == 6 && c.K == 2 && c.E == 24 &&
               c.window == 5 && c.max_positions == 77 && c.V == VOCAB,
           "the shape is another");
    EXPECT(c.query_scale == (float)pow(24, -0.5), "scores of unit size: %g", c.query_scale);
    EXPECT(c.sliding[0] && !c.sliding[1] && c.sliding[2], "every other layer slides");
    /* of tokenizer_small.json: <eos>, <end_of_turn> */
    EXPECT(c.bos == 2 && c.pad == 0 && c.neos == 2 && c.eos[0] == 1 && c.eos[1] == 6, "ids");
    MUST(st_open_folder(&set, in_world("m"), "model", &err), err);
    EXPECT(files_exists(in_world("m/model.safetensors.index.json")), "expected shards");
    EXPECT(st_count(set) == 11 * 3 + 2, "%zu tensors", st_count(set));
    check_shards(set);
    check_tensor(set, "model.embed_tokens.weight", 0.3, 11);
    check_tensor(set, "model.layers.2.self_attn.k_proj.weight", 0.3, 11);
    check_tensor(set, "model.layers.1.post_feedforward_layernorm.weight", 0.7, 11);
    check_tensor(set, "model.norm.weight", 0.7, 11);
    st_close(set);
    config_free(&c);
    world_remove();
    return test_done("random model");
}
