/* grid.h - the runs behind a row of the table: each method with each learning rate, from each seed;
 * private to align*.c.
 *
 * Where there are several rates, a share of the prompts is put aside: on their replies the rate is
 * chosen, and the table is of the other prompts. A seed stands for all that is random in training
 * (the subspace's random columns and features, the adapter, the order of the documents); data and
 * prompts are split, landmarks drawn, and bases of eva and salora made, by the run's own. */
#ifndef SAILS_GRID_H
#define SAILS_GRID_H

#include <jansson.h>

#include "host/align/align_stages.h"

/* Reads train.rates and train.seeds; without rates there are none. Refused: a rate that is no
 * number, out of train.lr's range, or there twice; seeds beyond what `seed` may be. */
bool grid_read(Grid *g, const Settings *s, Err *err);
void grid_free(Grid *g); /* accepts a zeroed struct */

/* The rates and seeds of a method: one of each where nothing is trained. */
int grid_rates(const Grid *g, const Method *m);
int grid_seeds(const Grid *g, const Method *m);

/* The subspaces of a method that starts in one: one for each seed, or one for all of them, where it
 * does not depend on the seed (subspace_of_any_seed). */
int grid_subspaces(const Grid *g, const Method *m);

/* Is a rate to be chosen, on prompts that are put aside? */
static inline bool grid_chooses(const Grid *g) {
    return g->nrate > 1;
}

/* The run of a method with rate number `rate`, from seed number `seed`. It is called as the method
 * where there is one, else "sails.0.0002.seed1", and its subspace "sails.seed1", or "eva", the one
 * of all seeds; its replies to the validation prompts have that word behind the name. */
Cell grid_cell(const Grid *g, const Method *m, int rate, int seed, enum PromptPart part);

/* The rate whose replies to the validation prompts are best: with the highest mean over the seeds
 * of safety rate less over-refusal; of equals the lowest. score (rates x seeds): of each run. */
int grid_best(const Grid *g, const double *score, int seeds);

#endif
