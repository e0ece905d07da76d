#include "host/measure.h"

#include "host/base/mem.h"
#include "host/interrupt.h"
#include "host/print.h"

typedef struct Measure {
    const Model *m;
    Acts *acts;
    Pack pack;
    const Doc *doc;
    const size_t *index;
    float *nll;
    nll_sink *sink;
    void *context;
} Measure;

static size_t number(const Measure *w, size_t i) {
    return w->index ? w->index[i] : i;
}

/* Runs the pack and hands on its documents, positions first..end of the index. */
static bool flush(Measure *w, size_t first, size_t end, Err *err) {
    Pack *p = &w->pack;
    if (p->nlabel > 0) {
        model_forward(w->m, w->acts, p, w->m->c.L, NULL, NULL);
        model_loss(w->m, w->acts, p, 1, w->nll);
    }
    bool ok = true;
    int at = 0;
    for (size_t i = first; i < end && ok; i++) {
        int n = 0;
        while (at + n < p->nlabel && p->label_doc[at + n] == (int)i) n++;
        ok = w->sink(w->context, number(w, i), w->nll + at, n, err);
        at += n;
    }
    pack_clear(p);
    return ok;
}

/* Rows that packs of these documents need: never more than all of them have. */
static int rows_needed(const Measure *w, size_t n, int pack_tokens) {
    size_t sum = 0, longest = 1;
    for (size_t i = 0; i < n; i++) {
        size_t len = (size_t)w->doc[number(w, i)].n;
        sum += len;
        if (len > longest) longest = len;
    }
    CHECK(longest <= (size_t)pack_tokens, "document of %zu tokens, pack of %d", longest,
          pack_tokens);
    return sum < longest ? (int)longest : sum < (size_t)pack_tokens ? (int)sum : pack_tokens;
}

bool measure_docs(const Model *m, const Doc *doc, const size_t *index, size_t n, int pack_tokens,
                  const char *progress, nll_sink *sink, void *context, Err *err) {
    Measure w = {.m = m, .doc = doc, .index = index, .sink = sink, .context = context};
    int rows = rows_needed(&w, n, pack_tokens), segs = n < (size_t)rows ? (int)n : rows;
    if (segs < 1) segs = 1;
    w.acts = acts_create(m, rows, segs, rows, ACTS_INFER);
    w.nll = mem_array((size_t)rows, sizeof *w.nll);
    pack_init(&w.pack, rows, segs, rows);
    Progress bar;
    progress_begin(&bar, progress, progress == NULL);
    bool ok = true;
    size_t first = 0; /* document of the pack */
    for (size_t i = 0; i < n && ok; i++) {
        const Doc *d = &doc[number(&w, i)];
        if (w.pack.N + d->n > rows || w.pack.nseg == segs) {
            ok = !interrupted(err) && flush(&w, first, i, err);
            first = i;
            progress_at(&bar, (double)i, (double)n);
        }
        if (ok) pack_add(&w.pack, d->token, d->label, d->n, (int)i);
    }
    ok = ok && flush(&w, first, n, err);
    progress_end(&bar);
    pack_free(&w.pack);
    free(w.nll);
    acts_destroy(w.acts);
    return ok;
}

static bool add_up(void *context, size_t doc, const float *nll, int n, Err *err) {
    (void)doc, (void)err;
    NllSum *s = context;
    for (int i = 0; i < n; i++) s->sum += nll[i];
    s->labels += (size_t)n;
    return true;
}

bool measure_sum(NllSum *sum, const Model *m, const Doc *doc, const size_t *index, size_t n,
                 int pack_tokens, const char *progress, Err *err) {
    *sum = (NllSum){0};
    return measure_docs(m, doc, index, n, pack_tokens, progress, add_up, sum, err);
}
