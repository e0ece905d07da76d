/* grad_tree.h - the gradient of a step: the sum over its packs, in one fixed order.
 *
 * Pack p is leaf p of a binary tree. A node is the sum of its two children, and one whose right
 * child has no pack below it is its left child: absent leaves are skipped, never added as zeros,
 * which would turn -0 into +0. So the bits of a step are a function of its packs alone, however
 * many ranks work on them.
 *
 *   grad_tree_init(&t, params, most);
 *   per step, for each round of packs:  rank r runs the round's pack r into params->grad, which is
 *                                       zero; grad_tree_add(&t, n), or grad_tree_finish(&t, n)
 *                                       after the last
 *
 * A round has a pack for each rank, the last one perhaps fewer. Each rank adds up one part of the
 * gradients (comm_part): it gets the round's packs' share of it from all others, and adds them one
 * after the other. A binary counter walks the tree: level k, when occupied, holds the sum of 2^k
 * packs in a row. One rank is the same with one part. */
#ifndef SAILS_GRAD_TREE_H
#define SAILS_GRAD_TREE_H

#include "kernels/comm.h"
#include "model/params.h"

typedef struct GradTree {
    Params *params; /* borrowed; allocated with training */
    Comm *comm;     /* params->ex's */
    CommPart part;  /* of params->grad: what this rank adds up */
    Arena arena;
    float *level[32]; /* (part.n) each */
    float *round;     /* (ranks,part.n) what the ranks gave; NULL: params->grad is the only row */
    int levels;
    unsigned packs; /* added in this step */
} GradTree;

/* For steps of at most so many packs. */
void grad_tree_init(GradTree *t, Params *p, int most_packs);
void grad_tree_free(GradTree *t); /* accepts a zeroed tree */

/* Levels that steps of at most so many packs need: none for one, 1 + log2(packs - 1) for more. */
int grad_tree_levels(int most_packs);

/* Device bytes that grad_tree_init takes on one of so many ranks. */
size_t grad_tree_bytes(const Params *p, int ranks, int most_packs);

/* Takes params->grad of the ranks below `packs` (1 for one rank), and zeroes it on all. */
void grad_tree_add(GradTree *t, int packs);

/* Takes the last ones: params->grad is the sum then, on all ranks, and the tree is ready for the
 * next step. */
void grad_tree_finish(GradTree *t, int packs);

#endif
