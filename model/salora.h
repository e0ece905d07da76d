/* salora.h - SaLoRA (2501.01765): nothing is added in the main directions of the outputs that safe
 * replies to harmful prompts have.
 *
 *   y = W x + scale (C B A - C B0 A0) x,   C = I - V_s V_s^T
 *
 * V_s: the first left singular vectors of W X_s, X_s being what the projection reads at the tokens
 * of safe replies to harmful prompts; so whatever A and B become, V_s^T (y - W x) = 0 of any x,
 * which itself moves with the layers below. The start is within what the task itself writes, V_t of
 * W X_t in the same way: with W = U S V^T,
 *
 *   A0 = sqrt(S/scale) V^T,  B0 = V_t V_t^T U sqrt(S/scale),   the largest of S alone.
 *
 * Ours: the base stays, where the paper takes C B0 A0 off W; and what is kept is C B itself
 * (params.h), so that it is an ordinary adapter to all others. Its scale is 1. */
#ifndef SAILS_SALORA_H
#define SAILS_SALORA_H

#include "model/gemma2.h"
#include "model/inputs.h"
#include "model/subspace.h"

/* A basis of what a projection writes: V_s, or V_t. */
enum OutputSide { OUTPUT_KEPT, OUTPUT_TASK, OUTPUT_SIDES };
enum { OUTPUT_NAMES = PROJ_COUNT * OUTPUT_SIDES };
extern const char *const output_name[OUTPUT_NAMES]; /* "q.kept", "q.task", "k.kept", ... */

/* A place for every layer, target and side, in that order; empty. */
void salora_places(Subspace *to, const Config *c, const bool target[PROJ_COUNT]);

/* Fills those of a side, from the moments of what the targets read: the first R eigenvectors of
 * W (sum x x^T / n) W^T, fewer where fewer are above the rounding that inputs_bases grants. R is
 * below the width of each output. Refused: no rows, outputs that are zero. */
bool salora_bases(Subspace *to, const Model *m, const Inputs *in, const bool target[PROJ_COUNT],
                  enum OutputSide side, int R, Err *err);

/* What this allocates: for one basis at a time, and all bases of both sides. */
BasisBytes salora_bases_bytes(const Config *c, enum Dtype dtype, const bool target[PROJ_COUNT],
                              int R);

/* Bytes of workspace that this takes. */
size_t salora_scratch(Exec *ex, const Config *c, const bool target[PROJ_COUNT], int R);

/* The basis of (layer, p) on a side; NULL: there is none. */
const Basis *salora_basis(const Subspace *s, int layer, enum Proj p, enum OutputSide side);

/* Refused: a target without its two bases, bases of another width, and as many kept directions as
 * there are. */
bool salora_check(const Config *c, const bool target[PROJ_COUNT], const Subspace *s, Err *err);

#endif
