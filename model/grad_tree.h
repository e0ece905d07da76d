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
 * packs in a row. One rank is the same with one part.
 *
 * Where ranks share the tensors out (params.h), each adds up its parts of every section, which are
 * then all that it has of the sum. Of 2^j ranks a round is a subtree: its packs are added first,
 * and the counter counts rounds, so that it needs no levels for what a round has. A section is on
 * its way as soon as backward is through with it:
 *
 *   for each round of packs:  grad_tree_round(&t, n, last);  on ranks below n a backward pass that
 *                             calls grad_tree_give;  grad_tree_add or grad_tree_finish
 *
 * On several machines the ranks of one are added first, where they are 2^j ranks in a row and so a
 * subtree: the counter then counts machines, and what crosses the network is a 2^j-th. A device
 * that moves bytes behind its work's back (comm.h) does so behind the next pack's. */
#ifndef SAILS_GRAD_TREE_H
#define SAILS_GRAD_TREE_H

#include "kernels/comm.h"
#include "model/params.h"

/* Elements of which each rank of a group adds up one part. */
typedef struct TreeShare {
    CommGroup group;
    size_t at, n; /* of params->grad, or of all tensors */
    CommPart own; /* of that: this rank's part */
    size_t held;  /* where it begins in a level, and in a sum that is shared out */
} TreeShare;

typedef struct GradTree {
    Params *params;    /* borrowed; allocated with training */
    Comm *comm;        /* params->ex's */
    CommGroup machine; /* whose ranks are added first; size 0: none are */
    TreeShare *share;  /* (nshare) */
    int nshare;
    size_t held; /* elements of this rank's parts */
    Arena arena;
    float *outbox; /* (size) gradients on their way; NULL: from params->grad or `within` */
    float *within; /* (ranks of a machine, their part) */
    float *round;  /* (ranks, largest own.n) what they gave; NULL: params->grad is the only row */
    float *level[32]; /* (held) each */
    bool behind;      /* bytes move while ops work (comm.h) */
    int levels;
    unsigned leaves; /* added in this step: packs, or machines */
    int pending;     /* rows of `round` that are on their way .. */
    int section;     /* .. of this section; -1: of none, or of all that is not shared out */
    int next;        /* sections that this round is still to be given, of shared ones */
    int packs;       /* of this round */
    bool last;       /* it is the step's last one */
} GradTree;

/* For steps of at most so many packs. */
void grad_tree_init(GradTree *t, Params *p, int most_packs);
void grad_tree_free(GradTree *t); /* accepts a zeroed tree */

/* Levels that steps of at most so many packs need: none for one, 1 + log2(packs - 1) for more. */
int grad_tree_levels(int most_packs);

/* Device bytes that grad_tree_init takes on this rank of ex's job, or, where ex has none yet, on
 * the first of so many of one machine, or of those that p is shared out over. p need not be ex's.
 */
size_t grad_tree_bytes(Params *p, const Exec *ex, int ranks, int most_packs);

/* Of these the levels', where p is shared out. */
size_t grad_tree_level_bytes(const Params *p, int most_packs);

/* A round of so many packs begins, the last one of a step or not: before its passes. Sums of
 * gradients that are not in turn begin at zero. */
void grad_tree_round(GradTree *t, int packs, bool last);

/* full_through, of a GradTree: the section is on its way. In falling order. */
void grad_tree_give(void *tree, int section);

/* Takes params->grad of the ranks below `packs` (1 for one rank), and zeroes it on all. Of shared
 * tensors: the sections that no backward pass has given, with zeros for gradients. */
void grad_tree_add(GradTree *t, int packs);

/* Takes the last ones: params->grad is the sum then, on all ranks, or in this rank's parts where
 * tensors are shared out, and the tree is ready for the next step. */
void grad_tree_finish(GradTree *t, int packs);

#endif
