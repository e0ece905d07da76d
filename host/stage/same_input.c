/* same_input.c - digests of what was read, compared. */
#include "host/stage/same_input.h"

#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "host/stage/agree.h"

static size_t at(const size_t *index, size_t i) {
    return index ? index[i] : i;
}

bool same_docs(Comm *c, const char *what, const Examples *e, Err *err) {
    Agreement a;
    size_t docs = (size_t)examples_docs(e);
    agreement_begin(&a, c);
    for (size_t i = 0; i < e->n * docs; i++) {
        const Doc *d = &e->doc[example_first(e, i / docs) + i % docs];
        agreement_add(&a, d->token, (size_t)d->n * sizeof *d->token);
        agreement_add(&a, d->label, (size_t)d->n);
    }
    return agreement_end(&a, what, EXIT_INPUT, err);
}

static void add_chat(Agreement *a, const Chat *c) {
    agreement_add(a, &c->n, sizeof c->n);
    for (const Turn *t = c->turn; t < c->turn + c->n; t++) {
        agreement_add(a, &t->role, sizeof t->role);
        agreement_add(a, t->text, t->len);
    }
}

bool same_records(Comm *c, const char *what, const Record *record, const size_t *index, size_t n,
                  Err *err) {
    Agreement a;
    agreement_begin(&a, c);
    for (size_t i = 0; i < n; i++) {
        const Record *r = &record[at(index, i)];
        agreement_add(&a, &r->form, sizeof r->form);
        add_chat(&a, &r->chat);
        add_chat(&a, &r->rejected);
        agreement_add(&a, r->text, r->text_len);
        agreement_add(&a, r->token, r->ntoken * sizeof *r->token);
        agreement_add(&a, r->label, r->label ? r->ntoken : 0);
    }
    return agreement_end(&a, what, EXIT_INPUT, err);
}

bool same_file(Comm *c, const char *what, const char *path, Err *err) {
    char hex[65];
    return !c ||
           (files_sha256(hex, path, err) && agree_same(c, what, hex, sizeof hex, EXIT_INPUT, err));
}

bool same_key(Comm *c, const char *what, const json_t *key, Err *err) {
    char *text = json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS);
    CHECK(text, "a JSON value could not be written");
    bool ok = agree_same(c, what, text, strlen(text), EXIT_INPUT, err);
    free(text);
    return ok;
}

/* What it says to the model; how it says so does not matter. */
static bool same_config(Comm *comm, const char *folder, Err *err) {
    Config c;
    Agreement a;
    if (!config_load(&c, folder, err)) return false;
    const int whole[] = {c.L,   c.D,  c.F, c.V, c.H, c.K, c.E, c.window, c.max_positions,
                         c.bos, c.pad};
    const double real[] = {c.eps, c.rope_theta, c.query_scale, c.attn_cap, c.final_cap};
    agreement_begin(&a, comm);
    agreement_add(&a, whole, sizeof whole);
    agreement_add(&a, real, sizeof real);
    agreement_add(&a, c.sliding, (size_t)c.L * sizeof *c.sliding);
    agreement_add(&a, c.eos, (size_t)c.neos * sizeof *c.eos);
    config_free(&c);
    return agreement_end(&a, "the model's configuration", EXIT_INPUT, err);
}

bool same_model(const Model *m, const char *folder, Err *err) {
    Comm *c = m->ex->comm;
    unsigned char digest[32];
    if (!c) return true;
    if (!same_config(c, folder, err)) return false;
    model_sample(m, digest);
    return agree_same(c, "a sample of the model's weights", digest, sizeof digest, EXIT_INPUT, err);
}
