/* adapter_start.h - how adapters start: a table with a row for each way. All leave W as it is:
 * one of the two factors is zero, or the start is taken off again (lora.h).
 *
 * Another way is a line in ADAPTER_STARTS and a function for its row in adapter_start*.c: options,
 * help, plan, align and train read the table. */
#ifndef SAILS_ADAPTER_START_H
#define SAILS_ADAPTER_START_H

#include "kernels/choices.h"
#include "model/gemma2.h"
#include "model/subspace.h"
#include "model/weight_grads.h"

/* The subspace that a start needs:
 *   TOP              the directions of the best features, as the settings say
 *   SPAN             of as many of them as there are columns: no direction loses anything
 *   RANDOM_FEATURES  as TOP, of features drawn from all that fired
 *   RANDOM           of no feature: random columns
 * and without an SAE, from the moments of two corpora (stream.h), aligned minus unaligned:
 *   MEAN             their means' difference, and random columns
 *   PAIRS            PCA of the pairs' differences, uncentred
 *   COVARIANCE       the largest eigenvalues of their covariances' difference: in what the aligned
 *                    vary more, as `sails theory` contrasts them
 *   LANDMARKS        the aligned tokens' directions with the unaligned ones' spectrum
 * and of what the projections read of the training data (inputs.h):
 *   INPUTS           principal components, for each group of projections with one input
 * and of what they write of two corpora (salora.h):
 *   OUTPUTS          the largest directions, for each projection */
enum SubspaceKind {
    SUBSPACE_NONE,
    SUBSPACE_TOP,
    SUBSPACE_SPAN,
    SUBSPACE_RANDOM_FEATURES,
    SUBSPACE_RANDOM,
    SUBSPACE_MEAN,
    SUBSPACE_PAIRS,
    SUBSPACE_COVARIANCE,
    SUBSPACE_LANDMARKS,
    SUBSPACE_INPUTS,
    SUBSPACE_OUTPUTS
};
enum SubspaceSource { SOURCE_NONE, SOURCE_SCORES, SOURCE_MOMENTS, SOURCE_INPUTS, SOURCE_OUTPUTS };
static inline enum SubspaceSource subspace_source(enum SubspaceKind kind) {
    if (kind == SUBSPACE_NONE) return SOURCE_NONE;
    if (kind == SUBSPACE_INPUTS) return SOURCE_INPUTS;
    if (kind == SUBSPACE_OUTPUTS) return SOURCE_OUTPUTS;
    return kind < SUBSPACE_MEAN ? SOURCE_SCORES : SOURCE_MOMENTS;
}

/* Is it the same whatever the seed, but for columns where there are not enough directions? Its
 * making is a pass over the training data, too, which is not to be made again for every seed. */
static inline bool subspace_of_any_seed(enum SubspaceKind kind) {
    return subspace_source(kind) >= SOURCE_INPUTS;
}

/* X(value, name, what it does, the subspace, is the start taken off, rank rule, fill, workspace of
 * the fill, memory of the fill) */
/* clang-format off */
#define ADAPTER_STARTS(X) \
    X(START_LORA, "lora", "A random and B zero", SUBSPACE_NONE, false, lora_rank, lora_fill, \
      NULL, NULL) \
    X(START_PISSA, "pissa", "the weight's largest singular directions", SUBSPACE_NONE, true, \
      lora_rank, pissa_fill, pissa_scratch, pissa_bytes) \
    X(START_OLORA, "olora", "a QR of the weight", SUBSPACE_NONE, true, lora_rank, olora_fill, \
      olora_scratch, olora_bytes) \
    X(START_LORA_GA, "lora-ga", "the first batch's gradient", SUBSPACE_NONE, \
      true, lora_rank, lora_ga_fill, pissa_scratch, lora_ga_bytes) \
    X(START_CORDA, "corda", "the weight's largest directions beside what it reads", SUBSPACE_NONE, \
      true, lora_rank, corda_fill, pissa_scratch, corda_bytes) \
    X(START_CORDA_KPM, "corda-kpm", "corda with the smallest directions", SUBSPACE_NONE, \
      true, lora_rank, corda_fill, pissa_scratch, corda_bytes) \
    X(START_SAILS, "sails", "the SAE subspace in A or B", SUBSPACE_TOP, false, sails_rank, \
      sails_fill, sails_scratch, NULL) \
    X(START_SAILS_SPAN, "sails-span", "the whole span of the --rank best features", \
      SUBSPACE_SPAN, false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_RANDOM_FEATURES, "random-features", "sails with features drawn at random", \
      SUBSPACE_RANDOM_FEATURES, false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_RANDOM_BASIS, "random-basis", "sails with random directions", SUBSPACE_RANDOM, false, \
      sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_DIRECT_MEAN, "direct-mean", "sails with the corpora's mean difference", SUBSPACE_MEAN, \
      false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_DIRECT_PAIRS, "direct-pairs", "sails with a PCA of the pairs' differences", \
      SUBSPACE_PAIRS, false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_DIRECT_COVARIANCE, "direct-covariance", "sails with the corpora's covariance contrast", \
      SUBSPACE_COVARIANCE, false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_LANDMARKS, "landmarks", "sails with directions of aligned tokens, as long as unaligned", \
      SUBSPACE_LANDMARKS, false, sails_rank, sails_fill, sails_scratch, NULL) \
    X(START_EVA, "eva", "principal components of what the projections read", SUBSPACE_INPUTS, \
      false, eva_rank, eva_fill, NULL, NULL) \
    X(START_SALORA, "salora", "pissa within the task's outputs, adding none to those of safe replies", \
      SUBSPACE_OUTPUTS, true, lora_rank, salora_fill, pissa_scratch, pissa_bytes)
/* clang-format on */
enum StartKind { ADAPTER_STARTS(CHOICE_ENUM) START_COUNT };

/* Does it ask the documents of the first batch? */
static inline bool adapter_start_of_batch(enum StartKind kind) {
    return kind == START_LORA_GA || kind == START_CORDA || kind == START_CORDA_KPM;
}

/* NONE: the basis as it is. NORM: corrected for the RMSNorm between stream and projection: a
 * direction d that is read appears behind the pre-norm as d (1 + w_pre); to write d, the
 * projection must give d / (1 + w_post). The corrected columns are made orthonormal again, so that
 * only the span differs. */
#define START_GAINS(X) X(GAIN_NONE, "none") X(GAIN_NORM, "norm")
enum StartGain { START_GAINS(CHOICE_ENUM) };

/* Does the projection write to the stream, so that a basis of the stream acts on B? Others read it:
 * there the basis acts on A. */
static inline bool adapter_writes_stream(enum Proj p) {
    return p == PROJ_O || p == PROJ_DOWN;
}

/* The basis of the stream that a projection of a layer reads or writes: of the layer nearest to
 * layer - 1, whose output that is, or to the layer itself. */
const Basis *adapter_basis(const Subspace *s, int layer, enum Proj p);

typedef struct StartOptions {
    enum StartKind kind;
    int rank;    /* 0 with a subspace: the rank of each layer's basis */
    float alpha; /* adapter output is scaled by alpha / rank */
    bool rslora; /* ... by alpha / sqrt(rank) */
    bool target[PROJ_COUNT];
    uint64_t seed;
    const StartBatch *batch; /* of starts that ask it */
    /* Of starts with a subspace: */
    bool only_scored;  /* adapters only on layers that have a basis of their own */
    bool freeze_basis; /* train only the factor that starts at zero */
    enum StartGain gain;
    double basis_scale;
    double rho; /* of eva: no adapter has more than rho * rank columns; 0 or 1: all have rank */
} StartOptions;

/* Columns of eva's basis of an input of width W: PEFT's round(rank rho), at most W; rank <= W. */
int eva_columns(int rank, double rho, int W);

/* What a fill allocates beside the adapters and their batch: for one weight at a time. */
typedef struct StartBytes {
    size_t host, device;
} StartBytes;

typedef struct AdapterStart {
    const char *name;
    enum SubspaceKind subspace;
    bool start; /* factors start elsewhere than at zero, and that is taken off */
    /* Rank of the adapter of (layer, p), which is a target; 0: none. */
    int (*rank)(const StartOptions *o, const Subspace *s, int layer, enum Proj p);
    /* Fills masters, which are zero, and says which factors are not trained. */
    bool (*fill)(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err);
    /* Bytes of workspace that the ops of fill take for ranks up to R; NULL: none. */
    size_t (*scratch)(Exec *ex, const Config *c, int R);
    /* Memory that fill takes for these targets, at most; NULL: hardly any. */
    StartBytes (*bytes)(const Config *c, const bool target[PROJ_COUNT], int R);
} AdapterStart;
extern const AdapterStart adapter_start[START_COUNT];
static inline enum StartKind adapter_start_kind(const AdapterStart *start) {
    return (enum StartKind)(start - adapter_start);
}

/* Refuses rank 0 (auto) of a start that has no features to take it from; `what`: whose, such as
 * "--init lora". */
bool adapter_start_check_rank(const AdapterStart *start, int rank, const char *what, Err *err);

/* Refuses to train only the factor that starts at zero where neither does. */
bool adapter_start_check_freeze(const AdapterStart *start, const char *what, Err *err);

/* Refuses a rank above what one of its targets has rows or columns, for a start that factorises
 * them; above half of that for lora-ga. */
bool adapter_start_check_fits(const Config *c, const StartOptions *o, Err *err);

/* Ranks and alphas for lora_alloc. The subspace, where the start needs one, must fit the model:
 * refused are another width than its own, layers that it does not have, a rank asked for that
 * differs from the bases', bases of the stream where those of inputs are needed or the other way
 * round, and a projection whose input has none. NULL otherwise. To be freed by lora_shape_free. */
bool adapter_start_shape(LoraShape *shape, const Config *c, const StartOptions *o,
                         const Subspace *s, Err *err);

/* Fills adapters of that shape: masters, their copies, and which factors are trained.
 *   lora    A uniform in (-1/sqrt(in), 1/sqrt(in)), B = 0: PEFT's default
 *   pissa   W = U S V^T: A = sqrt(S/scale) V^T, B = U sqrt(S/scale), the largest of S alone;
 *           taken off
 *   olora   W = Q T: A the first rows of the triangle T, B the first columns of Q; taken off
 *   lora-ga with U S V^T the batch's gradient by W: A = k V_1^T, B = k U_2, V_1 the first R columns
 *           of V and U_2 the R behind the first of U, k = out^(1/4) / sqrt(gamma), gamma 16; taken
 *           off. So the authors' code has it; PEFT's multiplies B alone, and by S too. The largest
 *           entry of each column is positive. Refused: a gradient of less than 2 R directions.
 *   corda   with C the mean of x x^T over all tokens of the batch, divided by its mean diagonal,
 *           and 0.01 on that: W C = U S V^T, and of the largest of S, corda-kpm's the smallest,
 *           B = U sqrt(S/scale), A = sqrt(S/scale) V^T C^-1 = (S scale)^(-1/2) U^T W; taken off.
 *           PEFT's weighs documents by their largest number, and C by how long they are. Refused:
 *           a W C of too few directions; with corda-kpm, of any less than W has rows or columns.
 *   sails   A = basis_scale U^T, B = 0 where the projection reads the stream (q, k, v, gate, up),
 *           with the basis U nearest to the layer below, whose stream enters; A = 0,
 *           B = basis_scale U where it writes (o, down), with the nearest to the layer itself.
 *           Ties go down. A basis with scales has its columns multiplied by them, last of all.
 *           Refused: with GAIN_NORM, a norm gain of 0. So do all others that have a subspace,
 *           but for eva and salora.
 *   eva     A = basis_scale U^T, B = 0 everywhere, with the components U of the projection's own
 *           input; only_scored and gain say nothing to it. With rho above 1 ranks go where inputs
 *           vary in many directions: of the bases' columns, those of a basis once for each target
 *           that reads it, the rank * targets with the largest shares of their input's variance
 *           are adapters' (the first of equals, in the order of layers, projections, columns).
 *           Their sum is that of rho 1; a target without any has no adapter; alpha grows with the
 *           rank, so that all have one scale. PEFT's rule, to which rho is 2 by default
 *   salora  A as pissa's, B = C V_t V_t^T U sqrt(S/scale), and C B for B from then on (salora.h);
 *           taken off; only_scored, gain and basis_scale say nothing to it
 * The largest entry of each row of an A that is taken off is positive; adapter_start_shape refuses
 * ranks above what the projections have rows and columns. */
bool adapter_start_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s,
                        Err *err);

#endif
