/* studies.c - the list of studies and their figures. */
#include "host/theory/study_impl.h"

/* One colour an estimator; figures that compare cases of one estimator take others for its cases.
 */
enum { SAE, MEAN, PAIRS, CONTRAST, POOLED, FLOOR };
#define ERROR_AXIS \
    { "error  ||P - Q||, Frobenius", false }
#define LOG_ERROR_AXIS \
    { "error  ||P - Q||, Frobenius", true }
#define CAPTURED_AXIS \
    { "captured share  tr(PQ) / r", false }
#define DOCUMENTS_AXIS \
    { "documents of each corpus", true }

static int eps_marks(PlotMark *mark, const StudySpec *spec) {
    mark[0] = (PlotMark){closed_crossover(spec->shape.r), "formula: SAE at the floor"};
    return 1;
}

static int documents_marks(PlotMark *mark, const StudySpec *spec) {
    mark[0] = (PlotMark){closed_documents(&spec->shape), "formula: all features right"};
    return 1;
}

/* ---------------------------------------------------------------------------------- the list -- */

/* clang-format off */
const Study studies[STUDY_COUNT] = {
    [STUDY_EPS] = {
        "the dictionary's error eps", &measure_eps, eps_marks,
        {{"eps-error.svg", "Error against the dictionary's eps",
          "SAE error goes to 0 with eps; one mean vector has the floor sqrt(r-1) at any eps",
          {"eps: rows are unit(d + eps e)", true}, LOG_ERROR_AXIS,
          {{"sae_error", "SAE, random errors", PLOT_MEASURED, SAE},
           {"sae_closed", "formula: ~ sqrt(2r) sin(arctan eps)", PLOT_FORMULA, SAE},
           {"mixed_error", "SAE, rows mix two features", PLOT_MEASURED, PAIRS},
           {"mean_error", "mean difference", PLOT_MEASURED, MEAN},
           {"floor", "formula: sqrt(r-1)", PLOT_FORMULA, MEAN}}},
         {"eps-captured.svg", "Captured share against the dictionary's eps",
          "how much of the task's subspace the SAE's rows span",
          {"eps: rows are unit(d + eps e)", true}, CAPTURED_AXIS,
          {{"sae_captured", "SAE", PLOT_MEASURED, SAE},
           {"captured_closed", "formula: 1 - E^2 / 2r", PLOT_FORMULA, SAE},
           {"mean_captured", "mean difference", PLOT_MEASURED, MEAN}}}}},
    [STUDY_DOCUMENTS] = {
        "documents of each corpus", &measure_documents,
        documents_marks,
        {{"documents-error.svg", "Error against documents",
          "no loud nuisance; pairs share all but the task", DOCUMENTS_AXIS, LOG_ERROR_AXIS,
          {{"sae_error", "SAE", PLOT_MEASURED, SAE},
           {"sae_closed", "formula: its eps", PLOT_FORMULA, SAE},
           {"mean_error", "mean difference", PLOT_MEASURED, MEAN},
           {"mean_closed", "formula: floor and sampling", PLOT_FORMULA, MEAN},
           {"pairs_error", "PCA of matched pairs", PLOT_MEASURED, PAIRS},
           {"pairs_closed", "formula: N^(-1/2)", PLOT_FORMULA, PAIRS},
           {"contrast_error", "covariance contrast", PLOT_MEASURED, CONTRAST},
           {"contrast_closed", "formula: N^(-1/2), for small errors", PLOT_FORMULA, CONTRAST},
           {"pooled_error", "PCA of all documents", PLOT_MEASURED, POOLED}}},
         {"documents-captured.svg", "Captured share against documents",
          "no loud nuisance; pairs share all but the task", DOCUMENTS_AXIS, CAPTURED_AXIS,
          {{"sae_captured", "SAE", PLOT_MEASURED, SAE},
           {"mean_captured", "mean difference", PLOT_MEASURED, MEAN},
           {"pairs_captured", "PCA of matched pairs", PLOT_MEASURED, PAIRS},
           {"contrast_captured", "covariance contrast", PLOT_MEASURED, CONTRAST}}}}},
    [STUDY_RANK] = {
        "directions of the task", &measure_rank, NULL,
        {{"rank-error.svg", "Error against the task's rank",
          "one vector misses r - 1 directions, whatever it is: the floor is that and no more",
          {"rank r of the task", true}, ERROR_AXIS,
          {{"mean_error", "mean difference", PLOT_MEASURED, MEAN},
           {"floor", "formula: sqrt(r-1)", PLOT_FORMULA, MEAN},
           {"sae_error", "SAE", PLOT_MEASURED, SAE},
           {"sae_closed", "formula: ~ sqrt(2r) sin(arctan eps)", PLOT_FORMULA, SAE}}}}},
    [STUDY_PAIRS] = {
        "the share of nuisance that pairs have in common", &measure_pairs, NULL,
        {{"pairs-error.svg", "PCA of pairs against what they share",
          "no floor where all but the task is shared; formulas are for endless documents",
          {"probability that a nuisance feature is shared", false}, ERROR_AXIS,
          {{"pairs_error", "PCA of pairs", PLOT_MEASURED, PAIRS},
           {"pairs_limit", "formula: its limit", PLOT_FORMULA, PAIRS},
           {"loud_error", "with loud nuisance", PLOT_MEASURED, CONTRAST},
           {"loud_limit", "formula: its limit", PLOT_FORMULA, CONTRAST},
           {"sae_closed", "formula: SAE", PLOT_FORMULA, SAE}}}}},
    [STUDY_CONTRAST] = {
        "second moments of many documents", &measure_contrast, NULL,
        {{"contrast-error.svg", "Covariance contrast against documents",
          "no floor: the error falls as N^(-1/2), and needs many documents",
          DOCUMENTS_AXIS, LOG_ERROR_AXIS,
          {{"contrast_error", "contrast", PLOT_MEASURED, CONTRAST},
           {"contrast_closed", "formula: N^(-1/2), for small errors", PLOT_FORMULA, CONTRAST},
           {"loud_contrast_error", "contrast, loud nuisance", PLOT_MEASURED, MEAN},
           {"loud_contrast_closed", "formula: N^(-1/2), for small errors", PLOT_FORMULA, MEAN},
           {"loud_sae_error", "SAE, loud nuisance", PLOT_MEASURED, SAE},
           {"sae_closed", "formula: its eps", PLOT_FORMULA, SAE},
           {"pooled_error", "PCA of all documents", PLOT_MEASURED, POOLED},
           {"loud_pooled_error", "the same, loud nuisance", PLOT_MEASURED, FLOOR}}}}},
    [STUDY_COHERENCE] = {
        "the cosine between the task's directions", &measure_coherence, NULL,
        {{"coherence-error.svg", "Error against the task's coherence",
          "directions that lie close together magnify the dictionary's error",
          {"cosine between any two directions of the task", false}, ERROR_AXIS,
          {{"sae_error", "SAE", PLOT_MEASURED, SAE},
           {"sae_closed", "formula: eps sqrt(2 tr G^-1)", PLOT_FORMULA, SAE},
           {"mean_error", "mean difference", PLOT_MEASURED, MEAN},
           {"mean_closed", "formula: floor and sampling", PLOT_FORMULA, MEAN}}}}},
    [STUDY_SELECTION] = {
        "documents that choosing features takes", &measure_selection, documents_marks,
        {{"selection.svg", "Are the right features chosen?",
          "the r features whose means differ most, of n", DOCUMENTS_AXIS,
          {"share of draws, of features", false},
          {{"all_right", "all r are the task's", PLOT_MEASURED, SAE},
           {"all_right_closed", "formula: Gaussian means", PLOT_FORMULA, SAE},
           {"share_right", "share of the r", PLOT_MEASURED, PAIRS}}}}},
    [STUDY_PIPELINE] = {
        "the product's own k and explained variance", &measure_pipeline, NULL,
        {{"pipeline-captured.svg", "What PCA of k decoder rows keeps of the subspace",
          "of nearly orthogonal rows a variance below 1 drops an arbitrary part",
          {"explained variance that is kept (--variance)", false}, CAPTURED_AXIS,
          {{"k8_captured", "k = 8", PLOT_MEASURED, SAE},
           {"k8_kept", "formula: m/k, all rows alike", PLOT_FORMULA, SAE},
           {"k16_captured", "k = 16", PLOT_MEASURED, MEAN},
           {"k16_kept", "formula", PLOT_FORMULA, MEAN},
           {"k20_captured", "k = 20", PLOT_MEASURED, PAIRS},
           {"k20_kept", "formula", PLOT_FORMULA, PAIRS},
           {"k32_captured", "k = 32", PLOT_MEASURED, CONTRAST},
           {"k32_kept", "formula", PLOT_FORMULA, CONTRAST},
           {"random_captured", "16 random features", PLOT_MEASURED, FLOOR}}},
         {"pipeline-weighted.svg", "The same with rows as long as their mean differences",
          "weak rows go first: --weight-rows delta",
          {"explained variance that is kept (--variance)", false}, CAPTURED_AXIS,
          {{"k20_captured", "k = 20, rows of one length", PLOT_MEASURED, PAIRS},
           {"weighted16_captured", "k = 16, weighted", PLOT_MEASURED, MEAN},
           {"weighted20_captured", "k = 20, weighted", PLOT_MEASURED, SAE}}}}},
    [STUDY_CROSSTALK] = {
        "directions of the task that a linear encoder hears in every other", &measure_crosstalk,
        NULL,
        {{"crosstalk.svg", "Is the choice right where encoders hear other features?",
          "activations w . x of the dictionary's rows w, in place of the true ones",
          {"rank r of the task", true}, {"share of the r that are the task's", false},
          {{"heard_right", "linear encoder", PLOT_MEASURED, MEAN},
           {"true_right", "true activations", PLOT_MEASURED, SAE},
           {"all_heard_right", "linear encoder, all r (share of draws)", PLOT_MEASURED, PAIRS},
           {"unheard", "formula: endless documents, eps 0", PLOT_FORMULA, PAIRS}}}}},
    [STUDY_TRAINED] = {
        "documents that an SAE is trained on", &measure_trained, NULL,
        {{"trained-error.svg", "A trained SAE in place of a planted one",
          "TopK, as many latents as there are features; its own encoder chooses",
          {"documents that it is trained on", true}, ERROR_AXIS,
          {{"trained_error", "trained SAE", PLOT_MEASURED, SAE},
           {"mean_error", "mean difference", PLOT_MEASURED, MEAN},
           {"floor", "formula: sqrt(r-1)", PLOT_FORMULA, MEAN},
           {"contrast_error", "covariance contrast", PLOT_MEASURED, CONTRAST}}}}},
};
/* clang-format on */

enum { MOST_DOCUMENTS = 100000000 }; /* as of --documents */

bool study_check(enum TheoryStudy which, const StudySpec *spec, Err *err) {
    WorldShape s = spec->shape;
    if (which == STUDY_PIPELINE && s.n < PIPELINE_MOST)
        return err_set(err, EXIT_USAGE,
                       "--features %d: expected at least the %d that the study pipeline chooses",
                       s.n, PIPELINE_MOST);
    if ((which == STUDY_PAIRS || which == STUDY_CONTRAST) && s.loud == 0)
        return err_set(
            err, EXIT_USAGE,
            "--loud 0: expected at least 1: that study compares loud nuisance with none");
    bool contrasts = which == STUDY_CONTRAST || which == STUDY_DOCUMENTS;
    if (contrasts && 2 * s.p0 + s.delta >= 1.25)
        return err_set(err, EXIT_USAGE,
                       "--delta %g: expected below %g: with --rate %g a feature that fires more "
                       "often would vary less, and no contrast of covariances finds it",
                       s.delta, 1.25 - 2 * s.p0, s.p0);
    double most = 3 * closed_documents(&s);
    if (which == STUDY_SELECTION && most > MOST_DOCUMENTS)
        return err_set(err, EXIT_USAGE,
                       "--delta %g: choosing features would take %.1e documents; expected a "
                       "difference that takes fewer than %.0e",
                       s.delta, most, (double)MOST_DOCUMENTS);
    if (which == STUDY_COHERENCE) s.coherence = 0.5; /* which takes a dimension */
    return world_check(&s, err);
}
