/* `sails capability`: a choice's sum is what `sails logprob` gives for the text with it less what
 * it gives for the text without; shares, another model's result, refusals. */
#include <math.h>

#include "host/cli/json_lines.h"
#include "tests/files.h"
#include "tests/world.h"

extern const Command cmd_capability, cmd_logprob;

static void write_text(const char *name, const char *text) {
    Err err;
    MUST(files_write(in_world("%s", name), text, strlen(text), &err), err);
}

static bool run(const Command *c, const char *flags, const char *from, const char *out, Err *err) {
    char line[2048];
    snprintf(line, sizeof line, "--model %s --dtype f32 --threads 1 --json --out %s %s %s",
             in_world("model"), in_world("%s", out), flags, in_world("%s", from));
    return world_run(c, line, err);
}

#define PIQA "--task piqa --max-length 64 --questions"

static json_t *result(const char *out) {
    json_t *json;
    Err err;
    MUST(files_read_json(&json, in_world("%s", out), 1 << 20, &err), err);
    return json;
}

static double sum_of(const json_t *result, size_t question, size_t choice) {
    const json_t *row = json_array_get(json_object_get(result, "rows"), question);
    return json_number_value(json_array_get(json_object_get(row, "sums"), choice));
}

static void test_sums(void) {
    Err err;
    MUST(run(&cmd_capability, PIQA, "piqa.jsonl", "result.json", &err), err);
    MUST(run(&cmd_logprob, "--max-length 64 --data", "texts.jsonl", "texts", &err), err);
    json_t *all = result("result.json"), *texts;
    MUST(json_lines_read(&texts, in_world("texts"), &err), err);
    double at[3];
    for (size_t i = 0; i < 3; i++)
        at[i] = json_number_value(json_object_get(json_array_get(texts, i), "sum"));
    for (size_t c = 0; c < 2; c++)
        EXPECT(fabs(sum_of(all, 1, c) - (at[c + 1] - at[0])) <= 1e-4 && at[c + 1] < at[0],
               "choice %zu: %g, expected %g", c, sum_of(all, 1, c), at[c + 1] - at[0]);
    EXPECT(fabs(at[1] - at[2]) > 1e-3, "the choices hardly differ");
    json_decref(texts), json_decref(all);
}

/* The same answers the other way round are right where these are wrong. */
static void test_shares(void) {
    Err err;
    char versus[1024];
    json_t *all = result("result.json"), *of = json_object_get(all, "acc");
    const json_t *rows = json_object_get(all, "rows");
    double hits = 0;
    for (size_t i = 0; i < 3; i++) {
        bool first = sum_of(all, i, 0) >= sum_of(all, i, 1), right = first == (i != 1);
        hits += right;
        EXPECT(json_is_true(json_object_get(json_array_get(rows, i), "acc")) == right,
               "question %zu", i);
    }
    double p = hits / 3;
    EXPECT(json_number_value(json_object_get(of, "share")) == p, "share");
    EXPECT(fabs(json_number_value(json_object_get(of, "stderr")) - sqrt(p * (1 - p) / 2)) < 1e-15,
           "standard error");
    write_text("piqa-labels.lst", "1\n0\n1\n");
    snprintf(versus, sizeof versus, "--versus %s " PIQA, in_world("result.json"));
    MUST(run(&cmd_capability, versus, "piqa.jsonl", "other.json", &err), err);
    json_t *other = result("other.json");
    of = json_object_get(json_object_get(other, "versus"), "acc");
    EXPECT(json_number_value(json_object_get(of, "here")) == 3 - hits &&
               json_number_value(json_object_get(of, "there")) == hits,
           "here %g, there %g", json_number_value(json_object_get(of, "here")), hits);
    json_decref(other), json_decref(all);
}

static void test_refused(void) {
    Err err;
    EXPECT_REFUSED(run(&cmd_capability, "--shots 2 " PIQA, "piqa.jsonl", "no.json", &err), err,
                   EXIT_USAGE, "--shots: expected 0 but for mmlu");
    EXPECT_REFUSED(run(&cmd_capability, "--task piqa --max-length 4 --questions", "piqa.jsonl",
                       "no.json", &err),
                   err, EXIT_INPUT, "question 1: choice 1: expected at most --max-length 4 tokens");
    EXPECT(!files_exists(in_world("no.json")), "a refusal left a result");
}

int main(void) {
    world_make();
    write_text("piqa.jsonl",
               "{\"goal\": \"a b\", \"sol1\": \"c\", \"sol2\": \"d e\"}\n"
               "{\"goal\": \"f\", \"sol1\": \"g h\", \"sol2\": \"i\"}\n"
               "{\"goal\": \"k\", \"sol1\": \"l\", \"sol2\": \"m\"}\n");
    write_text("piqa-labels.lst", "0\n1\n0\n");
    write_text("texts.jsonl",
               "{\"text\": \"Question: f\\nAnswer:\"}\n"
               "{\"text\": \"Question: f\\nAnswer: g h\"}\n"
               "{\"text\": \"Question: f\\nAnswer: i\"}\n");
    test_sums();
    test_shares();
    test_refused();
    world_remove();
    return test_done("capability");
}
