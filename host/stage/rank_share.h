/* rank_share.h - how well the packs of a training run fill its ranks.
 *
 * A step of P packs takes ceil(P / N) rounds on N ranks, in the last of which some may have nothing
 * to do. Over all steps the share of the ranks' time that is used is
 *   sum P / (N sum ceil(P / N)). */
#ifndef SAILS_RANK_SHARE_H
#define SAILS_RANK_SHARE_H

#include <stdio.h>

#include <jansson.h>

#include "host/stage/train.h"

typedef struct RankShare {
    double packs; /* of a step, on average */
    int most;     /* of any step */
    double used;  /* share of the ranks' time */
} RankShare;
RankShare rank_share(const TrainSetup *t, int ranks);

/* For people: the share, and where it is below nine tenths what would raise it: smaller packs, or
 * larger batches. And the same for machines. */
void rank_share_print(FILE *f, const TrainSetup *t, int ranks);
json_t *rank_share_json(const TrainSetup *t, int ranks);

#endif
