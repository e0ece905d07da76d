/* corpora.c - documents of two corpora, and which of their tokens count. */
#include "host/stage/corpora.h"

#include <string.h>

#include "data/base/mem.h"
#include "host/stage/same_input.h"

/* --------------------------------------------------------------------- which tokens count -- */

Markers markers_of(const Runtime *r) {
    const Tokenizer *t = r->tokenizer;
    const Config *c = &r->model.c;
    return (Markers){c->bos,
                     tokenizer_id(t, "<eos>"),
                     c->pad,
                     tokenizer_id(t, "<start_of_turn>"),
                     tokenizer_id(t, "<end_of_turn>"),
                     tokenizer_id(t, "\n")};
}

/* The headers are <start_of_turn>ROLE\n, the ends <end_of_turn>\n. */
void markers_count(uint8_t *counted, const Doc *d, const Markers *m) {
    for (int t = 0; t < d->n; t++) {
        int32_t id = d->token[t];
        counted[t] = id != m->bos && id != m->eos && id != m->pad && id != m->end && id != m->start;
        if (id == m->end && t + 1 < d->n && d->token[t + 1] == m->newline) counted[++t] = 0;
        if (id != m->start) continue;
        while (t + 1 < d->n && d->token[t] != m->newline) counted[++t] = 0;
    }
}

static uint8_t *counted_tokens(const Doc *d, int which, const Markers *m) {
    uint8_t *counted = mem_array((size_t)d->n, 1);
    markers_count(counted, d, m);
    if (which == COUNT_ALL) return counted;
    /* Markers stand in a reply when it came as tokens, or spells them out. */
    for (int t = 0; t < d->n; t++) counted[t] = counted[t] && d->reply[t];
    int last = d->n - 1;
    while (last > 0 && !counted[last]) last--;
    if (which == COUNT_LAST) memset(counted, 0, (size_t)last);
    return counted;
}

/* --------------------------------------------------------------------------- the documents -- */

static bool read_files(Corpora *c, Err *err) {
    const Settings *s = c->s;
    const char *const path[2] = {s->score.aligned, s->score.unaligned};
    for (int k = 0; k < 2; k++) {
        if (!records_read(&c->file[k], path[k], (size_t)s->data.limit, err)) return false;
        c->n += c->file[k].n;
    }
    return true;
}

/* Not as tokens: each rank makes those of its own items alone. */
static bool same_items(const Corpora *c, Comm *comm, Err *err) {
    const Records *f = c->file;
    if (c->pair)
        return same_records(comm, "what was read as data", c->pair->record, c->index, c->n, err);
    return same_records(comm, "what was read as aligned", f[0].record, NULL, f[0].n, err) &&
           same_records(comm, "what was read as unaligned", f[1].record, NULL, f[1].n, err);
}

bool corpora_open(Corpora *c, const Runtime *r, const Settings *s, const Records *records,
                  const size_t *index, size_t n, Err *err) {
    *c = (Corpora){.pair = records,
                   .index = index,
                   .n = records ? n : 0,
                   .s = s,
                   .tokenizer = r->tokenizer,
                   .markers = markers_of(r)};
    if ((records || read_files(c, err)) && same_items(c, r->ex.comm, err)) return true;
    corpora_close(c);
    return false;
}

void corpora_close(Corpora *c) {
    for (int k = 0; k < 2; k++) records_free(&c->file[k]);
    *c = (Corpora){0};
}

size_t corpora_documents(const Corpora *c, int corpus, size_t *first) {
    *first = !c->pair && corpus ? c->file[0].n : 0;
    return c->pair ? c->n : c->file[corpus].n;
}

static bool read_pair(CorporaItem *item, const Corpora *c, const Record *r, Err *err) {
    int shared;
    Doc *doc = item->doc;
    return doc_pair(&doc[0], &doc[1], &shared, c->tokenizer, r, c->s->data.max_length, err) ||
           err_prefix(err, "%s", c->s->data.path);
}

static bool read_alone(CorporaItem *item, const Corpora *c, size_t i, Err *err) {
    int k = i >= c->file[0].n;
    const Record *r = &c->file[k].record[k ? i - c->file[0].n : i];
    return doc_from_record(&item->doc[k], c->tokenizer, r, c->s->data.max_length, err) ||
           err_prefix(err, "%s", k ? c->s->score.unaligned : c->s->score.aligned);
}

bool corpora_item(CorporaItem *item, const Corpora *c, size_t i, Err *err) {
    *item = (CorporaItem){0};
    bool ok = c->pair ? read_pair(item, c, &c->pair->record[c->index ? c->index[i] : i], err)
                      : read_alone(item, c, i, err);
    for (int k = 0; ok && k < 2; k++)
        if (item->doc[k].n)
            item->counted[k] = counted_tokens(&item->doc[k], c->s->score.tokens, &c->markers);
    if (!ok) corpora_item_free(item);
    return ok;
}

PairItem corpora_pair(const CorporaItem *item) {
    PairItem pair = {0};
    for (int k = 0; k < 2; k++)
        if (item->doc[k].n) {
            pair.token[k] = item->doc[k].token;
            pair.counted[k] = item->counted[k];
            pair.n[k] = item->doc[k].n;
        }
    return pair;
}

void corpora_item_free(CorporaItem *item) {
    for (int k = 0; k < 2; k++) {
        doc_free(&item->doc[k]);
        free(item->counted[k]);
    }
    *item = (CorporaItem){0};
}
