/* adapter_start_impl.h - what the starts that are taken off share, and those of a batch, of inputs
 * or of outputs; private to adapter_start*.c and salora.c. */
#ifndef SAILS_ADAPTER_START_IMPL_H
#define SAILS_ADAPTER_START_IMPL_H

#include "model/adapter_start.h"

/* W (out,in) of a projection, or its first `cols` columns, in double on the host; to be freed. */
double *start_weight(const Model *m, int layer, enum Proj p, int cols);

/* 1, or -1 where the largest entry of n, one every `step`, is below 0. */
double start_sign(const double *x, size_t n, size_t step);

/* The start: A (R,in) and B (out,R), the largest entry of each row of A positive; they are rounded
 * to f32 once, for what is trained and for what is taken off alike. */
void start_put(Lora *l, Adapter *a, const double *A, const double *B);

/* W = U S V^T, n = min(in,out): s (n) falling, u (out,n), v (n,in); all of it is freed with u. */
typedef struct Factors {
    double *u, *v, *s;
    size_t n;
} Factors;
Factors start_factors(Exec *ex, const double *W, const Adapter *a); /* W (out,in) */

/* PiSSA's factors of W = U S V^T: A (R,in) = sqrt(S/scale) V^T and B (out,R) = U sqrt(S/scale), the
 * largest of S alone. */
void start_pissa(double *A, double *B, const Model *m, const Adapter *a, int layer, enum Proj p);

/* Calls `fill` for every adapter. A factorisation of every weight takes minutes: ranks show that
 * they live, and signals end it. */
typedef void start_adapter(Lora *l, const Model *m, Adapter *a, int layer, enum Proj p,
                           const Subspace *s);
bool start_each(Lora *l, const Model *m, start_adapter *fill, const Subspace *s, Err *err);

/* The most of any target by its own bytes, of a weight (out,in). */
typedef StartBytes start_weight_bytes(size_t in, size_t out, size_t R);
StartBytes start_bytes_most(const Config *c, const bool target[PROJ_COUNT], int R,
                            start_weight_bytes *of);

/* Of start_factors, and of A and B that are made of them and put. */
StartBytes start_factors_bytes(size_t in, size_t out, size_t R);

StartBytes pissa_bytes(const Config *c, const bool target[PROJ_COUNT], int R);
StartBytes lora_ga_bytes(const Config *c, const bool target[PROJ_COUNT], int R);
StartBytes corda_bytes(const Config *c, const bool target[PROJ_COUNT], int R);

/* Of any projection: which of them are targets is not asked. */
size_t pissa_scratch(Exec *ex, const Config *c, int R);

/* eva's (adapter_start_eva.c): the basis of what a projection reads, NULL: there is none; refuses
 * one of other columns than eva_columns says; and cuts the adapters of a shape, which have those,
 * to the ranks that the bases' shares of variance give them (adapter_start.h). */
const Basis *eva_basis(const Subspace *s, int layer, enum Proj p);
bool eva_check(const StartOptions *o, const Basis *b, Err *err);
void eva_share(LoraShape *shape, const Config *c, const StartOptions *o, const Subspace *s);

/* Rows of ADAPTER_STARTS: of all that have a rank of their own; adapter_start_batch.c,
 * adapter_start_eva.c; salora.c. */
int lora_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p);
int eva_rank(const StartOptions *o, const Subspace *s, int layer, enum Proj p);
bool eva_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err);
bool lora_ga_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err);
bool corda_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err);
bool salora_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err);

#endif
