/* grad_tree.h - the gradient of a step: the sum over its packs, in one fixed order.
 *
 * Pack p is leaf p of a binary tree. A node is the sum of its two children, and one whose right
 * child has no pack below it is its left child: absent leaves are skipped, never added as zeros,
 * which would turn -0 into +0. So the bits of a step are a function of its packs alone, and packs
 * can be shared out among ranks in any way that adds along the same tree.
 *
 *   grad_tree_init(&t, params, most);
 *   per step, for each of its packs:  the pack's gradients into params->grad, which is zero;
 *                                     grad_tree_add(&t), or grad_tree_finish(&t) after the last
 *
 * A binary counter walks the tree: level k, when occupied, holds the sum of 2^k packs in a row. */
#ifndef SAILS_GRAD_TREE_H
#define SAILS_GRAD_TREE_H

#include "model/params.h"

typedef struct GradTree {
    Params *params; /* borrowed; allocated with training */
    Arena arena;
    float *level[32]; /* each as large as params->grad */
    int levels;
    unsigned packs; /* added in this step */
} GradTree;

/* For steps of at most so many packs. */
void grad_tree_init(GradTree *t, Params *p, int most_packs);
void grad_tree_free(GradTree *t); /* accepts a zeroed tree */

/* Levels that steps of at most so many packs need: none for one, 1 + log2(packs - 1) for more. */
int grad_tree_levels(int most_packs);

void grad_tree_add(GradTree *t); /* takes params->grad and zeroes it */

/* Takes the last pack: params->grad is the sum then, and the tree is ready for the next step. */
void grad_tree_finish(GradTree *t);

#endif
