/* What a command says about a document or prompt does not depend on the others in its file: each
 * alone gives what all together gave, under its own id and in the order of the file. */
#include <math.h>

#include "host/cli/json_lines.h"
#include "tests/world.h"

extern const Command cmd_generate, cmd_logprob;

static json_t *lines_of(const char *path) {
    json_t *lines;
    Err err;
    MUST(json_lines_read(&lines, path, &err), err);
    return lines;
}

/* Line i of a file of the world, with id 9, as a file of its own. */
static void write_alone(const char *from, size_t i) {
    Err err;
    json_t *lines = lines_of(in_world("%s", from)), *line = json_array_get(lines, i);
    json_object_set_new(line, "id", json_string("9"));
    JsonLines out;
    MUST(json_lines_open(&out, in_world("alone.json"), &err), err);
    bool ok = json_lines_put(&out, json_incref(line), &err);
    MUST(json_lines_close(&out, ok, &err), err);
    json_decref(lines);
}

static const char *text_of(const json_t *line, const char *key) {
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "(none)";
}

static json_t *run(const Command *c, const char *format, const char *from) {
    char line[2048];
    Err err;
    int n = snprintf(line, sizeof line, "--model %s --dtype f32 --threads 1 --out %s ",
                     in_world("model"), in_world("out"));
    snprintf(line + n, sizeof line - (size_t)n, format, in_world("%s", from));
    MUST(world_run(c, line, &err), err);
    return lines_of(in_world("out"));
}

/* Places for two: replies start at different times, the longest prompt first. */
static void test_replies(void) {
    static const char flags[] = "--prompts %s --max-new-tokens 12 --batch 2 --json";
    json_t *all = run(&cmd_generate, flags, "prompts.jsonl");
    int distinct = 0;
    EXPECT(json_array_size(all) == WORLD_PROMPTS, "%zu replies", json_array_size(all));
    for (size_t i = 0; i < WORLD_PROMPTS; i++) {
        write_alone("prompts.jsonl", i);
        json_t *alone = run(&cmd_generate, flags, "alone.json");
        const json_t *a = json_array_get(all, i), *b = json_array_get(alone, 0);
        static const char *const key[] = {"prompt", "response", "category", "stop"};
        for (int k = 0; k < 4; k++)
            EXPECT(strcmp(text_of(a, key[k]), text_of(b, key[k])) == 0, "prompt %zu: %s %s, %s", i,
                   key[k], text_of(a, key[k]), text_of(b, key[k]));
        EXPECT(json_equal(json_object_get(a, "tokens"), json_object_get(b, "tokens")), "tokens");
        EXPECT(atoi(text_of(a, "id")) == (int)i + 1 && strcmp(text_of(b, "id"), "9") == 0,
               "ids %s %s", text_of(a, "id"), text_of(b, "id"));
        const json_t *next = json_array_get(all, (i + 1) % WORLD_PROMPTS);
        distinct += strcmp(text_of(a, "response"), text_of(next, "response")) != 0;
        json_decref(alone);
    }
    EXPECT(distinct >= 3, "the replies hardly differ: mixing them up would not be seen");
    json_decref(all);
}

static double largest_difference(const json_t *a, const json_t *b) {
    double worst = json_array_size(a) == json_array_size(b) ? 0 : INFINITY;
    for (size_t i = 0; i < json_array_size(a); i++) {
        double d =
            fabs(json_number_value(json_array_get(a, i)) - json_number_value(json_array_get(b, i)));
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* Several documents to a pack, and several packs. Parity's bound: what transformers is held to. */
static void test_logprobs(void) {
    static const char flags[] = "--data %s --max-length 100 --pack-tokens 128 --json";
    json_t *all = run(&cmd_logprob, flags, "pairs.jsonl");
    EXPECT(json_array_size(all) == WORLD_PAIRS, "%zu documents", json_array_size(all));
    for (size_t i = 0; i < WORLD_PAIRS; i++) {
        write_alone("pairs.jsonl", i);
        json_t *alone = run(&cmd_logprob, flags, "alone.json");
        const json_t *a = json_array_get(all, i), *b = json_array_get(alone, 0);
        const json_t *logprobs = json_object_get(a, "logprobs");
        EXPECT(json_equal(json_object_get(a, "tokens"), json_object_get(b, "tokens")) &&
                   json_equal(json_object_get(a, "labels"), json_object_get(b, "labels")),
               "document %zu: other tokens or labels", i);
        EXPECT(largest_difference(logprobs, json_object_get(b, "logprobs")) <= 1e-4,
               "document %zu: log-probabilities differ by %g", i,
               largest_difference(logprobs, json_object_get(b, "logprobs")));
        const json_t *next = json_array_get(all, (i + 1) % WORLD_PAIRS);
        EXPECT(!(largest_difference(logprobs, json_object_get(next, "logprobs")) <= 1e-4),
               "documents %zu and the next are the same", i);
        double sum = 0, n = (double)json_array_size(logprobs);
        for (size_t t = 0; t < json_array_size(logprobs); t++)
            sum += json_number_value(json_array_get(logprobs, t));
        double said = json_number_value(json_object_get(a, "sum"));
        double mean = json_number_value(json_object_get(a, "mean_nll"));
        EXPECT(fabs(said - sum) <= 1e-12 * fabs(sum) && fabs(mean + sum / n) <= 1e-12 * fabs(sum),
               "sum %g, mean %g of %g", said, mean, sum);
        json_decref(alone);
    }
    json_decref(all);
}

int main(void) {
    world_make();
    test_replies();
    test_logprobs();
    world_remove();
    return test_done("together");
}
