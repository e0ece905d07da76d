/* preference.c - pairs of documents, their log-probabilities and losses. */
#include "host/stage/preference.h"

#include "data/base/interrupt.h"
#include "data/base/mem.h"

static bool has_target(const Doc *d) {
    return d->n > 0 && memchr(d->label, 1, (size_t)d->n);
}

static bool alike(const Doc *a, const Doc *b) {
    return a->n == b->n && memcmp(a->token, b->token, (size_t)a->n * sizeof *a->token) == 0;
}

/* One record's documents behind those that are there; *kept: its prompt leaves room for replies. */
static bool add_pair(Dataset *d, bool *kept, Tokenizer *t, const Record *r, const char *path,
                     int max_length, Err *err) {
    Doc *pair = &d->doc[d->n];
    if (interrupted(err)) return false;
    if (!doc_pair(&pair[0], &pair[1], &d->shared[d->n / 2], t, r, max_length, err))
        return err_prefix(err, "%s", path);
    *kept = has_target(&pair[0]) && has_target(&pair[1]);
    if (*kept)
        d->n += 2;
    else
        doc_free(&pair[0]), doc_free(&pair[1]);
    return true;
}

static void count_pairs(Dataset *d) {
    for (size_t i = 0; i < d->n; i++) {
        dataset_count(d, &d->doc[i]);
        d->alike += i % 2 && alike(&d->doc[i - 1], &d->doc[i]);
    }
}

/* The records that are left have moved up. */
static void name_records(Dataset *d) {
    for (size_t i = 0; i < d->n; i++) d->doc[i].record = &d->records.record[i / 2];
}

bool preference_load(Dataset *d, Tokenizer *t, const char *path, int max_length, size_t limit,
                     Err *err) {
    memset(d, 0, sizeof *d);
    if (!records_read(&d->records, path, limit, err)) return false;
    size_t all = d->records.n;
    bool *keep = mem_array(all, sizeof *keep), ok = true;
    d->doc = mem_array(2 * all, sizeof *d->doc);
    d->shared = mem_array(all, sizeof *d->shared);
    for (size_t i = 0; i < all && ok; i++)
        ok = add_pair(d, &keep[i], t, &d->records.record[i], path, max_length, err);
    if (ok) records_keep(&d->records, keep);
    free(keep);
    d->dropped = all - d->n / 2;
    if (ok && all == 0)
        ok = err_set(err, EXIT_INPUT,
                     "%s: expected at least one usable pair, found none; each needs two replies",
                     path);
    if (ok && d->n == 0)
        ok =
            err_set(err, EXIT_INPUT,
                    "%s: no pair is left: the prompts of all %zu take up --max-length %d; raise it",
                    path, all, max_length);
    if (ok) {
        name_records(d);
        count_pairs(d);
    } else {
        dataset_free(d);
    }
    return ok;
}

bool preference_of(Dataset *d, Tokenizer *t, const Dataset *from, const size_t *index, size_t n,
                   const char *path, int max_length, Err *err) {
    bool ok = true, kept;
    *d = (Dataset){.doc = mem_array(2 * n + 1, sizeof *d->doc),
                   .shared = mem_array(n + 1, sizeof *d->shared)};
    for (size_t i = 0; i < n && ok; i++)
        ok = add_pair(d, &kept, t, from->doc[index[i]].record, path, max_length, err);
    d->dropped = n - d->n / 2;
    if (ok)
        count_pairs(d);
    else
        dataset_free(d);
    return ok;
}

/* ------------------------------------------------------------------------------ measuring -- */

typedef struct Sums {
    double *logp;
    PairFacts *facts;
} Sums;

/* nll_sink; added as the objective does. */
static bool add_up(void *context, size_t doc, const float *nll, const LogitFacts *logits, int n,
                   Err *err) {
    Sums *s = context;
    double sum = 0;
    (void)err;
    for (int i = 0; i < n; i++) sum -= nll[i];
    s->logp[doc] = sum;
    if (logits) pair_facts_of_logits(s->facts, (enum PairSide)(doc % PAIR_SIDES), logits, n);
    return true;
}

/* Behind the last document that is among them. */
static size_t documents(const Examples *e) {
    size_t most = 0;
    for (size_t i = 0; i < e->n; i++)
        if (example_first(e, i) + 2 > most) most = example_first(e, i) + 2;
    return most;
}

bool preference_logp(double *logp, PairFacts *facts, const Model *m, const Examples *pairs,
                     const NllHow *how, Err *err) {
    Sums sums = {logp, facts};
    if (how->logits) *facts = (PairFacts){.accuracy = 0};
    bool ok = nll_docs(m, pairs, how, add_up, &sums, err);
    if (ok) comm_broadcast(m->ex->comm, "log-probabilities", logp, documents(pairs) * sizeof *logp);
    return ok;
}

double preference_mean(PairFacts *facts, const PairLoss *loss, const Examples *pairs,
                       const double *logp, const double *reference) {
    double losses = 0;
    for (size_t i = 0; i < pairs->n; i++) {
        size_t c = example_first(pairs, i), r = c + 1;
        Pair pair = {{logp[c], logp[r]},
                     {reference[c], reference[r]},
                     {doc_labels(&pairs->doc[c]), doc_labels(&pairs->doc[r])}};
        losses += pair_loss(loss, &pair).loss;
        pair_facts_add(facts, loss, &pair);
    }
    *facts = pair_facts_mean(facts, (double)pairs->n);
    return losses / (double)pairs->n;
}

/* ------------------------------------------------------------------------------- settings -- */

PairLoss preference_loss(const Settings *s) {
    return (PairLoss){(enum PairLossKind)s->train.loss_type, s->train.beta,
                      s->train.label_smoothing};
}

bool preference_check(const Settings *s, Err *err) {
    if (s->train.method != METHOD_DPO) return true;
    PairLoss l = preference_loss(s);
    if (s->data.side == SIDE_REJECTED)
        return err_set(err, EXIT_USAGE, "--side: --method dpo takes both sides of a pair");
    if (l.kind == PAIR_EXO && !(l.smoothing > 0))
        return err_set(err, EXIT_USAGE,
                       "--loss-type exo_pair: expected --label-smoothing above 0, such as 0.01");
    if (l.smoothing > 0 && l.kind != PAIR_EXO && l.kind != PAIR_ROBUST)
        return err_set(err, EXIT_USAGE,
                       "--label-smoothing: --loss-type robust and exo_pair alone have it");
    return true;
}

bool training_load(Dataset *d, Tokenizer *t, const Settings *s, const char *path, size_t limit,
                   Err *err) {
    return s->train.method == METHOD_DPO
               ? preference_load(d, t, path, s->data.max_length, limit, err)
               : dataset_load_training(d, t, path, (enum Side)s->data.side, s->data.max_length,
                                       limit, err);
}
