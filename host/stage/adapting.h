/* adapting.h - from scores or moments to a basis, and from a basis to an adapter ready to train. */
#ifndef SAILS_ADAPTING_H
#define SAILS_ADAPTING_H

#include <jansson.h>
#include <stdio.h>

#include "host/stage/examples.h"
#include "host/stage/runtime.h"
#include "model/adapter_start.h"
#include "model/score.h"
#include "model/stream.h"

/* What a basis of this kind is made from: as the settings say, but for what the kind itself says
 * (adapter_start.h). */
typedef struct BasisChoice {
    enum ScoreKind by;
    int features; /* 0: none */
    double variance;
    bool center;
    enum RowWeight weight;
} BasisChoice;
BasisChoice adapting_choice(const Settings *s, enum SubspaceKind kind);

/* What can be asked of the basis of a layer whose stream has width D and whose SAE has S features:
 * no more features, no more columns than that. S 0: it has none, nor has the basis. */
bool adapting_check(const Settings *s, enum SubspaceKind kind, int layer, int D, int S, Err *err);

/* A basis for each scored layer, of the kind that `start` needs. `pattern` names the SAEs; "":
 * those that the scores name. An SAE whose weights are not those that were scored is refused. */
bool adapting_subspace(Subspace *to, Exec *ex, const Scores *scores, const char *pattern,
                       const Settings *s, enum StartKind start, Err *err);

/* The same without an SAE, of a kind that is made of moments. Refused: pairs where there are none,
 * corpora that do not differ. */
bool adapting_direct(Subspace *to, Exec *ex, const StreamMoments *moments, const Settings *s,
                     enum StartKind start, Err *err);

/* Bytes of workspace that the ops of either take, of columns at most R; 0 of a kind that neither
 * makes. */
size_t adapting_scratch(Exec *ex, const Settings *s, enum SubspaceKind kind, int D, int R);

/* Memory that either takes for one basis at a time; none of a kind that neither makes. */
BasisBytes adapting_bytes(const Settings *s, enum SubspaceKind kind, int D, int R);

/* train.subspace, which was made for the start that train.init names: the columns of controls look
 * like any others. */
bool adapting_load(Subspace *to, const Settings *s, Err *err);

void adapting_print(FILE *f, const Subspace *subspace);

/* [{"layer", "features", "directions", "explained", "columns", "captured", "coverage": [..],
 * "scale": [..]}, ..]; the last three are null where there is nothing of the kind. Of inputs, "of"
 * says of which. */
json_t *adapting_describe(const Subspace *subspace);

/* Ranks and alphas of an adapter that starts in this way; the subspace, where that needs one. To be
 * freed by lora_shape_free. */
bool adapting_shape(LoraShape *shape, const Config *c, const Settings *s, enum StartKind kind,
                    const Subspace *subspace, Err *err);

/* adapter_start_check_fits, which needs no subspace. */
bool adapting_check_fits(const Config *c, const Settings *s, enum StartKind kind, Err *err);

/* Gives r->model such an adapter, with gradients and moments. */
bool adapting_fresh(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                    Err *err);

/* The same for documents that it is to be trained on, which some starts ask (adapter_start.h); it
 * begins with the first batch of them. */
bool adapting_fresh_on(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                       const Examples *data, Err *err);

/* Refuses a start that asks documents where pairs are trained on. */
bool adapting_check_method(const Settings *s, Err *err);

/* Elements that are trained, and their share of the base model's parameters in percent. */
size_t adapting_trainable(const Model *m, double *percent);

#endif
