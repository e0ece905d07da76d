/* staging.c - what every stage of align does. */
#include "host/align/staging.h"

#include <stdio.h>
#include <unistd.h>

#include "data/base/interrupt.h"
#include "host/cli/print.h"
#include "host/stage/wish.h"
#include "kernels/lapack.h"

const char *staging_named(char path[160], const char *format, const char *run) {
    snprintf(path, 160, format, run);
    return path;
}

void staging_open(Align *w, Stage *st, const char *name, const char *run) {
    char full[STAGE_NAME];
    snprintf(full, sizeof full, "%s%s%s", name, run ? "-" : "", run ? run : "");
    stage_begin(st, &w->run, full);
    stage_text(st, "device", w->r.ex.op->name);
}

void staging_factorisations(Stage *st) {
    stage_text(st, "openblas", openblas_get_config());
}

bool align_begin_run(Align *w, Err *err) {
    const char *const folders[] = {
        "subspaces", "adapters",       "responses",      "eval",
        "explain",   "explain/energy", "explain/causal", w->methods.models ? "models" : NULL,
        NULL};
    return run_begin(&w->run, folders, err);
}

/* -------------------------------------------------------------------------------- keys -- */

bool staging_model(Align *w, Stage *st, Err *err) {
    const Settings *s = w->s;
    char *tokenizer = runtime_tokenizer_file(s);
    bool ok = stage_model(st, &w->run, s->model.path, err) &&
              stage_file(st, &w->run, "tokenizer", tokenizer, err);
    free(tokenizer);
    return ok;
}

bool staging_data(Align *w, Stage *st, Err *err) {
    stage_section(st, w->s, "data", KEYS("data.side")); /* it is the chosen one */
    stage_setting(st, w->s, "seed");
    stage_text(st, "data.text", *w->s->data.text ? "given" : "");
    return stage_file(st, &w->run, "data", w->s->data.path, err);
}

bool staging_output(Align *w, Stage *st, const char *name, Err *err) {
    char *path = run_path(&w->run, name);
    bool ok = stage_file(st, &w->run, name, path, err);
    free(path);
    return ok;
}

void staging_seed(Stage *st, const char *key, int seed) {
    char text[32];
    snprintf(text, sizeof text, "%d", seed);
    stage_text(st, key, text);
}

/* -------------------------------------------------------------------------- begin and end -- */

/* One line of progress: what was done or kept. */
static void say(const Align *w, const Stage *st, bool kept) {
    if (w->s->run.json) return;
    char took[PRINT_ROOM];
    if (kept)
        printf("%-36s kept\n", st->name);
    else
        printf("%-36s %s\n", st->name, print_seconds(took, clock_seconds() - st->start));
    fflush(stdout);
}

bool staging_begin(Align *w, Stage *st, const char *const *outputs, enum Needs needs, bool *kept,
                   Err *err) {
    comm_phase(w->r.ex.comm, "between stages", 0, 3 * RANKS_APART); /* rank 0 hashes and writes */
    Wish wish = wish_share(w->r.ex.comm, (Wish){.signal = interrupt_requested()});
    if (wish.signal) return wish_stop(&wish, "between two stages", "the same command", err);
    *kept = stage_done(st, &w->run, outputs);
    comm_broadcast(w->r.ex.comm, "is the stage done", kept, sizeof *kept);
    if (*kept) say(w, st, true);
    return *kept ||
           ((needs == NEEDS_NOTHING || align_need_model(w, err)) && align_begin_run(w, err));
}

bool staging_finish(Align *w, Stage *st, const char *const *outputs, json_t *result, Err *err) {
    bool ok = stage_finish(st, &w->run, outputs, result, err);
    if (ok) say(w, st, false);
    return ok;
}

bool staging_keep_begin(Keeping *k, Align *w, const Stage *st, Err *err) {
    char name[STAGE_NAME + 16];
    snprintf(name, sizeof name, "unfinished/%s", st->name);
    *k = (Keeping){.folder = run_path(&w->run, name), .run = st->key, .again = "the same command"};
    return !comm_root(w->r.ex.comm) || keeping_maker(&k->maker, &w->r.ex, err);
}

void staging_keep_end(Keeping *k, Align *w, bool done) {
    char *all = run_path(&w->run, "unfinished");
    if (done) keeping_done(k, &w->r.ex);
    if (done) rmdir(all); /* the last one is done */
    free(all);
    json_decref(k->maker);
    free((char *)k->folder);
}
