/* nll.c - documents in packs through the model, their log-probabilities handed on in order. */
#include "host/stage/nll.h"

#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/interrupt.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/wish.h"

typedef struct Measure {
    const Model *m;
    Acts *acts;
    Pack pack;
    const Examples *e;
    float *nll;   /* (kinds, labels of the pack) -log p and, where they are asked for, LogitFacts */
    size_t kinds; /* 1, or 4 */
    nll_sink *sink;
    void *context;
} Measure;

/* From label `at` on of the `all` of a pack, whose numbers lie as in Measure; NULL: not asked for.
 */
static LogitFacts facts_of(const Measure *w, float *nll, size_t at, size_t all) {
    if (w->kinds == 1) return (LogitFacts){NULL, NULL, NULL};
    return (LogitFacts){nll + all + at, nll + 2 * all + at, nll + 3 * all + at};
}

/* False, with the tensor that was first, when a label of the pack has no finite probability. */
static bool all_finite(const Measure *w, Err *err) {
    const Pack *p = &w->pack;
    int i = 0;
    while (i < p->nlabel && isfinite(w->nll[i])) i++;
    if (i == p->nlabel) return true;
    const Doc *d = &w->e->doc[p->label_doc[i]];
    char where[160];
    snprintf(where, sizeof where, "document %.80s: token %d has log-probability %g", d->record->id,
             p->pos[p->label_row[i]] + 1, -w->nll[i]);
    return bad_tensor_find(w->m, w->acts, where, err);
}

PackSize nll_pack_size(const Examples *e, int pack_tokens) {
    PackSize most = {1, 1, 1}, pack = {0};
    for (size_t i = 0; i < e->n; i++) {
        PackSize one = example_size(e, i);
        CHECK(one.rows <= pack_tokens, "%d rows, pack of %d", one.rows, pack_tokens);
        if (pack.rows + one.rows > pack_tokens) pack = (PackSize){0};
        pack = pack_size_sum(pack, one);
        most = pack_size_most(most, pack);
    }
    return most;
}

/* The examples of each pack, as they come: first[p]..first[p+1]. Returns the packs. */
static size_t cut_into_packs(size_t *first, const Examples *e, int pack_tokens) {
    size_t packs = 0;
    int rows = 0;
    for (size_t i = 0; i < e->n; i++) {
        int more = example_size(e, i).rows;
        if (i == 0 || rows + more > pack_tokens) first[packs++] = i, rows = 0;
        rows += more;
    }
    first[packs] = e->n;
    return packs;
}

/* One pack through the model; its log-probabilities are in w->nll then. False: interrupted. */
static bool run_pack(Measure *w, size_t first, size_t end, Err *err) {
    Pack *p = &w->pack;
    if (interrupted(err)) return false;
    pack_clear(p);
    for (size_t i = first; i < end; i++) example_add(p, w->e, i);
    LogitFacts to = facts_of(w, w->nll, 0, (size_t)p->nlabel);
    acts_tell_facts(w->acts, &to);
    if (p->nlabel > 0)
        model_nll(w->m, w->acts, p, w->nll);
    else
        model_idle_forward(w->m);
    return true;
}

/* Hands on the documents of a pack that has run here or on another rank: so many bytes came. */
static bool hand_on(const Measure *w, size_t first, size_t end, float *nll, size_t bytes,
                    Err *err) {
    size_t docs = (size_t)examples_docs(w->e), all = bytes / sizeof *nll / w->kinds, at = 0;
    bool ok = true;
    for (size_t i = first * docs; i < end * docs && ok; i++) {
        size_t doc = example_first(w->e, i / docs) + i % docs;
        size_t n = (size_t)doc_labels(&w->e->doc[doc]);
        CHECK(n <= all - at, "document %zu: %zu labels, %zu log-probabilities", doc, n, all - at);
        LogitFacts logits = facts_of(w, nll, at, all);
        ok = w->sink(w->context, doc, nll + at, logits.mean ? &logits : NULL, (int)n, err);
        at += n;
    }
    return ok;
}

/* A pack for each rank; rank 0 hands on their results in the order of packs. */
static bool run_round(Measure *w, const size_t *first, int packs, Err *err) {
    Comm *comm = w->m->ex->comm;
    int rank = comm_rank(comm), ranks = comm_size(comm);
    void **part = mem_array((size_t)ranks, sizeof *part);
    size_t *bytes = mem_array((size_t)ranks, sizeof *bytes);
    pack_clear(&w->pack);
    if (rank >= packs) model_idle_forward(w->m);
    bool ok = rank >= packs || run_pack(w, first[rank], first[rank + 1], err);
    ok = ok && agree_all(comm, all_finite(w, err), err);
    if (ok)
        comm_collect(comm, "log-probabilities", w->nll,
                     w->kinds * (size_t)w->pack.nlabel * sizeof *w->nll, part, bytes);
    for (int r = 0; ok && comm_root(comm) && r < packs; r++)
        ok = hand_on(w, first[r], first[r + 1], part[r], bytes[r], err);
    for (int r = 0; comm_root(comm) && r < ranks; r++) free(part[r]);
    free(part), free(bytes);
    return ok;
}

/* Between two rounds: has a signal asked any rank for a stop? */
static bool goes_on(const Measure *w, const NllHow *how, Err *err) {
    if (!how->again) return true;
    Wish wish = wish_share(w->m->ex->comm, (Wish){interrupt_requested(), false});
    return !wish.signal || wish_stop(&wish, how->while_it, how->again, err);
}

bool nll_docs(const Model *m, const Examples *e, const NllHow *how, nll_sink *sink, void *context,
              Err *err) {
    Measure w = {.m = m, .e = e, .kinds = how->logits ? 4 : 1, .sink = sink, .context = context};
    PackSize size = nll_pack_size(e, how->pack_tokens);
    size_t *first = mem_array(e->n + 1, sizeof *first), ranks = (size_t)comm_size(m->ex->comm);
    size_t packs = cut_into_packs(first, e, how->pack_tokens);
    w.acts = acts_create(m, size.rows, size.segs, size.labels, ACTS_INFER);
    stream_edit_on(how->edit, w.acts);
    w.nll = mem_array(w.kinds * (size_t)size.labels, sizeof *w.nll);
    pack_init(&w.pack, size.rows, size.segs, size.labels);
    Progress bar;
    progress_begin(&bar, how->progress, how->progress == NULL);
    comm_phase(m->ex->comm, "logprob", 0, RANKS_APART);
    bool ok = true;
    for (size_t p = 0; p < packs && ok; p += ranks) {
        ok = run_round(&w, first + p, (int)(packs - p < ranks ? packs - p : ranks), err) &&
             goes_on(&w, how, err);
        progress_at(&bar, (double)p, (double)packs);
    }
    progress_end(&bar);
    pack_free(&w.pack);
    free(first);
    free(w.nll);
    acts_destroy(w.acts);
    return ok;
}

static bool add_up(void *context, size_t doc, const float *nll, const LogitFacts *logits, int n,
                   Err *err) {
    (void)doc, (void)logits, (void)err;
    NllSum *s = context;
    for (int i = 0; i < n; i++) s->sum += nll[i];
    s->labels += (size_t)n;
    return true;
}

bool nll_sum(NllSum *sum, const Model *m, const Doc *doc, const size_t *index, size_t n,
             int pack_tokens, const char *progress, Err *err) {
    const Examples documents = {.doc = doc, .index = index, .n = n};
    const NllHow how = {.pack_tokens = pack_tokens, .progress = progress};
    *sum = (NllSum){0};
    return nll_docs(m, &documents, &how, add_up, sum, err);
}
