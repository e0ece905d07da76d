/* preference.c - pairs of documents. */
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

/* The records that are left have moved up. */
static void count_pairs(Dataset *d) {
    for (size_t i = 0; i < d->n; i++) {
        d->doc[i].record = &d->records.record[i / 2];
        dataset_count(d, &d->doc[i]);
        d->alike += i % 2 && alike(&d->doc[i - 1], &d->doc[i]);
    }
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
    if (ok)
        count_pairs(d);
    else
        dataset_free(d);
    return ok;
}
