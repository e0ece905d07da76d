/* reference.c - log-probabilities of the pairs that training will see, before it begins. */
#include "host/stage/reference.h"

#include "data/base/mem.h"
#include "data/batch.h"
#include "host/stage/nll.h"
#include "host/stage/preference.h"

/* The pairs that the steps see: all of them, or where the steps are fewer than an epoch's, those in
 * *index (mem_array). */
static Examples pairs_seen(const TrainSetup *t, size_t **index) {
    Examples seen = train_examples(t);
    *index = NULL;
    if (t->steps >= t->steps_per_epoch) return seen;
    bool *in_a_step = mem_array(t->n, sizeof *in_a_step);
    int *number = mem_array((size_t)t->batch, sizeof *number);
    for (int step = 0; step < t->steps; step++)
        for (int n = batch_docs(number, t->n, t->batch, t->seed, (size_t)step); n > 0; n--)
            in_a_step[number[n - 1]] = true;
    seen.index = *index = mem_array(t->n, sizeof **index);
    seen.n = 0;
    for (size_t i = 0; i < t->n; i++)
        if (in_a_step[i]) (*index)[seen.n++] = i;
    free(number), free(in_a_step);
    return seen;
}

/* Exchanges the masters with others, a piece at a time. Where ranks share them out rank 0 alone has
 * others, and hands them out. */
static void swap_masters(Params *p, float *other) {
    enum { PIECE = 1 << 20 };
    float *own = mem_array(PIECE, sizeof *own), *piece = mem_array(PIECE, sizeof *piece);
    for (size_t i = 0; i < p->size; i += PIECE) {
        size_t n = p->size - i < PIECE ? p->size - i : PIECE;
        params_get(p, PARAM_MASTER, i, n, own);
        if (other) memcpy(piece, other + i, n * sizeof *piece);
        if (p->ranks) comm_broadcast(p->ex->comm, "the reference", piece, n * sizeof *piece);
        params_set(p, PARAM_MASTER, i, n, piece);
        if (other) memcpy(other + i, own, n * sizeof *own);
    }
    params_sync(p);
    params_renew(p);
    free(piece), free(own);
}

/* Can a checkpoint put other masters in the place of the reference's? */
static bool may_change(const TrainSetup *t) {
    return t->reference_is_start && t->checkpoints && t->checkpoints->resume;
}

void reference_begin(Reference *r, const Model *m, const TrainSetup *t) {
    const Params *p = model_params(m);
    *r = (Reference){.train = mem_array(2 * t->n, sizeof *r->train),
                     .eval = mem_array(2 * t->neval, sizeof *r->eval)};
    CHECK(!t->index && !t->eval_index, "expected all pairs");
    if (!may_change(t)) return;
    if (!p->ranks || comm_root(p->ex->comm)) r->start = mem_array(p->size, sizeof *r->start);
    params_get(p, PARAM_MASTER, 0, p->size, r->start);
}

void reference_free(Reference *r) {
    free(r->train), free(r->eval), free(r->start);
    *r = (Reference){0};
}

bool reference_measure(Reference *r, Model *m, const TrainSetup *t, Err *err) {
    Lora *worn = m->lora;
    Params *trained = model_params(m);
    size_t *index;
    Examples seen = pairs_seen(t, &index), eval = train_eval_examples(t);
    NllHow how = {.pack_tokens = t->pack_tokens,
                  .progress = t->json || t->sink ? NULL : "reference",
                  .while_it = "while the reference was measured",
                  .again = t->checkpoints ? t->checkpoints->kept.again : NULL};
    if (may_change(t)) swap_masters(trained, r->start);
    if (!t->reference_is_start) m->lora = NULL;
    bool ok = (seen.n == 0 || preference_logp(r->train, NULL, m, &seen, &how, err)) &&
              (eval.n == 0 || preference_logp(r->eval, NULL, m, &eval, &how, err));
    m->lora = worn;
    if (may_change(t)) swap_masters(trained, r->start);
    free(r->start), r->start = NULL;
    free(index);
    return ok;
}

/* ------------------------------------------------------------------------------- the plan -- */

size_t reference_bytes(const TrainSetup *t) {
    return 2 * (t->n + t->neval) * sizeof(double);
}

size_t reference_start_bytes(const TrainSetup *t, const Params *p) {
    return may_change(t) ? p->size * sizeof(float) : 0;
}

PackSize reference_pack_size(const TrainSetup *t) {
    size_t *index;
    Examples seen = pairs_seen(t, &index), eval = train_eval_examples(t);
    PackSize most =
        pack_size_most(nll_pack_size(&seen, t->pack_tokens), nll_pack_size(&eval, t->pack_tokens));
    free(index);
    return most;
}
