/* What firings say of a feature, on documents whose every number is known: sums of each corpus,
 * the token that it is about, the histogram, and which contexts are shown. */
#include "host/stage/firing_facts.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"
#include "tests/test.h"

enum { K = 2, COLUMN = 1, DOCS = 7, LENGTH = 8, WINDOW = 1 };

/* Corpus, tokens, and ten times the activation; token 0 never counts. */
static const struct {
    enum LookedCorpus corpus;
    int token[LENGTH], act[LENGTH];
} text[DOCS] = {
    {LOOKED_ALIGNED, {0, 5, 6, 7, 5, 8, 9, 4}, {99, 10, 0, 0, 20, 0, 0, 5}},
    {LOOKED_ALIGNED, {0, 5, 6, 7, 5, 8, 9, 4}, {0, 10, 0, 0, 20, 0, 0, 0}}, /* as the one before */
    {LOOKED_UNALIGNED, {0, 1, 2, 3, 5, 8, 9, 4}, {0, 0, 0, 0, 40, 0, 0, 0}},
    {LOOKED_HARMFUL, {0, 1, 2, 3, 1, 2, 3, 4}, {0, 0, 0, 70, 0, 0, 0, 0}},
    {LOOKED_HARMFUL, {0, 1, 2, 3, 1, 2, 3, 4}, {90, 0, 0, 10, 0, 0, 0, 0}},
    {LOOKED_BENIGN, {0, 6, 7, 8, 9, 6, 7, 8}, {0, 0, 30, 0, 0, 25, 0, 0}},
    {LOOKED_BENIGN, {0, 6, 7, 8, 9, 6, 7, 8}, {0, 0, 0, 0, 0, 0, 0, 0}},
};

static void make(Looked *l, Firings *f) {
    *l = (Looked){.doc = mem_array(DOCS, sizeof *l->doc), .n = DOCS, .rows = DOCS * LENGTH};
    *f = (Firings){.docs = l, .K = K, .act = mem_array(DOCS * LENGTH * K, sizeof *f->act)};
    for (int d = 0; d < DOCS; d++) {
        LookedDoc *to = &l->doc[d];
        *to = (LookedDoc){.corpus = text[d].corpus, .n = LENGTH, .at = (size_t)d * LENGTH};
        to->category = d == 3 ? "one" : d == 4 ? "two" : "";
        to->token = mem_array(LENGTH, sizeof *to->token);
        to->counted = mem_array(LENGTH, 1);
        for (int t = 0; t < LENGTH; t++) {
            to->token[t] = text[d].token[t];
            to->counted[t] = to->token[t] != 0;
            f->act[(d * LENGTH + t) * K + COLUMN] = (float)text[d].act[t] / 10;
            f->act[(d * LENGTH + t) * K] = 1000; /* another feature's */
        }
        l->docs[to->corpus]++, l->tokens[to->corpus] += LENGTH - 1;
    }
}

static bool is(double x, double ref) {
    return fabs(x - ref) <= 1e-7 * fabs(ref);
}

static void test_facts(const Firings *f) {
    FiringFacts x;
    firing_facts(&x, f, COLUMN);
    EXPECT(is(x.mean[LOOKED_ALIGNED], 6.5 / 14) && is(x.mean[LOOKED_BENIGN], 5.5 / 14),
           "means %g %g", x.mean[LOOKED_ALIGNED], x.mean[LOOKED_BENIGN]);
    EXPECT(is(x.rate[LOOKED_ALIGNED], 5.0 / 14) && is(x.rate[LOOKED_HARMFUL], 2.0 / 14), "rates");
    EXPECT(is(x.max[LOOKED_ALIGNED], 2) && is(x.max[LOOKED_HARMFUL], 7), "largest %g",
           x.max[LOOKED_ALIGNED]);
    EXPECT(x.fires == 6 && is(x.density, 6.0 / 21), "%lld firings", (long long)x.fires);
    EXPECT(is(x.edge[FIRING_BINS], 4) && x.count[FIRING_BINS - 1] == 1 && x.count[10] == 2 &&
               x.count[5] == 2 && x.count[2] == 1,
           "histogram to %g", x.edge[FIRING_BINS]);
    /* of 10.5 in all 10 are on token 5, which fires whenever it is there, five times */
    EXPECT(is(x.token_share, 10 / 10.5) && x.token == 5 && x.token_fires == 5 && x.token_of == 5,
           "token %d, share %g, %lld of %lld", x.token, x.token_share, (long long)x.token_fires,
           (long long)x.token_of);
    EXPECT(is(x.pmi, log2(21.0 / 6)), "pmi %g", x.pmi);
    static const struct {
        const char *category;
        double area;
        size_t n;
    } want[] = {{NULL, 0.75, 2}, {"one", 1, 1}, {"two", 0.5, 1}}; /* 7 and 1 above 3 and 0 */
    for (int i = 0; i < 3; i++) {
        size_t n;
        Interval auc = firing_auc(&n, f, COLUMN, want[i].category);
        EXPECT(auc.mean == want[i].area && n == want[i].n, "area %g of %zu, expected %g of %zu",
               auc.mean, n, want[i].area, want[i].n);
    }
}

static void test_places(const Firings *f) {
    FiringPlace to[16];
    int stratum[16];
    const LookedDoc *doc = f->docs->doc;
    int n = firing_top(to, f, COLUMN, false, 8, WINDOW);
    /* 4.0; 2.0 of the first document, whose twin says the same; 1.0 at token 1; 0.5 at its end */
    EXPECT(n == 4 && to[0].doc == &doc[2] && to[0].t == 4 && to[1].doc == &doc[0] && to[1].t == 4 &&
               to[2].doc == &doc[0] && to[2].t == 1 && to[3].t == 7 && to[3].a == 0.5f,
           "%d places", n);
    EXPECT(firing_top(to, f, COLUMN, false, 1, WINDOW) == 1, "more than were asked for");
    EXPECT(firing_top(to, f, COLUMN, false, 8, 3) == 3, "windows that touch");
    n = firing_top(to, f, COLUMN, true, 8, WINDOW);
    EXPECT(n == 2 && to[0].doc == &doc[5] && to[0].t == 2 && to[1].t == 5, "%d benign", n);
    n = firing_quantiles(to, stratum, f, COLUMN, 2, WINDOW);
    for (int i = 1; i < n; i++)
        EXPECT(stratum[i] >= stratum[i - 1] && to[i].a >= to[i - 1].a, "stratum %d falls",
               stratum[i]);
    EXPECT(n >= 3 && to[0].a == 0.5f && stratum[0] == 0 && to[n - 1].a == 4 && stratum[n - 1] == 4,
           "%d quantiles, from %g to %g", n, to[0].a, to[n - 1].a);
}

static void test_silent(Firings *f) {
    FiringFacts x;
    FiringPlace to[8];
    int stratum[16];
    for (int i = 0; i < DOCS * LENGTH; i++) f->act[i * K + COLUMN] = 0;
    firing_facts(&x, f, COLUMN);
    EXPECT(x.fires == 0 && x.density == 0 && x.token == -1 && x.token_share == 0 &&
               x.edge[FIRING_BINS] == 0,
           "what never fires");
    EXPECT(firing_top(to, f, COLUMN, false, 8, 1) == 0 &&
               firing_quantiles(to, stratum, f, COLUMN, 2, 1) == 0,
           "places of what never fires");
}

int main(void) {
    Looked l;
    Firings f;
    make(&l, &f);
    test_facts(&f);
    test_places(&f);
    test_silent(&f);
    firings_free(&f);
    looked_free(&l);
    return test_done("firing facts");
}
