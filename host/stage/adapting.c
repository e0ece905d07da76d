/* adapting.c - settings to options of the subspace and of the adapter's start. */
#include "host/stage/adapting.h"

#include <math.h>
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "model/sae.h"

/* ------------------------------------------------------------------------ scores to a basis -- */

static bool same_sae(const Sae *sae, const ScoreLayer *scored, Err *err) {
    char hex[65];
    if (sae->enc.S != scored->S)
        return err_set(err, EXIT_INPUT,
                       "%s: %d features, but %d were scored; name the SAE that was, or score again",
                       sae->file, sae->enc.S, scored->S);
    if (!*scored->sha256) return true;
    if (!files_sha256(hex, sae->file, err)) return false;
    return strcmp(hex, scored->sha256) == 0 ||
           err_set(err, EXIT_INPUT,
                   "%s: not the SAE that was scored for layer %d (%s); score again", sae->file,
                   scored->layer, scored->sae);
}

BasisChoice adapting_choice(const Settings *s, enum SubspaceKind kind) {
    BasisChoice c = {.by = (enum ScoreKind)s->subspace.by,
                     .features = s->subspace.top_k,
                     .variance = s->subspace.variance,
                     .center = s->subspace.center,
                     .weight = (enum RowWeight)s->subspace.weight_rows};
    int columns = s->train.rank ? s->train.rank : s->subspace.top_k;
    if (kind == SUBSPACE_RANDOM_FEATURES) c.by = SCORE_RANDOM;
    if (kind == SUBSPACE_SPAN)
        c = (BasisChoice){.by = c.by, .features = columns, .variance = 1}; /* of all of each */
    if (kind == SUBSPACE_RANDOM || subspace_source(kind) > SOURCE_SCORES)
        c = (BasisChoice){.variance = 1};
    return c;
}

size_t adapting_scratch(Exec *ex, const Settings *s, enum SubspaceKind kind, int D, int R) {
    int rows = adapting_choice(s, kind).features;
    if (subspace_source(kind) >= SOURCE_INPUTS) return 0;
    if (subspace_source(kind) == SOURCE_MOMENTS) rows = kind == SUBSPACE_MEAN ? 1 : D;
    if (kind == SUBSPACE_LANDMARKS) rows = STREAM_LANDMARKS;
    return basis_scratch(ex, rows, D, R);
}

BasisBytes adapting_bytes(const Settings *s, enum SubspaceKind kind, int D, int R) {
    size_t all = (size_t)D * (size_t)D * sizeof(double); /* what the corpora's contrast is in */
    int rows = adapting_choice(s, kind).features;
    BasisBytes n;
    switch (subspace_source(kind)) {
        case SOURCE_SCORES: /* rows, unit rows, and those in a PCA */
            n = basis_bytes(rows > 0 ? rows : 1, D, R);
            n.host += 3 * (size_t)rows * (size_t)D * sizeof(double);
            return n;
        case SOURCE_MOMENTS:
            if (kind == SUBSPACE_LANDMARKS) return basis_bytes(STREAM_LANDMARKS, D, R);
            n = kind == SUBSPACE_COVARIANCE ? basis_symmetric_bytes(D, R)
                                            : basis_bytes(kind == SUBSPACE_MEAN ? 1 : D, D, R);
            n.host += all;
            return n;
        default:
            return (BasisBytes){0};
    }
}

bool adapting_check(const Settings *s, enum SubspaceKind kind, int layer, int D, int S, Err *err) {
    int features = adapting_choice(s, kind).features;
    if (features > S)
        return err_set(err, EXIT_USAGE,
                       "--%s %d: expected at most the %d features of layer %d's SAE",
                       features == s->subspace.top_k ? "top-k" : "rank", features, S, layer);
    return s->train.rank <= D ||
           err_set(err, EXIT_USAGE, "--rank %d: expected at most the model's width %d",
                   s->train.rank, D);
}

/* From the decoder rows of the chosen features of scored layer number i. */
static bool basis_of_features(Basis *b, Exec *ex, const Sae *sae, const Scores *scores, int i,
                              const Settings *s, enum SubspaceKind kind, Err *err) {
    BasisChoice c = adapting_choice(s, kind);
    int k = c.features, layer = scores->layer[i].layer;
    uint64_t seed = (uint64_t)s->run.seed;
    FeatureStat *top = mem_array((size_t)k, sizeof *top);
    int32_t *feature = mem_array((size_t)k, sizeof *feature);
    double *delta = mem_array((size_t)k, sizeof *delta);
    double *rows = mem_array((size_t)k * (size_t)sae->enc.D, sizeof *rows);
    k = score_top(ex, top, scores, i, c.by, k, seed, 0);
    for (int j = 0; j < k; j++) feature[j] = top[j].feature, delta[j] = fabs(top[j].diff);
    SubspaceOptions o = {.rank = s->train.rank,
                         .variance = c.variance,
                         .center = c.center,
                         .seed = seed,
                         .weight = c.weight == WEIGHT_DELTA ? delta : NULL};
    bool ok =
        k > 0 || err_set(err, EXIT_INPUT,
                         "layer %d: no feature fired; score more text or another layer", layer);
    ok = ok && sae_decoder_rows(sae, rows, feature, k, err) &&
         basis_build(b, ex, layer, rows, feature, k, sae->enc.D, &o, err);
    free(rows), free(delta), free(feature), free(top);
    return ok;
}

static bool layer_basis(Basis *b, Exec *ex, const Scores *scores, int i, const char *pattern,
                        const Settings *s, enum SubspaceKind kind, Err *err) {
    const ScoreLayer *layer = &scores->layer[i];
    Sae sae = {0};
    /* an SAE's own width is asked for: the model is not needed here */
    bool ok = sae_open(&sae, NULL, *pattern ? pattern : layer->sae, layer->layer, 0, err) &&
              adapting_check(s, kind, layer->layer, sae.enc.D, sae.enc.S, err) &&
              same_sae(&sae, layer, err);
    if (ok && kind == SUBSPACE_RANDOM)
        basis_random(b, ex, layer->layer, sae.enc.D, s->train.rank, (uint64_t)s->run.seed);
    else
        ok = ok && basis_of_features(b, ex, &sae, scores, i, s, kind, err);
    sae_close(&sae);
    return ok;
}

/* How it was made, for people. */
static char *made_by(const Settings *s, enum StartKind start) {
    BasisChoice c = adapting_choice(s, adapter_start[start].subspace);
    char made[320], by[SETTING_KEY], from[160] = "";
    setting_choice_name(CHOICES(SCORE_KINDS), (int)c.by, by);
    if (c.features > 0)
        snprintf(from, sizeof from, "top %d by %s, variance %g%s%s, ", c.features, by, c.variance,
                 c.center ? ", centred" : "",
                 c.weight == WEIGHT_DELTA ? ", weighted by delta" : "");
    snprintf(made, sizeof made, "%s: %srank %d, seed %d", adapter_start[start].name, from,
             s->train.rank, s->run.seed);
    return mem_string(made);
}

bool adapting_subspace(Subspace *to, Exec *ex, const Scores *scores, const char *pattern,
                       const Settings *s, enum StartKind start, Err *err) {
    *to = (Subspace){.basis = mem_array((size_t)scores->n, sizeof *to->basis)};
    for (int i = 0; i < scores->n; i++) {
        if (!basis_next(ex, err) || !layer_basis(&to->basis[i], ex, scores, i, pattern, s,
                                                 adapter_start[start].subspace, err)) {
            subspace_free(to);
            return false;
        }
        to->n++;
    }
    to->init = mem_string(adapter_start[start].name);
    to->made = made_by(s, start);
    return true;
}

bool adapting_load(Subspace *to, const Settings *s, Err *err) {
    const char *path = s->train.subspace, *name = adapter_start[s->train.init].name;
    if (!subspace_load(to, path, err)) return false;
    if (!to->init || strcmp(to->init, name) == 0) return true;
    bool inputs = subspace_source(adapter_start[s->train.init].subspace) >= SOURCE_INPUTS;
    err_set(err, EXIT_USAGE,
            "%s: a subspace for --init %s, not %s; name that start, or make another by sails %s%s",
            path, to->init, name, inputs ? "inputs" : "subspace --init ", inputs ? "" : name);
    subspace_free(to);
    return false;
}

/* ----------------------------------------------------------------------- moments to a basis -- */

/* Of what the corpora's contrast at layer number i keeps. */
static bool contrast_basis(Basis *b, Exec *ex, const StreamMoments *m, int i, const Settings *s,
                           enum SubspaceKind kind, Err *err) {
    int D = m->D, R = s->train.rank, layer = m->layer[i].layer;
    uint64_t seed = (uint64_t)s->run.seed;
    double *A = mem_array((size_t)D * (size_t)D, sizeof *A), rounding;
    bool ok;
    if (kind == SUBSPACE_MEAN) {
        rounding = stream_mean(A, m, i);
        ok = basis_of_matrix(b, ex, layer, A, 1, D, R, rounding, seed,
                             "the corpora's mean difference", err);
    } else if (kind == SUBSPACE_PAIRS) {
        rounding = stream_pairs(A, m, i);
        ok = basis_of_matrix(b, ex, layer, A, D, D, R, rounding, seed, "the differences of pairs",
                             err);
    } else {
        rounding = stream_covariance(A, m, i);
        ok = basis_of_symmetric(b, ex, layer, A, D, R, rounding, seed,
                                "the corpora's covariance contrast", err);
    }
    free(A);
    return ok;
}

static bool direct_basis(Basis *b, Exec *ex, const StreamMoments *m, int i, const Settings *s,
                         enum SubspaceKind kind, Err *err) {
    const StreamLayer *l = &m->layer[i];
    bool ok = kind != SUBSPACE_LANDMARKS
                  ? contrast_basis(b, ex, m, i, s, kind, err)
                  : basis_of_landmarks(
                        b, ex, l->layer, l->landmark, l->landmark + STREAM_LANDMARKS * (size_t)m->D,
                        STREAM_LANDMARKS, m->D, s->train.rank, (uint64_t)s->run.seed, err);
    return ok || (m->file ? err_prefix(err, "%s", m->file) : false);
}

bool adapting_direct(Subspace *to, Exec *ex, const StreamMoments *moments, const Settings *s,
                     enum StartKind start, Err *err) {
    char made[160];
    enum SubspaceKind kind = adapter_start[start].subspace;
    *to = (Subspace){.basis = mem_array((size_t)moments->n, sizeof *to->basis)};
    bool ok = adapting_check(s, kind, moments->layer[0].layer, moments->D, 0, err) &&
              (kind != SUBSPACE_PAIRS || moments->pairs > 0 ||
               err_set(err, EXIT_INPUT,
                       "%s: the moments are of corpora without pairs; use moments of pairs",
                       adapter_start[start].name));
    for (int i = 0; i < moments->n && ok; i++)
        if ((ok = basis_next(ex, err) && direct_basis(&to->basis[i], ex, moments, i, s, kind, err)))
            to->n++;
    if (!ok) {
        subspace_free(to);
        return false;
    }
    snprintf(made, sizeof made, "%s: of %lld and %lld documents, rank %d, seed %d",
             adapter_start[start].name, (long long)moments->documents[0],
             (long long)moments->documents[1], s->train.rank, s->run.seed);
    to->init = mem_string(adapter_start[start].name);
    to->made = mem_string(made);
    return true;
}

/* ----------------------------------------------------------------------------- a basis shown -- */

static double explained(const Basis *b) {
    double sum = 0;
    for (int j = 0; j < b->m && j < basis_shares(b); j++) sum += b->variance[j];
    return sum;
}

static void print_features(FILE *f, const Basis *b) {
    fprintf(f, "  features");
    for (int j = 0; j < b->k; j++) fprintf(f, " %d", b->feature[j]);
    if (b->coverage) fprintf(f, "\n  coverage %%");
    for (int j = 0; b->coverage && j < b->k; j++) fprintf(f, " %.1f", 100 * b->coverage[j]);
    fprintf(f, "\n");
}

static void print_scales(FILE *f, const Basis *b) {
    double least = INFINITY, most = 0;
    for (int j = 0; j < b->R; j++) least = fmin(least, b->scale[j]), most = fmax(most, b->scale[j]);
    fprintf(f, ", %.3g to %.3g long", least, most);
}

void adapting_print(FILE *f, const Subspace *subspace) {
    for (int i = 0; i < subspace->n; i++) {
        const Basis *b = &subspace->basis[i];
        fprintf(f, "layer %d%s%s: ", b->layer, b->of ? " " : "", b->of ? b->of : "");
        if (b->k > 0) fprintf(f, "%d features, ", b->k);
        if (b->m > 0)
            fprintf(f, "%d direction%s explain%s %.1f %%, ", b->m, b->m > 1 ? "s" : "",
                    b->m > 1 ? "" : "s", 100 * explained(b));
        fprintf(f, "%d columns", b->R);
        if (b->m < b->R) fprintf(f, " (%d random)", b->R - b->m);
        if (b->coverage) fprintf(f, ", %.1f %% of the features' span", 100 * b->captured);
        if (b->scale) print_scales(f, b);
        fprintf(f, "\n");
        if (b->k > 0) print_features(f, b);
    }
}

static json_t *reals(const double *x, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(x[i]));
    return list;
}

json_t *adapting_describe(const Subspace *subspace) {
    json_t *list = json_array();
    for (int i = 0; i < subspace->n; i++) {
        const Basis *b = &subspace->basis[i];
        json_t *one = json_pack("{s:i, s:i, s:i, s:f, s:i}", "layer", b->layer, "features", b->k,
                                "directions", b->m, "explained", explained(b), "columns", b->R);
        if (b->of) json_object_set_new(one, "of", json_string(b->of));
        json_object_set_new(one, "captured", b->coverage ? json_real(b->captured) : json_null());
        json_object_set_new(one, "scale", b->scale ? reals(b->scale, b->R) : json_null());
        json_object_set_new(one, "coverage", b->coverage ? reals(b->coverage, b->k) : json_null());
        json_array_append_new(list, one);
    }
    return list;
}

/* ---------------------------------------------------------------------- basis to an adapter -- */

static StartOptions options(const Settings *s, enum StartKind kind) {
    StartOptions o = {.kind = kind,
                      .rank = s->train.rank,
                      .alpha = (float)s->train.alpha,
                      .seed = (uint64_t)s->run.seed,
                      .only_scored = s->train.only_scored,
                      .freeze_basis = s->train.freeze_basis,
                      .gain = (enum StartGain)s->train.gain,
                      .basis_scale = s->train.basis_scale,
                      .rho = s->train.rho};
    for (int i = 0; i < list_count(s->train.targets); i++) {
        char item[8];
        list_item(s->train.targets, i, item, sizeof item);
        o.target[setting_choice(CHOICES(PROJECTIONS), item, strlen(item))] = true;
    }
    return o;
}

bool adapting_shape(LoraShape *shape, const Config *c, const Settings *s, enum StartKind kind,
                    const Subspace *subspace, Err *err) {
    StartOptions o = options(s, kind);
    return adapter_start_shape(shape, c, &o, subspace, err);
}

bool adapting_check_fits(const Config *c, const Settings *s, enum StartKind kind, Err *err) {
    StartOptions o = options(s, kind);
    return adapter_start_check_fits(c, &o, err);
}

static bool fresh(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                  const StartBatch *batch, Err *err) {
    StartOptions o = options(s, kind);
    LoraShape shape;
    o.batch = batch;
    if (!adapter_start_shape(&shape, &r->model.c, &o, subspace, err)) return false;
    lora_alloc(&r->lora, &r->ex, &r->model.c, &shape, true);
    lora_shape_free(&shape);
    r->model.lora = &r->lora;
    bool ok = adapter_start_fill(&r->lora, &r->model, &o, subspace, err);
    if (!ok) runtime_drop_adapter(r);
    return ok;
}

bool adapting_fresh(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                    Err *err) {
    return fresh(r, s, kind, subspace, NULL, err);
}

bool adapting_fresh_on(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                       const Examples *data, Err *err) {
    if (!adapter_start_of_batch(kind)) return fresh(r, s, kind, subspace, NULL, err);
    size_t most = (size_t)s->train.batch;
    int *number = mem_array(most, sizeof *number);
    const Doc **doc = mem_array(most, sizeof *doc);
    int n = batch_docs(number, data->n, s->train.batch, (uint64_t)s->run.seed, 0);
    for (int i = 0; i < n; i++) doc[i] = &data->doc[example_first(data, (size_t)number[i])];
    const StartBatch batch = {doc, n, settings_training_pack(s)};
    bool ok = fresh(r, s, kind, subspace, &batch, err);
    free(doc), free(number);
    return ok;
}

bool adapting_check_method(const Settings *s, Err *err) {
    enum StartKind kind = (enum StartKind)s->train.init;
    return s->train.method != METHOD_DPO || settings_all_weights(s) || *s->train.init_adapter ||
           !adapter_start_of_batch(kind) ||
           err_set(err, EXIT_USAGE,
                   "--init %s: it asks the documents of supervised fine-tuning; expected another "
                   "start with --method dpo",
                   adapter_start[kind].name);
}

size_t adapting_trainable(const Model *m, double *percent) {
    size_t n = params_trained(model_params(m));
    *percent = 100.0 * (double)n / (double)tensors_parameters(&m->c);
    return n;
}
