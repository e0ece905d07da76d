/* nll.c - documents in packs through the model, their log-probabilities handed on in order. */
#include "host/stage/nll.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/interrupt.h"
#include "host/cli/print.h"
#include "host/stage/bad_tensor.h"

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

/* False, with the tensor that was first, when a label of the pack has no finite probability. */
static bool all_finite(const Measure *w, Err *err) {
    const Pack *p = &w->pack;
    int i = 0, s = 0;
    while (i < p->nlabel && isfinite(w->nll[i])) i++;
    if (i == p->nlabel) return true;
    while (p->label_row[i] >= p->seg[s].row + p->seg[s].len) s++;
    const Doc *d = &w->doc[number(w, (size_t)p->label_doc[i])];
    char where[160];
    snprintf(where, sizeof where, "document %.80s: token %d has log-probability %g", d->record->id,
             p->label_row[i] - p->seg[s].row + 1, -w->nll[i]);
    return bad_tensor_find(w->m, w->acts, where, err);
}

/* Runs the pack and hands on its documents, positions first..end of the index. */
static bool flush(Measure *w, size_t first, size_t end, Err *err) {
    Pack *p = &w->pack;
    if (p->nlabel > 0) model_nll(w->m, w->acts, p, w->nll);
    bool ok = all_finite(w, err);
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

static int larger(int a, int b) {
    return a > b ? a : b;
}

PackSize nll_pack_size(const Doc *doc, const size_t *index, size_t n, int pack_tokens) {
    PackSize most = {1, 1, 1}, pack = {0};
    for (size_t i = 0; i < n; i++) {
        const Doc *d = &doc[index ? index[i] : i];
        CHECK(d->n <= pack_tokens, "document of %d tokens, pack of %d", d->n, pack_tokens);
        if (pack.rows + d->n > pack_tokens) pack = (PackSize){0};
        pack.rows += d->n;
        pack.segs++;
        for (int t = 0; t < d->n; t++) pack.labels += d->label[t] != 0;
        most = (PackSize){larger(most.rows, pack.rows), larger(most.segs, pack.segs),
                          larger(most.labels, pack.labels)};
    }
    return most;
}

bool nll_docs(const Model *m, const Doc *doc, const size_t *index, size_t n, int pack_tokens,
              const char *progress, nll_sink *sink, void *context, Err *err) {
    Measure w = {.m = m, .doc = doc, .index = index, .sink = sink, .context = context};
    PackSize size = nll_pack_size(doc, index, n, pack_tokens);
    w.acts = acts_create(m, size.rows, size.segs, size.labels, ACTS_INFER);
    w.nll = mem_array((size_t)size.labels, sizeof *w.nll);
    pack_init(&w.pack, size.rows, size.segs, size.labels);
    Progress bar;
    progress_begin(&bar, progress, progress == NULL);
    bool ok = true;
    size_t first = 0; /* document of the pack */
    for (size_t i = 0; i < n && ok; i++) {
        const Doc *d = &doc[number(&w, i)];
        if (w.pack.N + d->n > pack_tokens) {
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

bool nll_sum(NllSum *sum, const Model *m, const Doc *doc, const size_t *index, size_t n,
             int pack_tokens, const char *progress, Err *err) {
    *sum = (NllSum){0};
    return nll_docs(m, doc, index, n, pack_tokens, progress, add_up, sum, err);
}
