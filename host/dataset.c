#include "host/dataset.h"

#include "host/base/mem.h"
#include "host/interrupt.h"

static bool render(Doc *doc, Tokenizer *t, const Record *r, enum Side side, int max_length,
                   Err *err) {
    if (r->form == RECORD_PAIR && side == SIDE_REJECTED) {
        if (!chat_render(doc, t, &r->rejected, false, max_length, err)) return false;
        doc->record = r;
        return true;
    }
    return doc_from_record(doc, t, r, max_length, err);
}

static void count(Dataset *d, const Doc *doc) {
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
            err_prefix(err, "%s: line %zu", path, r->line);
            break;
        }
        d->n = i + 1;
        count(d, &d->doc[i]);
    }
    if (!ok) dataset_free(d);
    return ok;
}

void dataset_free(Dataset *d) {
    for (size_t i = 0; i < d->n; i++) doc_free(&d->doc[i]);
    free(d->doc);
    records_free(&d->records);
    memset(d, 0, sizeof *d);
}
