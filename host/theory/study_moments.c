/* study_moments.c - studies of second moments: many documents, pairs, contrasts. */
#include "host/theory/study_impl.h"

/* 1, 2, 4 times powers of ten from `first` on, and `last`. */
static int rising(double *key, double first, double last) {
    static const double times[] = {2, 2, 2.5};
    int n = 0;
    for (double v = first; v < last && n < STUDY_ROWS - 1; v *= times[n++ % 3]) key[n] = v;
    key[n++] = last;
    return n;
}

/* ------------------------------------------------------------------------ documents: N grows -- */

static const Column documents_columns[] = {KEY("documents"),
                                           MEASURED("sae_error"),
                                           CLOSED("sae_closed"),
                                           MEASURED_TOO("sae_right"),
                                           MEASURED("mean_error"),
                                           CLOSED("mean_closed"),
                                           CLOSED("floor"),
                                           MEASURED("pairs_error"),
                                           CLOSED("pairs_closed"),
                                           MEASURED("contrast_error"),
                                           CLOSED("contrast_closed"),
                                           MEASURED("pooled_error"),
                                           MEASURED_TOO("sae_captured"),
                                           MEASURED_TOO("mean_captured"),
                                           MEASURED_TOO("pairs_captured"),
                                           MEASURED_TOO("contrast_captured")};

static int documents_keys(double *key, const StudySpec *spec) {
    return rising(key, 50, spec->documents);
}

static void documents_row(Table *t, int i, int documents, const StudySpec *spec, const World *w,
                          Tally *means, Moments m[3]) {
    int32_t *feature = mem_array((size_t)w->s.r, sizeof *feature);
    tally_extend(means, w, documents);
    for (int source = 0; source < 3; source++)
        moments_extend(&m[source], w, (enum Source)source, 1, documents);
    estimate_choose(feature, spec->ex, w, means, w->s.r);
    Recovery sae = estimate_sae(spec->ex, w, feature, w->s.r, spec->eps, ERROR_RANDOM, 1);
    Recovery mean = estimate_mean(w, means), pairs = estimate_pairs(spec->ex, w, &m[OF_PAIRS]);
    Recovery contrast = estimate_contrast(spec->ex, w, &m[OF_UNALIGNED], &m[OF_ALIGNED]);
    Recovery pooled = estimate_pooled(spec->ex, w, &m[OF_UNALIGNED], &m[OF_ALIGNED]);
    table_add(t, i, "sae_error", sae.error);
    table_add(t, i, "sae_closed", closed_sae(&w->s, spec->eps));
    table_add(t, i, "sae_right", (double)estimate_right(w, feature, w->s.r) / w->s.r);
    table_add(t, i, "sae_captured", sae.captured);
    table_add(t, i, "mean_error", mean.error);
    table_add(t, i, "mean_closed", closed_mean(w, documents));
    table_add(t, i, "mean_captured", mean.captured);
    table_add(t, i, "floor", closed_floor(w->s.r));
    table_add(t, i, "pairs_error", pairs.error);
    table_add(t, i, "pairs_closed", closed_matched(w, documents));
    table_add(t, i, "pairs_captured", pairs.captured);
    table_add(t, i, "contrast_error", contrast.error);
    table_add(t, i, "contrast_closed", closed_contrast(w, documents));
    table_add(t, i, "contrast_captured", contrast.captured);
    table_add(t, i, "pooled_error", pooled.error);
    free(feature);
}

static void documents_draw(Table *t, const double *key, const StudySpec *spec) {
    WorldShape shape = study_quiet(spec);
    World w;
    Tally means;
    Moments m[3];
    world_build(&w, spec->ex, &shape);
    tally_init(&means, &w);
    for (int source = 0; source < 3; source++) moments_init(&m[source], &w);
    for (int i = 0; i < t->rows; i++) documents_row(t, i, (int)key[i], spec, &w, &means, m);
    for (int source = 0; source < 3; source++) moments_free(&m[source]);
    tally_free(&means);
    world_free(&w);
}

const Measure measure_documents = {COLUMNS(documents_columns), documents_keys, documents_draw};

/* ------------------------------------------------------------- pairs: what their texts share -- */

static const Column pairs_columns[] = {KEY("shared"),
                                       MEASURED("pairs_error"),
                                       CLOSED("pairs_limit"),
                                       MEASURED("loud_error"),
                                       CLOSED("loud_limit"),
                                       CLOSED("sae_closed"),
                                       MEASURED_TOO("pairs_captured"),
                                       MEASURED_TOO("loud_captured")};

static int pairs_keys(double *key, const StudySpec *spec) {
    static const double shared[] = {0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1};
    (void)spec;
    return study_keys(key, shared, sizeof shared / sizeof *shared);
}

static void pairs_draw(Table *t, const double *key, const StudySpec *spec) {
    static const char *const name[2][3] = {{"pairs_error", "pairs_limit", "pairs_captured"},
                                           {"loud_error", "loud_limit", "loud_captured"}};
    for (int loud = 0; loud < 2; loud++) {
        WorldShape shape = loud ? spec->shape : study_quiet(spec);
        World w;
        world_build(&w, spec->ex, &shape);
        for (int i = 0; i < t->rows; i++) {
            Moments m;
            moments_init(&m, &w);
            moments_extend(&m, &w, OF_PAIRS, key[i], spec->documents);
            Recovery found = estimate_pairs(spec->ex, &w, &m);
            table_add(t, i, name[loud][0], found.error);
            table_add(t, i, name[loud][1], closed_pairs(spec->ex, &w, key[i]).error);
            table_add(t, i, name[loud][2], found.captured);
            if (loud) table_add(t, i, "sae_closed", closed_sae(&shape, spec->eps));
            moments_free(&m);
        }
        world_free(&w);
    }
}

const Measure measure_pairs = {COLUMNS(pairs_columns), pairs_keys, pairs_draw};

/* ---------------------------------------------------- contrast: second moments of many documents
 * -- */

static const Column contrast_columns[] = {KEY("documents"),
                                          MEASURED("contrast_error"),
                                          CLOSED("contrast_closed"),
                                          MEASURED("pooled_error"),
                                          MEASURED("loud_contrast_error"),
                                          CLOSED("loud_contrast_closed"),
                                          MEASURED("loud_pooled_error"),
                                          MEASURED("loud_sae_error"),
                                          CLOSED("sae_closed"),
                                          MEASURED_TOO("contrast_captured"),
                                          MEASURED_TOO("loud_contrast_captured")};

static int contrast_keys(double *key, const StudySpec *spec) {
    int n = 0;
    for (double v = 1000; v < spec->most && n < STUDY_ROWS - 1; v *= 4) key[n++] = v;
    key[n++] = spec->most;
    return n;
}

static void contrast_row(Table *t, int i, int documents, const StudySpec *spec, const World *w,
                         Moments m[2], Tally *means) {
    static const char *const name[2][4] = {
        {"contrast_error", "contrast_closed", "contrast_captured", "pooled_error"},
        {"loud_contrast_error", "loud_contrast_closed", "loud_contrast_captured",
         "loud_pooled_error"}};
    const char *const *column = name[w->s.loud > 0];
    for (int c = 0; c < 2; c++) moments_extend(&m[c], w, (enum Source)c, 0, documents);
    Recovery found = estimate_contrast(spec->ex, w, &m[OF_UNALIGNED], &m[OF_ALIGNED]);
    table_add(t, i, column[0], found.error);
    table_add(t, i, column[1], closed_contrast(w, documents));
    table_add(t, i, column[2], found.captured);
    table_add(t, i, column[3],
              estimate_pooled(spec->ex, w, &m[OF_UNALIGNED], &m[OF_ALIGNED]).error);
    if (w->s.loud == 0) return;
    int32_t *feature = mem_array((size_t)w->s.r, sizeof *feature);
    tally_extend(means, w, documents);
    estimate_choose(feature, spec->ex, w, means, w->s.r);
    table_add(t, i, "loud_sae_error",
              estimate_sae(spec->ex, w, feature, w->s.r, spec->eps, ERROR_RANDOM, 1).error);
    table_add(t, i, "sae_closed", closed_sae(&w->s, spec->eps));
    free(feature);
}

static void contrast_draw(Table *t, const double *key, const StudySpec *spec) {
    for (int loud = 0; loud < 2; loud++) {
        WorldShape shape = loud ? spec->shape : study_quiet(spec);
        World w;
        Moments m[2];
        Tally means;
        world_build(&w, spec->ex, &shape);
        tally_init(&means, &w);
        moments_init(&m[0], &w), moments_init(&m[1], &w);
        for (int i = 0; i < t->rows; i++) contrast_row(t, i, (int)key[i], spec, &w, m, &means);
        moments_free(&m[0]), moments_free(&m[1]);
        tally_free(&means);
        world_free(&w);
    }
}

const Measure measure_contrast = {COLUMNS(contrast_columns), contrast_keys, contrast_draw};
