/* Refusal scores of prompts in packs against each prompt alone, its logits in double; and which
 * tokens they are of. */
#include "host/stage/refusal.h"

#include "tests/golden.h"

enum { PROMPTS = 70 };

/* log p - log (1 - p) of the last row's logits, from probabilities. */
static double alone(const Golden *g, Acts *a, const Doc *d, const Ids *token) {
    int V = g->m.c.V, last = d->n - 1;
    float *logits = mem_array((size_t)V, sizeof *logits);
    double all = 0, in = 0;
    Pack p;
    pack_init(&p, d->n, 1, 0);
    pack_add(&p, d->token, NULL, d->n, 0);
    model_forward(&g->m, a, &p, g->m.c.L, NULL, NULL);
    model_logits(&g->m, a, &last, 1, logits);
    for (int v = 0; v < V; v++) all += exp(logits[v]);
    for (size_t k = 0; k < token->n; k++) in += exp(logits[token->id[k]]) / all;
    pack_free(&p);
    free(logits);
    return log(in) - log1p(-in);
}

/* Several blocks and packs; the same bits whatever the pack, but for the score's own arithmetic in
 * double. */
static void test_scores(Exec *ex) {
    Golden g;
    Doc doc[PROMPTS];
    const Doc *list[PROMPTS];
    double score[PROMPTS];
    Err err;
    int32_t id[] = {7, 3, 50};
    const Ids token = {.id = id, .n = 3};
    golden_open(&g, ex, "model_a");
    int longest = 0, rows = test_on_cpu(ex) ? PROMPTS : 5;
    for (int i = 0; i < rows; i++) {
        int d = i % GOLDEN_DOCS, n = g.n[d] > 4 ? g.n[d] - i % 3 : g.n[d];
        doc[i] = (Doc){.token = g.token[d], .n = n};
        list[i] = &doc[i];
        longest = n > longest ? n : longest;
    }
    RefusalOf of = {.doc = list, .n = (size_t)rows, .token = &token, .pack_tokens = 2 * longest};
    MUST(refusal_scores(score, &g.m, &of, &err), err);
    Acts *a = acts_create(&g.m, longest, 1, 1, ACTS_INFER);
    for (int i = 0; i < rows; i++) {
        double ref = alone(&g, a, &doc[i], &token);
        EXPECT(fabs(score[i] - ref) <= 1e-9, "%s: prompt %d: %.15g, alone %.15g", ex->op->name, i,
               score[i], ref);
        EXPECT(i == 0 || score[i] != score[i - 1], "prompts %d and %d are alike", i - 1, i);
    }
    acts_destroy(a);
    golden_close(&g);
}

static void test_tokens(void) {
    Tokenizer *t;
    Err err;
    Ids id, hello = {0};
    MUST(tokenizer_open(&t, "tests/golden/tokenizer_small.json", &err), err);
    MUST(tokenizer_encode(t, "no", 2, &hello, &err), err);
    MUST(refusal_tokens(&id, t, "no,no way,I", &err), err);
    EXPECT(id.n == 2 && id.id[0] == hello.id[0], "%zu tokens, the first %d", id.n, id.id[0]);
    ids_free(&id), ids_free(&hello);
    EXPECT(!refusal_tokens(&id, t, "", &err) && err.code == EXIT_USAGE &&
               strstr(err.text, "--refusals"),
           "an empty list");
    tokenizer_close(t);
}

int main(void) {
    test_each_exec(test_scores);
    test_tokens();
    return test_done("refusal");
}
