/* align_explain.c - the stages of align that explain what the others have made: cards of the
 * features, and of every row of the table what of its adapter lies in the subspace and what its
 * model does without it.
 *
 *   explain/features.json           cards.h
 *   explain/energy/NAME.json        energy.h, of adapters
 *   explain/causal/NAME.json        causal.h
 *
 * The subspace is the row's own, where that is one of the stream, else that of the first row that
 * has one. Harmless text is data.text; where none is given, what the base model answers harmless
 * prompts; without a row base, or usable replies, what is held out. */
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/align/grid.h"
#include "host/align/staging.h"
#include "host/stage/cards.h"
#include "host/stage/causal.h"
#include "host/stage/energy.h"
#include "host/stage/labels.h"

static bool asks(const Align *w, const char *part) {
    char item[SETTING_KEY];
    for (int i = 0; i < list_count(w->s->explain.parts); i++)
        if (list_item(w->s->explain.parts, i, item, sizeof item) && strcmp(item, part) == 0)
            return true;
    return false;
}

/* ------------------------------------------------------------------------------ documents -- */

typedef struct ExplainDocs {
    Corpora corpora;
    Looked docs;
} ExplainDocs;

static bool open_docs(ExplainDocs *d, Align *w, Err *err) {
    const Records *records = *w->s->score.aligned ? NULL : &w->data.records;
    *d = (ExplainDocs){0};
    return corpora_open(&d->corpora, &w->r, w->s, records, w->split.train, w->split.ntrain, err) &&
           looked_read(&d->docs, &w->r, w->s, &d->corpora, align_prompts(w, PART_TEST), err);
}

static void close_docs(ExplainDocs *d) {
    looked_free(&d->docs);
    corpora_close(&d->corpora);
}

/* What decides which documents these are. */
static bool key_docs(Align *w, Stage *st, Err *err) {
    const Settings *s = w->s;
    stage_setting(st, s, "seed");
    stage_setting(st, s, "explain.documents");
    stage_setting(st, s, "generate.limit");
    stage_setting(st, s, "generate.suite");
    stage_setting(st, s, "generate.benign-suite");
    stage_setting(st, s, "score.tokens");
    align_key_part(w, st, PART_TEST);
    return staging_model(w, st, err) && align_key_scored(w, st, err) &&
           stage_input(st, &w->run, "prompts", s->generate.prompts, err) &&
           (!*s->generate.benign || stage_file(st, &w->run, "benign", s->generate.benign, err));
}

static bool write_part(Align *w, const char *name, const json_t *part, Err *err) {
    char *path = run_path(&w->run, name);
    bool ok = files_write_json(path, part, err);
    free(path);
    return ok;
}

/* ------------------------------------------------------------------------------- features -- */

static bool make_features(Align *w, const char *to, Err *err) {
    ExplainDocs d = {0};
    Scores scores = {0};
    SaeSet saes = {0};
    json_t *cards = NULL;
    bool root = comm_root(w->r.ex.comm);
    char *path = run_path(&w->run, "scores.safetensors");
    bool ok = align_base(w, err) && scores_load(&scores, path, err) &&
              saes_open(&saes, &w->r.ex, w->s, &w->layers, w->r.model.c.D, err) &&
              open_docs(&d, w, err) &&
              cards_make(&cards, &w->r, &scores, &saes, &d.docs, w->s, err) &&
              agree_root(w->r.ex.comm, !root || write_part(w, to, cards, err), err);
    json_decref(cards);
    close_docs(&d);
    saes_close(&saes);
    scores_free(&scores);
    free(path);
    return ok;
}

static bool key_labels(Align *w, Stage *st, Err *err) {
    const char *pattern = w->s->explain.labels;
    bool ok = true;
    for (int i = 0; *pattern && i < w->layers.n && ok; i++) {
        char role[32], *path = labels_path(pattern, w->layers.layer[i]);
        snprintf(role, sizeof role, "labels/%d", w->layers.layer[i]);
        ok = stage_file(st, &w->run, role, path, err);
        free(path);
    }
    return ok;
}

static bool explain_features(Align *w, Err *err) {
    Stage st;
    staging_open(w, &st, "explain-features", NULL);
    stage_setting(&st, w->s, "explain.window");
    stage_setting(&st, w->s, "subspace.by");
    stage_setting(&st, w->s, "subspace.top-k");
    const char *const *out = OUTPUTS("explain/features.json");
    bool kept = false;
    bool ok = key_docs(w, &st, err) && staging_output(w, &st, "scores.safetensors", err) &&
              key_labels(w, &st, err) && staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept) ok = make_features(w, out[0], err) && staging_finish(w, &st, out, NULL, err);
    stage_free(&st);
    return ok;
}

/* --------------------------------------------------------------------------------- energy -- */

static bool load_subspace(Subspace *s, Align *w, const char *name, Err *err) {
    char file[160], *path = run_path(&w->run, staging_named(file, SUBSPACE_FILE, name));
    bool ok = subspace_load(s, path, err);
    free(path);
    return ok;
}

static bool make_energy(Align *w, const Cell *c, const char *subspace, const char *to, Err *err) {
    Subspace s = {0};
    json_t *energy = NULL;
    bool root = comm_root(w->r.ex.comm);
    bool ok = align_wear(w, c, err) && load_subspace(&s, w, subspace, err) &&
              agree_root(w->r.ex.comm,
                         !root || (energy_make(&energy, &w->r.lora, &s, err) &&
                                   write_part(w, to, energy, err)),
                         err);
    json_decref(energy);
    subspace_free(&s);
    return ok;
}

static bool key_subspace(Align *w, Stage *st, const char *subspace, Err *err) {
    char file[160];
    return staging_output(w, st, staging_named(file, SUBSPACE_FILE, subspace), err);
}

static bool explain_energy(Align *w, const Cell *c, const char *subspace, Err *err) {
    Stage st;
    char name[160];
    staging_open(w, &st, "energy", c->name);
    staging_factorisations(&st);
    const char *const *out = OUTPUTS(staging_named(name, "explain/energy/%s.json", c->name));
    bool kept = false;
    bool ok = staging_model(w, &st, err) && align_key_trained(w, &st, c, err) &&
              key_subspace(w, &st, subspace, err) &&
              staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept)
        ok = make_energy(w, c, subspace, out[0], err) && staging_finish(w, &st, out, NULL, err);
    stage_free(&st);
    return ok;
}

/* --------------------------------------------------------------------------------- causal -- */

/* The row of the table whose replies are the base model's; NULL: there is none. */
static const Cell *base_of(const Cell *cell, int n) {
    for (int i = 0; i < n; i++)
        if (!method_trains(cell[i].method)) return &cell[i];
    return NULL;
}

/* data.text, or what is held out. */
static size_t *run_text(Examples *text, const Align *w) {
    if (*w->s->data.text) return causal_text(text, w->text.doc, NULL, w->text.n, w->s);
    return causal_text(text, w->data.doc, w->split.held, w->split.nheld, w->s);
}

/* The base model's replies to harmless prompts, which are read into `own`. */
static size_t *base_text(Examples *text, const Dataset *own, const Settings *s) {
    size_t n = 0, *benign = mem_array(own->n, sizeof *benign);
    for (size_t i = 0; i < own->n; i++)
        if (strncmp(own->doc[i].record->category, PROMPTS_BENIGN, strlen(PROMPTS_BENIGN)) == 0)
            benign[n++] = i;
    size_t *index = causal_text(text, own->doc, benign, n, s);
    free(benign);
    return index;
}

/* The harmless text, as documents. Replies that are all empty, or that no reader of data takes, are
 * none. */
static bool open_text(Examples *text, size_t **index, Dataset *own, Align *w, const Cell *base,
                      Err *err) {
    const Settings *s = w->s;
    char name[160];
    bool replies = !*s->data.text && base;
    if (replies) {
        char *path = run_path(&w->run, staging_named(name, "responses/%s.jsonl", base->replies));
        replies = dataset_load_training(own, w->r.tokenizer, path, SIDE_CHOSEN, s->data.max_length,
                                        0, err);
        free(path);
        if (!replies && err->code != EXIT_INPUT) return false;
    }
    *index = replies ? base_text(text, own, s) : run_text(text, w);
    return true;
}

static bool make_causal(Align *w, const Cell *c, const Cell *base, const char *subspace,
                        const char *to, Err *err) {
    ExplainDocs d = {0};
    Subspace s = {0};
    Dataset own = {0};
    Examples text = {0};
    size_t *index = NULL;
    json_t *causal = NULL;
    bool root = comm_root(w->r.ex.comm);
    char left[160], *adapter = run_path(&w->run, align_left(left, c));
    const CausalOf of = {.name = c->name,
                         .adapter = c->method->start ? adapter : NULL,
                         .base = !method_trains(c->method),
                         .subspace = &s,
                         .docs = &d.docs,
                         .harmful = &align_prompts(w, PART_TEST)->file[0],
                         .text = &text};
    bool ok = align_wear(w, c, err) && load_subspace(&s, w, subspace, err) &&
              open_docs(&d, w, err) && open_text(&text, &index, &own, w, base, err) &&
              causal_make(&causal, &w->r, &of, w->s, err);
    if (ok && root && of.adapter) json_object_set_new(causal, "adapter", json_string(left));
    ok = ok && agree_root(w->r.ex.comm, !root || write_part(w, to, causal, err), err);
    json_decref(causal);
    free(index), free(adapter);
    dataset_free(&own);
    close_docs(&d);
    subspace_free(&s);
    return ok;
}

static bool key_text(Align *w, Stage *st, const Cell *base, Err *err) {
    char name[160];
    if (*w->s->data.text) return stage_file(st, &w->run, "text", w->s->data.text, err);
    return !base ||
           staging_output(w, st, staging_named(name, "responses/%s.jsonl", base->replies), err);
}

static bool explain_causal(Align *w, const Cell *c, const Cell *base, const char *subspace,
                           Err *err) {
    Stage st;
    char name[160];
    staging_open(w, &st, "causal", c->name);
    stage_setting(&st, w->s, "explain.refusals");
    stage_setting(&st, w->s, "explain.draws");
    const char *const *out = OUTPUTS(staging_named(name, "explain/causal/%s.json", c->name));
    bool kept = false;
    bool ok = key_docs(w, &st, err) && align_key_trained(w, &st, c, err) &&
              key_subspace(w, &st, subspace, err) && key_text(w, &st, base, err) &&
              staging_begin(w, &st, out, NEEDS_MODEL, &kept, err);
    if (ok && !kept)
        ok = make_causal(w, c, base, subspace, out[0], err) &&
             staging_finish(w, &st, out, NULL, err);
    stage_free(&st);
    return ok;
}

/* ---------------------------------------------------------------------------------- all -- */

/* Does the row start in a subspace of the stream? */
static bool has_subspace(const Cell *c) {
    if (!c->method->start) return false;
    enum SubspaceSource from = subspace_source(c->method->start->subspace);
    return from == SOURCE_SCORES || from == SOURCE_MOMENTS;
}

/* The name of the subspace that a row is held against; NULL: there is none. */
static const char *subspace_of_row(const Cell *c, const Cell *cell, int n) {
    if (has_subspace(c)) return c->subspace;
    for (int i = 0; i < n; i++)
        if (has_subspace(&cell[i])) return cell[i].subspace;
    return NULL;
}

bool align_explain(Align *w, const Cell *cell, int n, Err *err) {
    const Cell *base = base_of(cell, n);
    bool text = *w->s->data.text || base || w->s->data.heldout > 0;
    bool causal = asks(w, "causal") && *w->s->generate.benign && text;
    if (w->methods.scores && asks(w, "features") && !explain_features(w, err)) return false;
    for (int i = 0; i < n; i++) {
        const char *subspace = subspace_of_row(&cell[i], cell, n);
        if (!subspace) continue;
        if (cell[i].method->start && asks(w, "energy") &&
            !explain_energy(w, &cell[i], subspace, err))
            return false;
        if (causal && !explain_causal(w, &cell[i], base, subspace, err)) return false;
    }
    return true;
}
