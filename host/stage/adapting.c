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

bool adapting_check(const Settings *s, int layer, int D, int S, Err *err) {
    if (s->subspace.top_k > S)
        return err_set(err, EXIT_USAGE,
                       "--top-k %d: expected at most the %d features of layer %d's SAE",
                       s->subspace.top_k, S, layer);
    return s->train.rank <= D ||
           err_set(err, EXIT_USAGE, "--rank %d: expected at most the model's width %d",
                   s->train.rank, D);
}

static bool layer_basis(Basis *b, Exec *ex, const Scores *scores, int i, const char *pattern,
                        const Settings *s, Err *err) {
    const ScoreLayer *layer = &scores->layer[i];
    int k = s->subspace.top_k;
    FeatureStat *top = mem_array((size_t)k, sizeof *top);
    int32_t *feature = mem_array((size_t)k, sizeof *feature);
    double *delta = mem_array((size_t)k, sizeof *delta);
    k = score_top(ex, top, scores, i, (enum ScoreKind)s->subspace.by, k, (uint64_t)s->run.seed, 0);
    for (int j = 0; j < k; j++) feature[j] = top[j].feature, delta[j] = fabs(top[j].diff);
    free(top);
    Sae sae = {0};
    double *rows = NULL;
    bool ok = k > 0 ||
              err_set(err, EXIT_INPUT,
                      "layer %d: no feature fired; score more text or another layer", layer->layer);
    /* an SAE's own width is asked for: the model is not needed here */
    ok = ok && sae_open(&sae, NULL, *pattern ? pattern : layer->sae, layer->layer, 0, err);
    if (ok) {
        SubspaceOptions o = {.rank = s->train.rank,
                             .variance = s->subspace.variance,
                             .center = s->subspace.center,
                             .seed = (uint64_t)s->run.seed,
                             .weight = s->subspace.weight_rows == WEIGHT_DELTA ? delta : NULL};
        rows = mem_array((size_t)k * (size_t)sae.enc.D, sizeof *rows);
        ok = adapting_check(s, layer->layer, sae.enc.D, sae.enc.S, err) &&
             same_sae(&sae, layer, err) && sae_decoder_rows(&sae, rows, feature, k, err) &&
             basis_build(b, ex, layer->layer, rows, feature, k, sae.enc.D, &o, err);
    }
    sae_close(&sae);
    free(rows), free(delta), free(feature);
    return ok;
}

bool adapting_subspace(Subspace *to, Exec *ex, const Scores *scores, const char *pattern,
                       const Settings *s, Err *err) {
    *to = (Subspace){.basis = mem_array((size_t)scores->n, sizeof *to->basis)};
    for (int i = 0; i < scores->n; i++) {
        if (!layer_basis(&to->basis[i], ex, scores, i, pattern, s, err)) {
            subspace_free(to);
            return false;
        }
        to->n++;
    }
    char made[256], by[SETTING_KEY];
    setting_choice_name(CHOICES(SCORE_KINDS), s->subspace.by, by);
    snprintf(made, sizeof made, "top %d by %s, variance %g, rank %d%s%s, seed %d",
             s->subspace.top_k, by, s->subspace.variance, s->train.rank,
             s->subspace.center ? ", centred" : "",
             s->subspace.weight_rows == WEIGHT_DELTA ? ", weighted by delta" : "", s->run.seed);
    to->made = mem_string(made);
    return true;
}

static double explained(const Basis *b) {
    double sum = 0;
    for (int j = 0; j < b->m && j < b->k; j++) sum += b->variance[j];
    return sum;
}

void adapting_print(FILE *f, const Subspace *subspace) {
    for (int i = 0; i < subspace->n; i++) {
        const Basis *b = &subspace->basis[i];
        fprintf(f, "layer %d: %d features, %d directions explain %.1f %%, %d columns", b->layer,
                b->k, b->m, 100 * explained(b), b->R);
        if (b->m < b->R) fprintf(f, " (%d random)", b->R - b->m);
        if (b->coverage) fprintf(f, ", captured %.1f %% of the features' span", 100 * b->captured);
        fprintf(f, "\n  features");
        for (int j = 0; j < b->k; j++) fprintf(f, " %d", b->feature[j]);
        if (b->coverage) fprintf(f, "\n  coverage %%");
        for (int j = 0; b->coverage && j < b->k; j++) fprintf(f, " %.1f", 100 * b->coverage[j]);
        fprintf(f, "\n");
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
        json_object_set_new(one, "captured", b->coverage ? json_real(b->captured) : json_null());
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
                      .basis_scale = s->train.basis_scale};
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

bool adapting_fresh(Runtime *r, const Settings *s, enum StartKind kind, const Subspace *subspace,
                    Err *err) {
    StartOptions o = options(s, kind);
    LoraShape shape;
    if (!adapter_start_shape(&shape, &r->model.c, &o, subspace, err)) return false;
    lora_alloc(&r->lora, &r->ex, &r->model.c, &shape, true);
    lora_shape_free(&shape);
    r->model.lora = &r->lora;
    bool ok = adapter_start_fill(&r->lora, &r->model, &o, subspace, err);
    if (!ok) runtime_drop_adapter(r);
    return ok;
}

size_t adapting_trainable(const Model *m, double *percent) {
    size_t n = params_trained(&m->lora->params);
    *percent = 100.0 * (double)n / (double)tensors_parameters(&m->c);
    return n;
}
