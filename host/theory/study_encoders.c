/* study_encoders.c - studies of what the others take for granted: true activations, and a
 * dictionary that somebody has. */
#include "host/theory/study_impl.h"
#include "host/theory/trained.h"

/* ---------------------------------------------------- crosstalk: an encoder that hears others --
 */

static const Column crosstalk_columns[] = {KEY("rank"),
                                           MEASURED("heard_right"),
                                           MEASURED("all_heard_right"),
                                           CLOSED("unheard"),
                                           MEASURED("true_right"),
                                           MEASURED("heard_error"),
                                           CLOSED("sae_closed"),
                                           MEASURED("task_least"),
                                           MEASURED("other_most"),
                                           MEASURED_TOO("other_rms"),
                                           CLOSED_TOO("other_rms_closed")};

static int crosstalk_keys(double *key, const StudySpec *spec) {
    int n = 0, most = spec->shape.H < spec->shape.n ? spec->shape.H : spec->shape.n;
    for (int r = 2; r <= 32 && 4 * r <= most; r *= 2) key[n++] = r;
    if (!n) key[n++] = spec->shape.r;
    return n;
}

/* What is heard of the task's features and of the others. */
static void crosstalk_heard(Table *t, int row, const World *w, const double *by) {
    double least = INFINITY, most = 0, square = 0;
    for (int j = 0; j < w->s.n; j++) {
        if (j < w->s.r) least = fmin(least, by[j]);
        if (j >= w->s.r) most = fmax(most, by[j]), square += by[j] * by[j];
    }
    table_add(t, row, "task_least", least);
    table_add(t, row, "other_most", most);
    table_add(t, row, "other_rms", sqrt(square / (w->s.n - w->s.r)));
}

static void crosstalk_row(Table *t, int i, const WorldShape *shape, const StudySpec *spec) {
    int r = shape->r;
    World w;
    Tally tally;
    int32_t *feature = mem_array((size_t)r, sizeof *feature);
    double *by = mem_array((size_t)shape->n, sizeof *by);
    world_build(&w, spec->ex, shape);
    tally_init(&tally, &w);
    tally_extend(&tally, &w, spec->documents);
    estimate_choose(feature, spec->ex, &w, &tally, r);
    table_add(t, i, "true_right", (double)estimate_right(&w, feature, r) / r);
    estimate_heard(by, &w, &tally, spec->eps);
    crosstalk_heard(t, i, &w, by);
    estimate_choose_heard(feature, spec->ex, &w, by, r);
    int right = estimate_right(&w, feature, r);
    table_add(t, i, "heard_right", (double)right / r);
    table_add(t, i, "all_heard_right", right == r);
    table_add(t, i, "heard_error",
              estimate_sae(spec->ex, &w, feature, r, spec->eps, ERROR_RANDOM, 1).error);
    table_add(t, i, "sae_closed", closed_sae(shape, spec->eps));
    table_add(t, i, "unheard", closed_unheard(shape));
    table_add(t, i, "other_rms_closed", closed_heard(&w, spec->documents));
    tally_free(&tally);
    world_free(&w);
    free(by), free(feature);
}

static void crosstalk_draw(Table *t, const double *key, const StudySpec *spec) {
    for (int i = 0; i < t->rows; i++) {
        WorldShape shape = study_quiet(spec);
        shape.r = (int)key[i], shape.coherence = 0;
        crosstalk_row(t, i, &shape, spec);
    }
}

const Measure measure_crosstalk = {COLUMNS(crosstalk_columns), crosstalk_keys, crosstalk_draw};

/* -------------------------------------------------------------------- trained: no planted SAE --
 */

static const Column trained_columns[] = {KEY("trained_on"),
                                         MEASURED("trained_error"),
                                         MEASURED("mean_error"),
                                         CLOSED("mean_closed"),
                                         CLOSED("floor"),
                                         MEASURED("contrast_error"),
                                         MEASURED("unexplained"),
                                         MEASURED("cosine"),
                                         MEASURED("task_cosine"),
                                         MEASURED_TOO("alive"),
                                         MEASURED_TOO("trained_captured")};

/* Its own world: small enough to train on in seconds, with three active features a document, which
 * is what TopK of 3 can say. */
static WorldShape trained_shape(const StudySpec *spec) {
    WorldShape s = study_quiet(spec);
    s.H = 32, s.n = 96, s.r = 4, s.p0 = 0.03, s.delta = 0.15, s.coherence = 0;
    return s;
}
enum { TRAINED_K = 3 };

static int trained_keys(double *key, const StudySpec *spec) {
    int n = 0;
    for (int times = 1; times <= 16; times *= 4)
        if ((double)times * spec->documents <= 4e6) key[n++] = (double)times * spec->documents;
    if (!n) key[n++] = spec->documents;
    return n;
}

static void trained_draw(Table *t, const double *key, const StudySpec *spec) {
    WorldShape shape = trained_shape(spec);
    World w;
    Tally means;
    Moments m[2];
    world_build(&w, spec->ex, &shape);
    tally_init(&means, &w);
    tally_extend(&means, &w, spec->documents);
    for (int c = 0; c < 2; c++) {
        moments_init(&m[c], &w);
        moments_extend(&m[c], &w, (enum Source)c, 0, spec->documents);
    }
    double mean = estimate_mean(&w, &means).error;
    double contrast = estimate_contrast(spec->ex, &w, &m[OF_UNALIGNED], &m[OF_ALIGNED]).error;
    for (int i = 0; i < t->rows; i++) {
        TrainedSae s;
        trained_make(&s, &w, TRAINED_K, (int)key[i]);
        TrainedFacts f = trained_facts(spec->ex, &w, &s, spec->documents);
        table_add(t, i, "trained_error", f.found.error);
        table_add(t, i, "trained_captured", f.found.captured);
        table_add(t, i, "unexplained", f.unexplained);
        table_add(t, i, "cosine", f.cosine);
        table_add(t, i, "task_cosine", f.task_cosine);
        table_add(t, i, "alive", f.alive);
        table_add(t, i, "mean_error", mean);
        table_add(t, i, "mean_closed", closed_mean(&w, spec->documents));
        table_add(t, i, "contrast_error", contrast);
        table_add(t, i, "floor", closed_floor(shape.r));
        trained_free(&s);
    }
    for (int c = 0; c < 2; c++) moments_free(&m[c]);
    tally_free(&means);
    world_free(&w);
}

const Measure measure_trained = {COLUMNS(trained_columns), trained_keys, trained_draw};
