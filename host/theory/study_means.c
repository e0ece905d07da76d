/* study_means.c - studies of means and dictionaries: errors of rows, ranks, choices, the pipeline.
 */
#include "host/theory/study_impl.h"

/* The world of a repeat and both corpora's sums: what most studies begin with. */
typedef struct Sampled {
    World w;
    Tally t;
    int32_t *feature; /* (r) chosen by them */
} Sampled;

static Sampled sampled(const StudySpec *spec, const WorldShape *shape, int documents) {
    Sampled s = {.feature = mem_array((size_t)shape->r, sizeof *s.feature)};
    world_build(&s.w, spec->ex, shape);
    tally_init(&s.t, &s.w);
    tally_extend(&s.t, &s.w, documents);
    estimate_choose(s.feature, spec->ex, &s.w, &s.t, shape->r);
    return s;
}

static void sampled_free(Sampled *s) {
    tally_free(&s->t);
    world_free(&s->w);
    free(s->feature);
}

static Recovery sae_of(const StudySpec *spec, const Sampled *s, double eps, enum RowError error) {
    return estimate_sae(spec->ex, &s->w, s->feature, s->w.s.r, eps, error, 1);
}

/* --------------------------------------------------------------- eps: the dictionary's error -- */

static const Column eps_columns[] = {KEY("eps"),
                                     MEASURED("sae_error"),
                                     CLOSED("sae_closed"),
                                     MEASURED("mixed_error"),
                                     MEASURED("sae_captured"),
                                     CLOSED_TOO("captured_closed"),
                                     MEASURED_TOO("sae_precision"),
                                     MEASURED("mean_error"),
                                     CLOSED("floor"),
                                     MEASURED_TOO("mean_captured")};

static int eps_keys(double *key, const StudySpec *spec) {
    static const double eps[] = {0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1, 3};
    (void)spec;
    return study_keys(key, eps, sizeof eps / sizeof *eps);
}

static void eps_draw(Table *t, const double *key, const StudySpec *spec) {
    WorldShape shape = study_quiet(spec);
    Sampled s = sampled(spec, &shape, spec->documents);
    Recovery mean = estimate_mean(&s.w, &s.t);
    for (int i = 0; i < t->rows; i++) {
        Recovery sae = sae_of(spec, &s, key[i], ERROR_RANDOM);
        double closed = closed_sae(&shape, key[i]);
        table_add(t, i, "sae_error", sae.error);
        table_add(t, i, "sae_closed", closed);
        table_add(t, i, "mixed_error", sae_of(spec, &s, key[i], ERROR_MIXED).error);
        table_add(t, i, "sae_captured", sae.captured);
        table_add(t, i, "captured_closed", closed_captured(shape.r, closed));
        table_add(t, i, "sae_precision", sae.precision);
        table_add(t, i, "mean_error", mean.error);
        table_add(t, i, "mean_captured", mean.captured);
        table_add(t, i, "floor", closed_floor(shape.r));
    }
    sampled_free(&s);
}

const Measure measure_eps = {COLUMNS(eps_columns), eps_keys, eps_draw};

/* --------------------------------------------------------------------- rank: the task's size -- */

static const Column rank_columns[] = {
    KEY("rank"),          MEASURED("mean_error"),    CLOSED("mean_closed"),
    CLOSED("floor"),      MEASURED("mean_captured"), MEASURED("sae_error"),
    CLOSED("sae_closed"), MEASURED("sae_captured")};

static int rank_keys(double *key, const StudySpec *spec) {
    int n = 0, most = spec->shape.H < spec->shape.n ? spec->shape.H : spec->shape.n;
    for (int r = 2; r <= 64 && 4 * r <= most; r *= 2) key[n++] = r;
    if (!n) key[n++] = spec->shape.r;
    return n;
}

static void rank_draw(Table *t, const double *key, const StudySpec *spec) {
    for (int i = 0; i < t->rows; i++) {
        WorldShape shape = study_quiet(spec);
        shape.r = (int)key[i];
        Sampled s = sampled(spec, &shape, spec->documents);
        Recovery mean = estimate_mean(&s.w, &s.t), sae = sae_of(spec, &s, spec->eps, ERROR_RANDOM);
        table_add(t, i, "mean_error", mean.error);
        table_add(t, i, "mean_closed", closed_mean(&s.w, spec->documents));
        table_add(t, i, "floor", closed_floor(shape.r));
        table_add(t, i, "mean_captured", mean.captured);
        table_add(t, i, "sae_error", sae.error);
        table_add(t, i, "sae_closed", closed_sae(&shape, spec->eps));
        table_add(t, i, "sae_captured", sae.captured);
        sampled_free(&s);
    }
}

const Measure measure_rank = {COLUMNS(rank_columns), rank_keys, rank_draw};

/* --------------------------------------------------- coherence: directions that are not orthogonal
 * -- */

static const Column coherence_columns[] = {
    KEY("coherence"),       MEASURED("sae_error"), CLOSED("sae_closed"), MEASURED("sae_captured"),
    MEASURED("mean_error"), CLOSED("mean_closed"), CLOSED("floor")};

static int coherence_keys(double *key, const StudySpec *spec) {
    static const double c[] = {0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9};
    (void)spec;
    return study_keys(key, c, sizeof c / sizeof *c);
}

static void coherence_draw(Table *t, const double *key, const StudySpec *spec) {
    for (int i = 0; i < t->rows; i++) {
        WorldShape shape = study_quiet(spec);
        shape.coherence = key[i];
        Sampled s = sampled(spec, &shape, spec->documents);
        Recovery mean = estimate_mean(&s.w, &s.t), sae = sae_of(spec, &s, spec->eps, ERROR_RANDOM);
        table_add(t, i, "sae_error", sae.error);
        table_add(t, i, "sae_closed", closed_sae(&shape, spec->eps));
        table_add(t, i, "sae_captured", sae.captured);
        table_add(t, i, "mean_error", mean.error);
        table_add(t, i, "mean_closed", closed_mean(&s.w, spec->documents));
        table_add(t, i, "floor", closed_floor(shape.r));
        sampled_free(&s);
    }
}

const Measure measure_coherence = {COLUMNS(coherence_columns), coherence_keys, coherence_draw};

/* ------------------------------------------------------------ selection: are features right? -- */

static const Column selection_columns[] = {KEY("documents"), MEASURED("all_right"),
                                           CLOSED("all_right_closed"), MEASURED("share_right")};

enum { SELECTIONS = 8 /* a repeat: shares need more draws than errors, and are cheap */ };

static int selection_keys(double *key, const StudySpec *spec) {
    static const double times[] = {0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3};
    int n = sizeof times / sizeof *times;
    for (int i = 0; i < n; i++) key[i] = ceil(times[i] * closed_documents(&spec->shape));
    return n;
}

static void selection_draw(Table *t, const double *key, const StudySpec *spec) {
    int r = spec->shape.r;
    int32_t *feature = mem_array((size_t)r, sizeof *feature);
    for (int k = 0; k < SELECTIONS; k++) {
        World w = {.s = study_quiet(spec)}; /* codes alone are drawn: no directions */
        Tally means;
        w.s.draw = spec->shape.draw * SELECTIONS + k;
        tally_init(&means, &w);
        for (int i = 0; i < t->rows; i++) {
            tally_extend(&means, &w, (int)key[i]);
            estimate_choose(feature, spec->ex, &w, &means, r);
            int right = estimate_right(&w, feature, r);
            table_add(t, i, "all_right", right == r);
            table_add(t, i, "share_right", (double)right / r);
        }
        tally_free(&means);
    }
    WorldShape quiet = study_quiet(spec);
    for (int i = 0; i < t->rows; i++)
        table_add(t, i, "all_right_closed", closed_selection(&quiet, (int)key[i]));
    free(feature);
}

const Measure measure_selection = {COLUMNS(selection_columns), selection_keys, selection_draw};

/* ---------------------------------------------------- pipeline: the product's own k and variance
 * -- */

#define PIPELINE_K(X) X(8) X(16) X(20) X(32)
#define PIPELINE_COLUMNS(k)                                                                 \
    MEASURED("k" #k "_captured"), MEASURED_TOO("k" #k "_precision"), MEASURED("k" #k "_m"), \
        MEASURED_TOO("k" #k "_error"), CLOSED_TOO("k" #k "_kept"),
#define WEIGHTED_K(X) X(16) X(20)
#define WEIGHTED_COLUMNS(k)                                                        \
    MEASURED("weighted" #k "_captured"), MEASURED_TOO("weighted" #k "_precision"), \
        MEASURED("weighted" #k "_m"), MEASURED_TOO("weighted" #k "_error"),
static const Column pipeline_columns[] = {KEY("variance"),
                                          PIPELINE_K(PIPELINE_COLUMNS) WEIGHTED_K(WEIGHTED_COLUMNS)
                                              MEASURED("random_captured")};

static int pipeline_keys(double *key, const StudySpec *spec) {
    static const double tau[] = {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1};
    (void)spec;
    return study_keys(key, tau, sizeof tau / sizeof *tau);
}

static void pipeline_cell(Table *t, int row, const char *what, int k, Recovery found) {
    const struct {
        const char *name;
        double value;
    } cell[] = {{"captured", found.captured},
                {"precision", found.precision},
                {"m", found.m},
                {"error", found.error}};
    for (int i = 0; i < 4; i++) {
        char name[48];
        snprintf(name, sizeof name, "%s%d_%s", what, k, cell[i].name);
        table_add(t, row, name, cell[i].value);
    }
}

static void pipeline_row(Table *t, int i, double tau, const StudySpec *spec, const Sampled *s,
                         const int32_t *feature) {
#define PIPELINE_NUMBER(k) k,
    static const int ks[] = {PIPELINE_K(PIPELINE_NUMBER)},
                     weighted[] = {WEIGHTED_K(PIPELINE_NUMBER)};
    for (int j = 0; j < (int)(sizeof ks / sizeof *ks); j++) {
        char name[32];
        int k = ks[j];
        pipeline_cell(t, i, "k", k,
                      estimate_sae(spec->ex, &s->w, feature, k, spec->eps, ERROR_RANDOM, tau));
        snprintf(name, sizeof name, "k%d_kept", k);
        table_add(t, i, name, closed_kept(k, s->w.s.r, tau));
    }
    for (int j = 0; j < (int)(sizeof weighted / sizeof *weighted); j++)
        pipeline_cell(
            t, i, "weighted", weighted[j],
            estimate_weighted(spec->ex, &s->w, &s->t, feature, weighted[j], spec->eps, tau));
}

static void pipeline_draw(Table *t, const double *key, const StudySpec *spec) {
    WorldShape shape = study_quiet(spec);
    Sampled s = sampled(spec, &shape, spec->documents);
    int32_t feature[PIPELINE_MOST], random[PIPELINE_MOST];
    estimate_choose(feature, spec->ex, &s.w, &s.t, PIPELINE_MOST);
    estimate_random(random, spec->ex, &s.w, 16);
    for (int i = 0; i < t->rows; i++) {
        pipeline_row(t, i, key[i], spec, &s, feature);
        table_add(
            t, i, "random_captured",
            estimate_sae(spec->ex, &s.w, random, 16, spec->eps, ERROR_RANDOM, key[i]).captured);
    }
    sampled_free(&s);
}

const Measure measure_pipeline = {COLUMNS(pipeline_columns), pipeline_keys, pipeline_draw};
