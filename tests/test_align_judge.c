/* align with a judge behind HTTP beside the rules: its verdicts lie in the run folder, what it was
 * asked is not asked again, how it is reached is no part of a stage's key, and what judges is. */
#include <math.h>

#include "host/judge/rubric.h"
#include "tests/align_run.h"
#include "tests/faulty_server.h"
#include "tests/ranks.h"

#define KEY "sk-test-0123456789"

static const char everything[] = "generate-base eval-base perplexity-base";

static char url[64];
static int requests_of_a_run;

/* Runs with both judges, this model and these flags; the stages that were made. */
static const char *judged(const char *model, const char *flags) {
    char line[1024];
    snprintf(line, sizeof line,
             "--methods base --judge refusal,http --judge-url %s --judge-model %s %s", url, model,
             flags);
    return align(line);
}

static void expect(const char *flags, const char *made, int requests) {
    faulty_forget();
    const char *got = judged("m", flags);
    EXPECT(strcmp(got, made) == 0, "%s: made %s, expected %s", flags, got, made);
    EXPECT(faulty.requests == requests, "%s: %d requests, not %d", flags, (int)faulty.requests,
           requests);
}

static void test_runs(void) {
    /* Five prompts and a harmless one; greedy, so that equal responses are asked for once: the
     * first run tells how many there are, and the trial is one more. */
    faulty_forget();
    const char *made = judged("m", "");
    EXPECT(strcmp(made, everything) == 0, "made %s", made);
    int first = requests_of_a_run = faulty.requests;
    EXPECT(first > 1 && first <= WORLD_PROMPTS + 2, "%d requests", first);
    expect("", "", 0);
    expect("--judge-concurrency 2 --judge-tries 3 --judge-timeout 9 --judge-price-in 1", "", 0);
    expect("--judge-max-tokens 500", "eval-base", 0); /* all is in the file of verdicts */
    faulty_forget();
    made = judged("other", "");
    EXPECT(strcmp(made, "eval-base") == 0 && faulty.requests == first, "made %s, %d requests", made,
           (int)faulty.requests);
}

static void test_what_is_written(void) {
    json_t *summary = read_json("summary.json"), *eval = read_json("eval/base.json");
    const json_t *row = json_array_get(json_object_get(summary, "rows"), 0);
    const json_t *run = json_array_get(json_object_get(row, "runs"), 0);
    EXPECT(json_is_integer(json_object_get(row, "unjudged")), "how many are without a verdict");
    EXPECT(json_object_get(json_object_get(run, "second"), "agreement"), "how the judges agree");
    const json_t *second = json_object_get(eval, "second");
    EXPECT(json_number_value(json_object_get(second, "harmfulness")) == 3, "its rates");
    json_t *stamp = read_json("stages/eval-base.json");
    char rubric[65], *text = json_dumps(stamp, 0);
    rubric_hash(rubric);
    EXPECT(strstr(text, rubric), "the stage is keyed by the rubric");
    free(text);
    json_decref(stamp), json_decref(eval), json_decref(summary);
    char line[1024];
    EXPECT(files_exists(in_world("run/verdicts.jsonl")), "verdicts");
    snprintf(line, sizeof line, "grep -rqF %s %s", KEY, in_world("run"));
    EXPECT(system(line) != 0, "the key is in the run folder");
}

/* Two ranks: rank 0 alone asks, and the judgement has the same bytes. */
static void test_ranks(void) {
    char line[1024];
    faulty_forget();
    snprintf(line, sizeof line,
             "SAILS align %s --out %s --methods base --judge refusal,http --judge-url %s "
             "--judge-model other",
             in_world("recipe.yaml"), in_world("two"), url);
    Ended e = ranks_run(2, line);
    EXPECT(e.code == 0, "exit %d: %s", e.code, e.err);
    EXPECT(faulty.requests == requests_of_a_run, "%d requests", (int)faulty.requests);
    Buf one = file_bytes(in_world("run/eval/base.json"));
    Buf two = file_bytes(in_world("two/eval/base.json"));
    EXPECT(one.n == two.n && memcmp(one.p, two.p, one.n) == 0, "another judgement");
    buf_free(&one), buf_free(&two);
}

/* Before anything is made. */
static void test_refused(void) {
    const char *file = align("--methods base --judge file");
    EXPECT(strstr(file, "error 2: eval.judge: align makes the responses itself"), "%s", file);
    const char *nowhere = align("--methods base --judge http");
    EXPECT(strstr(nowhere, "error 2: --judge http: --judge-url and"), "%s", nowhere);
    unsetenv("OPENAI_API_KEY");
    const char *keyless =
        align("--methods base --judge http --judge-url https://a.b/v1 --judge-model m");
    EXPECT(strstr(keyless, "error 2: --judge-key-env: the environment has no key"), "%s", keyless);
    setenv("OPENAI_API_KEY", KEY, 1);
}

int main(void) {
    faulty_start();
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", faulty.port);
    setenv("OPENAI_API_KEY", KEY, 1);
    world_make();
    write_recipe("0", "");
    test_refused();
    test_runs();
    test_what_is_written();
    test_ranks();
    world_remove();
    return test_done("align_judge");
}
