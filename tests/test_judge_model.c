/* The linear model behind the refusal judge against the script that made it, bit by bit, and the
 * whole judge on made-up replies in the manner of several speakers that it was not trained on. */
#include "host/stage/judge_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/statistics.h"
#include "host/cli/json_lines.h"
#include "host/stage/judge.h"
#include "host/stage/judge_text.h"
#include "kernels/check.h"
#include "tests/test.h"

enum { MOST = 256 };

typedef struct Replies {
    json_t *line[MOST];
    int n;
} Replies;

static bool keep(void *context, json_t *line, const char *where, Err *err) {
    Replies *r = context;
    (void)where, (void)err;
    CHECK(r->n < MOST, "room for %d lines", MOST);
    r->line[r->n++] = json_incref(line);
    return true;
}

static Replies read(const char *path) {
    Replies r = {.n = 0};
    Err err;
    CHECK(json_lines_each(path, keep, &r, &err), "%s", err.text);
    return r;
}

static const char *text(const json_t *line, const char *key) {
    const char *s = json_string_value(json_object_get(line, key));
    CHECK(s, "a reply without \"%s\"", key);
    return s;
}

static void says(ModelSays *m, const char *prompt, const char *response) {
    static char form[JUDGE_ROOM], asked[JUDGE_ROOM];
    judge_normalise(asked, prompt, strlen(prompt));
    judge_normalise(form, response, strlen(response));
    judge_drop_quotes(form);
    judge_model(m, form, strstr(response, "```") != NULL, asked);
}

static bool same(const ModelSays *m, const json_t *golden) {
    double score = json_number_value(json_object_get(golden, "score"));
    int known = (int)json_integer_value(json_object_get(golden, "known"));
    bool ok = m->known == known && m->score == score;
    EXPECT(test_quiet || ok, "%s: %d n-grams, %.17g; the script has %d, %.17g", text(golden, "id"),
           m->known, m->score, known, score);
    return ok;
}

static void test_script(const Replies *replies, const Replies *golden) {
    ModelSays m = {0};
    int named = 0; /* the bias alone may decide where little is known */
    EXPECT(replies->n == golden->n && golden->n > 100, "%d replies, %d scores", replies->n,
           golden->n);
    for (int i = 0; i < replies->n && i < golden->n; i++) {
        says(&m, text(replies->line[i], "prompt"), text(replies->line[i], "response"));
        same(&m, golden->line[i]);
        named += *m.strongest[0] != 0;
    }
    EXPECT(named > 100, "of %d alone it is said which n-grams decided", named);
    m.score = nextafter(m.score, 9);
    TEST_DETECTS(same(&m, golden->line[golden->n - 1]));
}

/* Agreement with our labels, and a floor under it: what it was when it was last looked at. */
static void test_agreement(const Replies *replies) {
    int said[MOST], judged[MOST], n = replies->n;
    for (int i = 0; i < n; i++) {
        const json_t *line = replies->line[i];
        const char *response = text(line, "response"), *label = text(line, "label");
        Verdict v;
        judge_refusal(&v, text(line, "prompt"), response, strlen(response));
        said[i] = strcmp(label, "complied") != 0;
        judged[i] = v.kind != VERDICT_COMPLIED;
    }
    Raters r = statistics_raters(said, judged, (size_t)n, 2);
    printf("%zu of %d replies, kappa %.3f\n", r.same, n, r.kappa);
    EXPECT(r.same >= (size_t)(0.82 * n) && r.kappa >= 0.65, "%zu of %d replies, kappa %.3f", r.same,
           n, r.kappa);
}

/* By hand: what counts as items, and that nothing known is no score. */
static void test_bounds(void) {
    ModelSays m;
    says(&m, "", "1. a 2) b 33. c 444. d 5.e");
    EXPECT(m.items == 3, "%d items", m.items);
    says(&m, "", "zzyzx");
    EXPECT(m.known == 0 && m.score == 0 && !*m.strongest[0], "%d known, %g", m.known, m.score);
    char many[JUDGE_ROOM];
    for (size_t i = 0; i + 1 < sizeof many; i++) many[i] = i % 2 ? ' ' : 'a';
    many[sizeof many - 1] = 0;
    says(&m, many, many);
    EXPECT(isfinite(m.score), "%g", m.score);
    memset(many, 'a', sizeof many - 1);
    says(&m, many, many);
    EXPECT(isfinite(m.score), "%g", m.score);
}

int main(void) {
    Replies replies = read("tests/golden/refusal_replies.jsonl");
    Replies golden = read("tests/golden/refusal_scores.jsonl");
    test_script(&replies, &golden);
    test_agreement(&replies);
    test_bounds();
    for (int i = 0; i < replies.n; i++) json_decref(replies.line[i]);
    for (int i = 0; i < golden.n; i++) json_decref(golden.line[i]);
    return test_done("judge_model");
}
