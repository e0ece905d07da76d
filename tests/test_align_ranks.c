/* align on two ranks, over rates and seeds, and over starts that come from passes over the data:
 * what it makes are the bytes of one rank's run, also with a start that is taken off; and what
 * fails on rank 0 ends the job with its own code and line. */
#include "host/cli/command.h"

#include "tests/ranks.h"
#include "tests/same_files.h"

#define GRID "--methods base,lora-ga,random-basis --rates 1e-2,1e-3 --seeds 2 "
#define PASSES "--methods eva,direct-pairs,landmarks --steps 1 "

static void write_recipe(void) {
    static const char recipe[] =
        "model: {path: model, dtype: f32}\ndata: {path: pairs.jsonl, heldout: 0.2, max-length: "
        "128}\n"
        "score: {sae: 'sae/{layer}', layers: [1, 2]}\nsubspace: {top-k: 6}\n"
        "train: {batch: 4, steps: 3, rank: 4, validation: 0.4}\n"
        "generate: {prompts: prompts.jsonl, max-new-tokens: 4, batch: 4}\n";
    Err err;
    MUST(files_write("recipe.yaml", recipe, sizeof recipe - 1, &err), err);
}

static Ended align_on(int ranks, const char *folder, const char *more) {
    char line[512];
    snprintf(line, sizeof line, "SAILS align recipe.yaml %s --out %s", more, folder);
    return ranks > 1 ? ranks_run(ranks, line) : program_run(line + sizeof "SAILS");
}

/* What another number of ranks may not change: all but stamps, times and machines. */
static bool is_result(const char *path) {
    return strstr(path, "adapter_model") || strstr(path, "subspaces/") ||
           strstr(path, "responses/") || strstr(path, "eval/") ||
           strstr(path, "moments.safetensors");
}

static void test_bytes(const char *flags, int results) {
    forget("one"), forget("two");
    Ended one = align_on(1, "one", flags), two = align_on(2, "two", flags);
    EXPECT(one.code == 0 && two.code == 0, "exits %d and %d: %s%s", one.code, two.code, one.err,
           two.err);
    Tree t = tree_read("one");
    int n = 0;
    for (size_t i = 0; i < t.n; i++) {
        char path[1000], other[1024];
        int len = (int)strcspn(t.entry[i], " "); /* all of it is a folder's name */
        if (!t.entry[i][len] || !is_result(t.entry[i])) continue;
        snprintf(path, sizeof path, "%.*s", len, t.entry[i]);
        snprintf(other, sizeof other, "two%s", path + strlen("one"));
        expect_same("two ranks", other, path);
        n++;
    }
    EXPECT(n == results, "%s: %d results, expected %d", flags, n, results);
    tree_free(&t);
}

/* Rank 0 alone writes; the others must not wait for it elsewhere. */
static void test_failure(void) {
    char line[1024];
    CHECK(system("rm one/metrics.jsonl && mkdir -p one/metrics.jsonl/full") == 0, "metrics.jsonl");
    Ended e = align_on(2, "one", GRID "--seed 5");
    int n = ranks_lines(e.err, line, sizeof line);
    EXPECT(e.code != EXIT_DONE && e.code != EXIT_RANK && n == 1 && strstr(line, "metrics.jsonl"),
           "exit %d, %d lines: %s", e.code, n, e.err);
}

int main(void) {
    bad_world();
    write_recipe();
    test_bytes(PASSES, 1 + 3 * 4); /* moments; subspace, adapter, replies and their eval of each */
    /* 2 subspaces; of two methods 4 adapters, 4 validated, 2 judged; base judged */
    test_bytes(GRID, 2 + 2 * (4 + 2 * (4 + 2)) + 2);
    test_failure();
    world_remove();
    return test_done("align_ranks");
}
