/* params.h - what is trained: named tensors of f32 masters with, beside each, its gradient, Adam's
 * moments and the copy in the storage type that products read.
 *
 * Whoever owns tensors (lora.h, full.h) adds them; the optimiser, clipping, the hunt for bad
 * numbers, checkpoints and ranks see Params alone.
 *
 *   params_init(&p, ex, most);  params_add(...) for each;  params_allocate(&p, training);
 *
 * Each of the five kinds lies in one block, in the order of adding and with the same places, so
 * that what concerns all of a kind is one call. Between two tensors lies at most padding, always
 * zero.
 *
 * Where tensors are many, masters are split: a copy is its master's upper half, and there is a
 * block of what it lacks (ops.h, split), or none in f32, where the copy is the master. Such masters
 * are reached through params_get and params_set alone.
 *
 * A tensor may have to leave k directions V (k,rows) of its columns alone: it stands for C T with
 * C = I - V^T V, whatever T is, so that the gradient reaches T as C dT. Kept is C T itself:
 * gradients are projected before the step, masters after it. To both Adam's moments, which see
 * projected gradients alone, and decoupled decay that is the same, step by step, as to keep T.
 *
 * Split masters may be shared out over ranks: the tensors then fall into sections, of each of which
 * a rank holds one part, one behind another: of copies, low halves, moments, the sum of gradients.
 * What products read, and the gradient of one pack, is where its section says: of those that come
 * in turn, no more than two are there at a time. */
#ifndef SAILS_PARAMS_H
#define SAILS_PARAMS_H

#include "data/base/arena.h"
#include "kernels/comm.h"
#include "kernels/ops.h"

typedef struct Param {
    char name[128];       /* as files and messages call it */
    size_t rows, cols, n; /* n = rows * cols */
    size_t at;            /* its first element's place in each block */
    bool trained;
    bool undecayed;               /* weight decay lets it be */
    int kept;                     /* directions that its columns leave alone; 0: none */
    float *keep;                  /* (kept,rows) these, orthonormal; NULL without training */
    float *master, *grad, *m, *v; /* (rows,cols); master NULL where masters are split, the last
                                   * three without training, or where they are shared out */
    store *copy;                  /* (rows,cols), while its section is there */
} Param;

/* The norm of gradients is summed by blocks of so many elements, counted from the start of each
 * tensor; where ranks share tensors out, no block falls to two of them. */
enum { PARAM_BLOCK = 1 << 16 };

/* Tensors that are shared out together, or a part of one. */
enum { SECTION_NAME = 15, SECTION_CALL = 40 };
typedef struct ParamSection {
    char of_weights[SECTION_CALL]; /* what ranks move of it, as all of them should name it */
    char of_grad[SECTION_CALL];    /* (comm.h): "weights, layer 3" */
    size_t at, n;                  /* of each block of all tensors */
    CommPart *part;                /* (ranks) who has what of it */
    size_t held;                   /* where this rank's part begins in a block of parts */
    bool in_turn;   /* its gradient is done with before that of the section after the next begins */
    store *weights; /* (n) gathered; NULL where it is not shared out */
    float *grad;    /* (n) of one pack; likewise */
} ParamSection;

typedef struct Params {
    Exec *ex;
    Param *param; /* (n), at fixed addresses from params_init on */
    int n, most;
    size_t size;           /* elements of a block */
    ParamSection *section; /* (nsections) */
    int nsections;
    int ranks, rank;              /* that share them; 0: nobody does */
    size_t held;                  /* elements of a block of this rank's parts; else `size` */
    float *master, *grad, *m, *v; /* as of a Param; grad, m, v, copy (held) */
    store *copy;
    bool split;
    int16_t *low; /* (held) of split masters in bf16, what the copies lack; else NULL */
    float *piece; /* with it: room for those that are being split or joined */
    int there[2]; /* sections in turn that are in their two rooms; -1: none is */
    bool flying;  /* one of them is on its way */
    Arena weights, lows, grads, moments, keeps;
} Params;

/* Room for at most so many tensors. */
void params_init(Params *p, Exec *ex, int most);
void params_free(Params *p); /* accepts zeroed Params */

/* ALIGNED: at a place that any op accepts. BEHIND: right behind the tensor before, so that the two
 * can be read as one. */
enum ParamPlace { PARAM_ALIGNED, PARAM_BEHIND };

/* Appends a tensor (rows,cols); it has memory after params_allocate. The name as for printf. */
__attribute__((format(printf, 5, 6))) Param *params_add(Params *p, enum ParamPlace place,
                                                        size_t rows, size_t cols, const char *name,
                                                        ...);

/* Its columns are to leave k directions alone, whose memory comes with that for training; masters
 * that are split have none. Until params_set_kept has filled them they are zero: no constraint. */
void params_keep(Param *t, int k);
void params_set_kept(Params *p, const Param *t, const float *directions);

/* Device bytes of all directions, and of the workspace that it takes to project. */
size_t params_kept_bytes(const Params *p);
size_t params_kept_scratch(Exec *ex, const Params *p);

/* Takes what lies along the directions off gradients, or masters. */
void params_project_grads(Params *p);
void params_project_masters(Params *p);

/* Ends a section: of what was added since the last one, and of several, alike but for a block,
 * where that is more than `most` elements: then "NAME 2/3" is the second. A name has at most
 * SECTION_NAME bytes and is no other section's: ranks that are not at the same section are told
 * apart by it. */
void params_section(Params *p, const char *name, size_t most, bool in_turn);

/* Sections, in which all tensors lie, are shared out over so many ranks: before there is memory. */
void params_share_out(Params *p, int ranks, int rank);

/* The ranks, and whose parts of this section are whose. */
CommGroup params_group(const Params *p, const ParamSection *s);

/* Which rank has this place of a section's block. */
int params_owner(const ParamSection *s, size_t at, int ranks);

/* What of the elements at .. at + n - 1 is in this rank's part of the section, n 0: nothing; *held:
 * where that lies in a block of parts. */
CommPart params_own(const Params *p, const ParamSection *s, size_t at, size_t n, size_t *held);

/* Where the gradient of a tensor is: of all packs, or of one where it is shared out. */
float *params_gradient(const Params *p, const Param *t);

/* Memory for all, zeroed. With training every tensor is marked as trained, until the owner decides
 * otherwise, and has gradients and moments. */
void params_allocate(Params *p, bool training);

/* The same for training with split masters. */
void params_allocate_split(Params *p);

/* Device bytes of the blocks of tensors that are declared, and shared out or not, by what
 * params_allocate_split would take on a device of that storage type: weights, what they lack,
 * gradients, moments. */
typedef struct ParamBytes {
    size_t weights, lows, grads, moments;
} ParamBytes;
ParamBytes params_bytes_split(const Params *p, enum Dtype dtype);

void params_sync(Params *p); /* copies from the masters */

/* Elements at .. at + n - 1 of a block, to and from the host. Masters that are set and not split
 * reach their copies by params_sync. Where tensors are shared out, all ranks make the same calls:
 * params_get brings the elements to rank 0 alone, host is not used on the others and may be NULL on
 * all; params_set is given the same on all. */
enum ParamKind { PARAM_MASTER, PARAM_M, PARAM_V, PARAM_KINDS };
void params_get(const Params *p, enum ParamKind kind, size_t at, size_t n, float *host);
void params_set(Params *p, enum ParamKind kind, size_t at, size_t n, const float *host);

/* Masters have changed: what is gathered of sections in turn is of no use any more, and the others
 * are gathered again. On all ranks. */
void params_renew(Params *p);

/* All ranks, in the same order: a section in turn is to be there, in place of that before the one
 * before it, of which nothing is needed any more: soon, and for ops that are called from now on. */
void params_ahead(Params *p, int section);
void params_need(Params *p, int section);

size_t params_elements(const Params *p); /* of all tensors */
size_t params_trained(const Params *p);  /* of those that are trained */

#endif
