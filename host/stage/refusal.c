/* refusal.c - prompts in packs through the model, and the logits of their last rows. */
#include "host/stage/refusal.h"

#include <math.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/stage/agree.h"

enum { BLOCK = 64, MOST_ROWS = 16 /* prompts of a block; rows whose logits are there at a time */ };

bool refusal_tokens(Ids *to, Tokenizer *t, const char *list, Err *err) {
    *to = (Ids){0};
    for (int i = 0; i < list_count(list); i++) {
        char text[256];
        Ids all = {0};
        bool ok = list_item(list, i, text, sizeof text) &&
                  tokenizer_encode(t, text, strlen(text), &all, err) && all.n > 0;
        bool there = !ok;
        for (size_t k = 0; k < to->n && !there; k++) there = to->id[k] == all.id[0];
        if (!there) ids_add(to, all.id[0]);
        ids_free(&all);
        if (ok) continue;
        ids_free(to);
        return err_set(err, EXIT_USAGE, "--refusals: entry %d: expected text that has a token",
                       i + 1);
    }
    return to->n > 0 || err_set(err, EXIT_USAGE, "--refusals: expected how refusals begin");
}

/* Of one row of capped logits: the difference of two sums of exponentials, each from its largest.
 */
static double score_of(const float *logit, int V, const Ids *token) {
    double most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int pass = 0; pass < 2; pass++)
        for (int v = 0; v < V; v++) {
            int in = 0;
            for (size_t k = 0; k < token->n; k++) in |= token->id[k] == v;
            if (pass)
                sum[in] += exp(logit[v] - most[in]);
            else
                most[in] = fmax(most[in], logit[v]);
        }
    return most[1] + log(sum[1]) - most[0] - log(sum[0]);
}

typedef struct Asking {
    const Model *m;
    const RefusalOf *of;
    Acts *acts;
    Pack pack;
    int32_t *last; /* (prompts of the pack) their last rows */
    float *logits; /* (MOST_ROWS,V) */
    int n;
} Asking;

/* Runs the prompts of the pack; score: of the first of them. */
static void flush(Asking *a, double *score) {
    const Model *m = a->m;
    if (a->n == 0) return;
    model_forward(m, a->acts, &a->pack, m->c.L, NULL, NULL);
    for (int at = 0; at < a->n; at += MOST_ROWS) {
        int rows = a->n - at < MOST_ROWS ? a->n - at : MOST_ROWS;
        model_logits(m, a->acts, a->last + at, rows, a->logits);
        for (int i = 0; i < rows; i++)
            score[at + i] = score_of(a->logits + (size_t)i * (size_t)m->c.V, m->c.V, a->of->token);
    }
    pack_clear(&a->pack);
    a->n = 0;
}

static bool run_block(Asking *a, double *score, size_t first, size_t end, Err *err) {
    size_t from = first;
    for (size_t i = first; i < end; i++) {
        const Doc *d = a->of->doc[i];
        if (interrupted(err)) return false;
        CHECK(d->n > 0 && d->n <= a->of->pack_tokens, "prompt %zu has %d tokens", i, d->n);
        if (a->pack.N + d->n > a->of->pack_tokens) flush(a, score + from - first), from = i;
        pack_add(&a->pack, d->token, NULL, d->n, 0);
        a->last[a->n++] = a->pack.N - 1;
    }
    flush(a, score + from - first);
    for (size_t i = 0; i < end - first; i++)
        if (!isfinite(score[i]))
            return err_set(err, EXIT_NUMBERS, "prompt %.80s: logits that are not finite",
                           a->of->doc[first + i]->record ? a->of->doc[first + i]->record->id : "");
    return true;
}

/* A block for each rank; all get all. */
static bool run_round(Asking *a, double *score, size_t done, Err *err) {
    Comm *comm = a->m->ex->comm;
    size_t ranks = (size_t)comm_size(comm), n = a->of->n;
    size_t first = done + (size_t)comm_rank(comm) * BLOCK;
    size_t end = first + BLOCK < n ? first + BLOCK : n;
    double *all = mem_array(ranks * BLOCK, sizeof *all);
    double *own = all + (size_t)comm_rank(comm) * BLOCK;
    bool ok = agree_all(comm, first >= n || run_block(a, own, first, end, err), err);
    if (ok) comm_share(comm, "refusal scores", all, BLOCK * sizeof *all);
    for (size_t i = 0; ok && i < ranks * BLOCK && done + i < n; i++) score[done + i] = all[i];
    free(all);
    return ok;
}

bool refusal_scores(double *score, const Model *m, const RefusalOf *of, Err *err) {
    Asking a = {.m = m, .of = of};
    Comm *comm = m->ex->comm;
    a.acts = acts_create(m, of->pack_tokens, of->pack_tokens, MOST_ROWS, ACTS_INFER);
    a.last = mem_array((size_t)of->pack_tokens, sizeof *a.last);
    a.logits = mem_array(MOST_ROWS * (size_t)m->c.V, sizeof *a.logits);
    pack_init(&a.pack, of->pack_tokens, of->pack_tokens, 0);
    stream_edit_on(of->edit, a.acts);
    comm_phase(comm, "refusal scores", 0, RANKS_APART);
    bool ok = true;
    for (size_t done = 0; done < of->n && ok; done += BLOCK * (size_t)comm_size(comm))
        ok = run_round(&a, score, done, err);
    pack_free(&a.pack);
    free(a.last), free(a.logits);
    acts_destroy(a.acts);
    return ok;
}
