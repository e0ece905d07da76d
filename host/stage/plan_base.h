/* plan_base.h - what the plan of every stage begins with and is put together from; private to
 * plan*.c, defined in plan.c. */
#ifndef SAILS_PLAN_BASE_H
#define SAILS_PLAN_BASE_H

#include "host/stage/plan.h"
#include "model/full.h"
#include "model/gemma2.h"

typedef struct Base {
    Config c;
    Exec cpu; /* for what only measures */
    Lora lora;
    double bases;       /* host bytes of the subspace that the adapters start from */
    Full full;          /* where all weights are trained; then there is no lora */
    Exec *ex;           /* that will run the stage, borrowed */
    enum PlanKind kind; /* of what its ops work in */
} Base;
bool plan_base_open(Plan *p, Base *b, const Settings *s, Exec *ex, bool training, Err *err);
void plan_base_close(Base *b);

static inline const Lora *plan_lora(const Base *b) {
    return b->lora.params.n ? &b->lora : NULL;
}

void plan_add(Plan *p, const char *name, enum PlanKind kind, double bytes);
void plan_add_root(Plan *p, const char *name, enum PlanKind kind, double bytes); /* rank 0 alone */

/* layers < c->L: the lower layers alone, without the head; then the embedding counts by the tokens
 * of d. */
bool plan_weights(Plan *p, const Base *b, const char *folder, int positions, int layers,
                  const Dataset *d, Err *err);
void plan_adapter(Plan *p, const Base *b, bool training);

/* Workspace, of which one op of the stage needs `need` bytes, if not the table that every model
 * begins with. */
void plan_workspace(Plan *p, const Base *b, size_t need);

/* Without a window, which could only make an op need less. */
AttnShape plan_attention(const Base *b);

/* Products of `rows` rows at a layer's widest; in training those that make gradients of adapters,
 * too, for at most all ranks of a layer together. */
size_t plan_products_scratch(const Base *b, int rows, bool training);

/* Products of `rows` rows that make gradients of projections' weights. */
size_t plan_weight_grads_scratch(const Base *b, int rows);

/* The adapter's start, which is over when the steps get their `later` bytes: the subspace, what is
 * allocated to make it, if it is still to come, and the start; of starts that ask the first batch
 * its gradients or moments, in packs of at most most_rows, those of the steps of `rows`. Returns
 * the workspace. (plan_start.c) */
size_t plan_start(Plan *p, const Base *b, const Settings *s, int rows, int most_rows, double later);

static inline size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

#endif
