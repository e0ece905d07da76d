/* dataset.c - records to documents, with counts of what was cut or left out. */
#include "host/stage/dataset.h"

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "data/base/interrupt.h"

static bool render(Doc *doc, Tokenizer *t, const Record *r, enum Side side, int max_length,
                   Err *err) {
    if (r->form == RECORD_PAIR && side == SIDE_REJECTED) {
        if (!chat_render(doc, t, &r->rejected, false, max_length, err))
            return err_prefix(err, "line %zu: \"rejected\"", r->line);
        doc->record = r;
        return true;
    }
    return doc_from_record(doc, t, r, max_length, err);
}

void dataset_count(Dataset *d, const Doc *doc) {
    size_t labels = 0;
    for (int i = 0; i < doc->n; i++) labels += doc->label[i] != 0;
    d->truncated += doc->truncated;
    d->unlabelled += labels == 0;
    d->tokens += (size_t)doc->n;
    d->labels += labels;
    if ((size_t)doc->n > d->longest) d->longest = (size_t)doc->n;
}

bool dataset_load(Dataset *d, Tokenizer *t, const char *path, enum Side side, int max_length,
                  size_t limit, Err *err) {
    memset(d, 0, sizeof *d);
    if (!records_read(&d->records, path, limit, err)) return false;
    if (d->records.n == 0)
        return err_set(err, EXIT_INPUT, "%s: expected at least one usable record, found none",
                       path);
    d->doc = mem_array(d->records.n, sizeof *d->doc);
    bool ok = true;
    for (size_t i = 0; i < d->records.n && ok; i++) {
        const Record *r = &d->records.record[i];
        ok = !interrupted(err);
        if (!ok) break;
        ok = render(&d->doc[i], t, r, side, max_length, err);
        if (!ok) {
            err_prefix(err, "%s", path);
            break;
        }
        d->n = i + 1;
        dataset_count(d, &d->doc[i]);
    }
    if (!ok) dataset_free(d);
    return ok;
}

/* Why no document has a target. */
static bool no_target(const Dataset *d, const char *path, int max_length, Err *err) {
    size_t form[RECORD_TOKENS + 1] = {0};
    for (size_t i = 0; i < d->n; i++) form[d->doc[i].record->form]++;
    if (form[RECORD_PROMPT] == d->n)
        return err_set(err, EXIT_INPUT,
                       "%s: no document has a training target: all %zu are prompts without a "
                       "reply; add a \"completion\" to each",
                       path, d->n);
    if (d->truncated)
        return err_set(err, EXIT_INPUT,
                       "%s: no document has a training target within %d tokens; raise --max-length",
                       path, max_length);
    return err_set(err, EXIT_INPUT, "%s: no document has a training target: %s; mend the records",
                   path,
                   form[RECORD_TOKENS] ? "the \"labels\" of all tokens are 0" : "all are empty");
}

static void drop_unlabelled(Dataset *d) {
    bool *keep = mem_array(d->n, sizeof *keep);
    size_t n = 0, all = d->n;
    for (size_t i = 0; i < all; i++) {
        const Doc *doc = &d->doc[i];
        keep[i] = doc->n > 0 && memchr(doc->label, 1, (size_t)doc->n);
    }
    d->truncated = d->tokens = d->labels = d->longest = d->unlabelled = 0;
    for (size_t i = 0; i < all; i++) {
        if (!keep[i]) {
            doc_free(&d->doc[i]);
            continue;
        }
        d->doc[n] = d->doc[i];
        d->doc[n].record = &d->records.record[n];
        dataset_count(d, &d->doc[n++]);
    }
    records_keep(&d->records, keep);
    d->dropped = all - n;
    d->n = n;
    free(keep);
}

bool dataset_load_training(Dataset *d, Tokenizer *t, const char *path, enum Side side,
                           int max_length, size_t limit, Err *err) {
    if (!dataset_load(d, t, path, side, max_length, limit, err)) return false;
    if (d->labels > 0) {
        drop_unlabelled(d);
        return true;
    }
    no_target(d, path, max_length, err);
    dataset_free(d);
    return false;
}

void dataset_print_notes(FILE *f, const char *indent, const Dataset *d) {
    const Records *r = &d->records;
    const struct {
        size_t n;
        const char *what;
    } notes[] = {
        {d->truncated, "documents cut at --max-length"},
        {d->unlabelled, "documents without a target"},
        {d->shared ? 0 : d->dropped, "documents without a target dropped"},
        {d->shared ? d->dropped : 0, "pairs dropped whose prompt takes up --max-length"},
        {d->alike, "pairs whose two documents are the same, which teach nothing"},
        {r->empty_replies, "records left out for an empty reply"},
        {r->unsafe_pairs, "pairs left out without a safe reply"},
        {r->diverging_pairs, "pairs that differ before the last reply"},
        {r->marked_replies, "replies that hold \"\\n\\nHuman:\" or \"\\n\\nAssistant:\" as text"},
    };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (notes[i].n) fprintf(f, "%s%zu %s\n", indent, notes[i].n, notes[i].what);
    if (r->ignored) fprintf(f, "%sfields ignored: %s\n", indent, r->ignored);
}

Examples dataset_examples(const Dataset *d) {
    return (Examples){.doc = d->doc, .shared = d->shared, .n = d->shared ? d->n / 2 : d->n};
}

void dataset_free(Dataset *d) {
    for (size_t i = 0; i < d->n; i++) doc_free(&d->doc[i]);
    free(d->doc), free(d->shared);
    records_free(&d->records);
    memset(d, 0, sizeof *d);
}

/* ------------------------------------------------------------------------------ split -- */

typedef struct Draw {
    uint64_t key;
    size_t i;
} Draw;

static int by_key(const void *a, const void *b) {
    const Draw *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->i < y->i ? -1 : 1;
}

void split_mark(bool *marked, const uint64_t *key, size_t n, double share) {
    Draw *draw = mem_array(n + 1, sizeof *draw);
    for (size_t i = 0; i < n; i++) draw[i] = (Draw){key[i], i};
    qsort(draw, n, sizeof *draw, by_key);
    size_t k = (size_t)((double)n * share);
    if (share > 0 && k == 0 && n > 1) k = 1;
    while (k < n && k > 0 && draw[k].key == draw[k - 1].key) k++;
    for (size_t i = 0; i < n; i++) marked[draw[i].i] = i < k;
    free(draw);
}

void split_make(Split *s, size_t n, double share, uint64_t seed) {
    enum { SPLIT_STREAM = 0x5917 }; /* keeps the draw apart from those of other uses of the seed */
    *s = (Split){.train = mem_array(n, sizeof(size_t)), .held = mem_array(n, sizeof(size_t))};
    uint64_t *key = mem_array(n, sizeof *key);
    bool *held = mem_array(n, sizeof *held);
    for (size_t i = 0; i < n; i++) key[i] = rng_u64(seed, SPLIT_STREAM, i);
    split_mark(held, key, n, share);
    for (size_t i = 0; i < n; i++) {
        if (held[i])
            s->held[s->nheld++] = i;
        else
            s->train[s->ntrain++] = i;
    }
    free(held);
    free(key);
}

void split_free(Split *s) {
    free(s->train);
    free(s->held);
    *s = (Split){0};
}
