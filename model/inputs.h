/* inputs.h - what projections read at the tokens that training predicts: first and second moments
 * for each layer and group of projections with one input, and their principal components, for the
 * start eva; salora.h makes directions of what is written from the same sums.
 *
 *   mean = sum x / n,   C = sum x x^T / n - mean mean^T
 *
 * The device adds up a block of documents in f32, its products over chunks of GRAD_CHUNK rows; the
 * host adds blocks in double, in their order: the bits depend on neither ranks nor threads.
 * Memory for an input of width W: 4 W^2 bytes on the device, 8 W^2 on rank 0. */
#ifndef SAILS_INPUTS_H
#define SAILS_INPUTS_H

#include "model/gemma2.h"
#include "model/subspace.h"

/* Of which groups; q, k and v read the same. */
typedef struct InputGroups {
    bool has[GROUP_COUNT];
} InputGroups;
InputGroups inputs_groups(const bool target[PROJ_COUNT]);
int inputs_width(const Config *c, enum Group g);

/* Numbers of a group's sums in a layer: W of x, then W W of x x^T. */
size_t inputs_numbers(const Config *c, enum Group g);

/* ---------------------------------------------------------------------------------- the sums -- */

typedef struct Inputs {
    const Config *c; /* borrowed */
    InputGroups groups;
    double **sum; /* (L,GROUP_COUNT) of inputs_numbers each; NULL where it is not wanted */
    int64_t rows;
} Inputs;
void inputs_init(Inputs *in, const Config *c, InputGroups groups);
void inputs_free(Inputs *in);                             /* accepts a zeroed struct */
size_t inputs_bytes(const Config *c, InputGroups groups); /* of host memory */

/* Adds a block's sums of a layer and group. */
void inputs_add(Inputs *in, int layer, enum Group g, const float *sums);

/* Bases of the first R components of every input, or of all where it is no wider, in rising order
 * of layers: as basis_of_matrix makes them of C, where what is below the rounding of a chunk's f32
 * sums, sqrt(GRAD_CHUNK) 2^-24 of the rows' mean square, counts as nothing. Refused: less than two
 * rows, inputs that do not vary. */
bool inputs_bases(Subspace *to, Exec *ex, const Inputs *in, int R, uint64_t seed, Err *err);

/* What this allocates: for one basis at a time, and all bases. */
BasisBytes inputs_bases_bytes(const Config *c, InputGroups groups, int R);

/* Bytes of workspace that this takes. */
size_t inputs_bases_scratch(Exec *ex, const Config *c, InputGroups groups, int R);

/* ---------------------------------------------------------------------------------- the pass -- */

typedef struct InputsRun InputsRun;

/* max_rows bounds the rows of a pass: no document may be longer. */
InputsRun *inputs_run_open(const Model *m, InputGroups groups, int max_rows);
void inputs_run_close(InputsRun *r); /* NULL is allowed */
size_t inputs_run_bytes(const Config *c, InputGroups groups, enum Dtype dtype, int max_rows);
size_t inputs_run_scratch(Exec *ex, const Config *c, InputGroups groups, int max_rows);

/* Documents are collected; a pass runs when the next one would exceed max_rows. Rows t with
 * label[t] != 0 count: PEFT's, which looks at a label where it stands. */
void inputs_run_add(InputsRun *r, const int32_t *token, const uint8_t *label, int n);

/* Runs the documents that are left; returns the rows that have counted since the last call. */
int64_t inputs_run_finish(InputsRun *r);

/* After that: a layer's sums of a group since the last call, to host memory (inputs_numbers). */
void inputs_run_take(InputsRun *r, int layer, enum Group g, float *sums);

/* Were sums not finite? Those of its last pass, then. */
bool inputs_run_bad(const InputsRun *r);
Acts *inputs_run_acts(InputsRun *r); /* borrowed */

#endif
