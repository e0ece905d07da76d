/* plan.h - the memory that a stage will need, by class, before anything large is allocated.
 *
 * What is small and would be guesswork is measured: the program with its libraries, the tokenizer
 * and the data are opened in earnest. What is large is computed by the code that will allocate it,
 * in a pass that only measures. Two kinds are kept apart, because a process that needs more
 * anonymous memory than there is dies, while mapped file pages can be read again:
 *
 *   anonymous   activations, adapters, optimiser, converted weights, tokenizer, data ...
 *   file        mapped weights that will be touched, code of program and libraries
 *
 * On a GPU weights, adapters and activations are a third kind, `device`: what they need is held
 * against the memory that the card has left. So is the code that it loads when an op is first
 * called, by a bound and by an estimate, which the items' names say. The file's pages are let go of
 * as they are read. */
#ifndef SAILS_PLAN_H
#define SAILS_PLAN_H

#include "host/stage/dataset.h"
#include "host/cli/settings.h"
#include "model/config.h"
#include "model/generate.h"

enum PlanKind { PLAN_ANONYMOUS, PLAN_FILE, PLAN_DEVICE, PLAN_KINDS };
extern const char *const plan_kind_name[PLAN_KINDS];
enum { PLAN_ITEMS = 28 };

typedef struct PlanItem {
    const char *name; /* static */
    enum PlanKind kind;
    double bytes;
    bool root; /* rank 0 alone needs it */
} PlanItem;

/* Zero-initialise. */
typedef struct Plan {
    PlanItem item[PLAN_ITEMS];
    int n;
    bool keeps_all;      /* a training that --recompute would make smaller */
    const Dataset *eval; /* borrowed: on which plan_train's run measures its loss; NULL: none */
    double seen[PLAN_DEVICE]; /* of this process by kind, at the last plan_measured */
} Plan;

/* Adds what this process has grown by since the last call; the first time all that it has. */
void plan_measured(Plan *p, const char *name);

/* What a stage adds to a process that has its inputs open already: weights, adapters, activations,
 * workspace. Only file headers are read. `ex` is the device that will run it. */
bool plan_train(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);
bool plan_logprob(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);
bool plan_score(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);
bool plan_inputs(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);
bool plan_moments(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err);
bool plan_generate(Plan *p, const Settings *s, Exec *ex, const GenOptions *o, Err *err);

/* The model's, or that of --shape where there is none. */
bool plan_config(Config *c, const Settings *s, Err *err);

/* Of the job, or those that a plan is made for, which are taken to be on machines of eight. */
enum { PLAN_MACHINE = 8 };
int plan_ranks(const Settings *s, const Exec *ex);

double plan_total(const Plan *p, enum PlanKind kind); /* of rank 0 */

/* EXIT_MEMORY when the anonymous memory that this machine's ranks need together is more than it, or
 * the container, has left, or the device's memory of this one more than ex has. Of a card that is
 * not here (planned_card.h) that one alone: neither is its machine. */
bool plan_fits(const Plan *p, Exec *ex, Err *err);

#endif
