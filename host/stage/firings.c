/* firings.c - which documents are looked at, and the pass over them. */
#include "host/stage/firings.h"

#include <string.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/wish.h"

const char *const looked_name[LOOKED_COUNT] = {LOOKED_CORPORA(CHOICE_TEXT)};

/* ------------------------------------------------------------------------- the documents -- */

/* Takes a copy of the document and of which of its tokens count. */
static void add(Looked *l, enum LookedCorpus corpus, size_t number, const Doc *d,
                const uint8_t *counted) {
    l->doc = mem_grow(l->doc, &l->capacity, l->n + 1, sizeof *l->doc);
    LookedDoc *to = &l->doc[l->n++];
    size_t n = (size_t)d->n;
    bool named = !looked_scored(corpus) && d->record;
    *to = (LookedDoc){.corpus = corpus,
                      .number = number,
                      .category = named ? d->record->category : "",
                      .n = d->n,
                      .at = l->rows};
    to->token = mem_array(n, sizeof *to->token);
    to->counted = mem_array(n, 1);
    memcpy(to->token, d->token, n * sizeof *to->token);
    memcpy(to->counted, counted, n);
    for (int t = 0; t < d->n; t++) to->ncounted += to->counted[t] != 0;
    l->rows += n;
    l->docs[corpus]++, l->tokens[corpus] += (size_t)to->ncounted;
    if (d->n > l->longest) l->longest = d->n;
}

static bool add_scored(Looked *l, const Corpora *c, int corpus, size_t most, Err *err) {
    size_t first, n = corpora_documents(c, corpus, &first), m = n < most ? n : most;
    for (size_t i = 0; i < m; i++) {
        CorporaItem item;
        size_t number = looked_spread(i, m, n);
        if (interrupted(err) || !corpora_item(&item, c, first + number, err)) return false;
        if (item.doc[corpus].n)
            add(l, corpus ? LOOKED_UNALIGNED : LOOKED_ALIGNED, number, &item.doc[corpus],
                item.counted[corpus]);
        corpora_item_free(&item);
    }
    return true;
}

static void add_prompts(Looked *l, const Markers *m, const PromptFile *f, enum LookedCorpus corpus,
                        size_t most) {
    size_t n = f->n < most ? f->n : most;
    for (size_t i = 0; i < n; i++) {
        size_t number = looked_spread(i, n, f->n);
        const Doc *d = &f->doc[f->index[number]];
        uint8_t *counted = mem_array((size_t)d->n, 1);
        markers_count(counted, d, m);
        add(l, corpus, number, d, counted);
        free(counted);
    }
}

bool looked_read(Looked *l, const Runtime *r, const Settings *s, const Corpora *c, const Prompts *p,
                 Err *err) {
    size_t most = (size_t)s->explain.documents;
    Markers m = markers_of(r);
    *l = (Looked){0};
    bool ok = true;
    for (int k = 0; c && k < 2 && ok; k++) ok = add_scored(l, c, k, most, err);
    if (p && ok) add_prompts(l, &m, &p->file[0], LOOKED_HARMFUL, most);
    if (p && ok) add_prompts(l, &m, &p->file[1], LOOKED_BENIGN, most);
    if (!ok) looked_free(l);
    return ok;
}

void looked_free(Looked *l) {
    for (size_t i = 0; i < l->n; i++) free(l->doc[i].token), free(l->doc[i].counted);
    free(l->doc);
    *l = (Looked){0};
}

/* ------------------------------------------------------------------------------ the pass -- */

/* Documents of a block go to one rank at a time. */
enum { BLOCK = 32 };

/* Rows of the documents first .. end - 1. */
static size_t rows_of(const Looked *l, size_t first, size_t end) {
    if (first >= end) return 0;
    return (end < l->n ? l->doc[end].at : l->rows) - l->doc[first].at;
}

static size_t block_end(const Looked *l, size_t first) {
    return first + BLOCK < l->n ? first + BLOCK : l->n;
}

static bool run_block(FiringRun *run, Runtime *r, const Firings *f, float *to, size_t first,
                      Err *err) {
    const Looked *l = f->docs;
    for (size_t i = first; i < block_end(l, first); i++) {
        const LookedDoc *d = &l->doc[i];
        if (interrupted(err)) return false;
        comm_beat(r->ex.comm);
        firing_run_add(run, d->token, d->n, to + (d->at - l->doc[first].at) * (size_t)f->K);
    }
    firing_run_finish(run);
    return !firing_run_bad(run) ||
           bad_tensor_find(&r->model, firing_run_acts(run),
                           "the stream that features read is not finite", err);
}

/* A block for each rank; rank 0 puts them in their places. */
static bool run_round(FiringRun *run, Runtime *r, Firings *f, size_t done, Err *err) {
    Comm *comm = r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), K = (size_t)f->K;
    size_t first = done + (size_t)comm_rank(comm) * BLOCK;
    size_t rows = first < f->docs->n ? rows_of(f->docs, first, block_end(f->docs, first)) : 0;
    float *own = mem_array(rows * K, sizeof *own);
    if (!agree_all(comm, first >= f->docs->n || run_block(run, r, f, own, first, err), err)) {
        free(own);
        return false;
    }
    void **part = mem_array(ranks, sizeof *part);
    size_t *bytes = mem_array(ranks, sizeof *bytes);
    comm_collect(comm, "firings", own, rows * K * sizeof *own, part, bytes);
    for (size_t k = 0; comm_root(comm) && k < ranks; k++) {
        size_t at = done + k * BLOCK;
        if (at < f->docs->n) memcpy(f->act + f->docs->doc[at].at * K, part[k], bytes[k]);
        free(part[k]);
    }
    free(part), free(bytes), free(own);
    return true;
}

bool firings_run(Firings *f, Runtime *r, const Looked *docs, const FiringLayer *layer, int n,
                 int pack_tokens, bool quiet, Err *err) {
    Comm *comm = r->ex.comm;
    size_t each = BLOCK * (size_t)comm_size(comm);
    *f = (Firings){.docs = docs};
    for (int i = 0; i < n; i++) f->K += layer[i].k;
    if (comm_root(comm)) f->act = mem_array(docs->rows * (size_t)f->K, sizeof *f->act);
    FiringRun *run = firing_run_open(&r->model, layer, n,
                                     docs->longest > pack_tokens ? docs->longest : pack_tokens);
    Progress bar;
    progress_begin(&bar, "firings", quiet);
    comm_phase(comm, "firings", 0, RANKS_APART);
    bool ok = true;
    for (size_t done = 0; done < docs->n && ok; done += each) {
        Wish wish = wish_share(comm, (Wish){.signal = interrupt_requested()});
        ok = wish.signal
                 ? wish_stop(&wish, "before all firings were found", "the same command", err)
                 : run_round(run, r, f, done, err);
        progress_at(&bar, (double)done, (double)docs->n);
    }
    progress_end(&bar);
    firing_run_close(run);
    if (!ok) firings_free(f);
    return ok;
}

void firings_free(Firings *f) {
    free(f->act);
    *f = (Firings){0};
}
