/* The recovery experiment's encoders: what a linear one hears of other features, by formula; and
 * the sparse autoencoder that is trained: its gradients, its choice, the same bits on any number of
 * threads, and that it learns. */
#include <omp.h>

#include "data/base/mem.h"
#include "host/theory/trained.h"
#include "tests/theory.h"

/* ----------------------------------------------------------------------------------- crosstalk --
 */

/* Sums over endless documents, as of one: the difference of means is the task's alone. */
static Tally endless(const World *w) {
    Tally t;
    tally_init(&t, w);
    t.documents = 1;
    for (int j = 0; j < w->s.r; j++) t.code[ALIGNED][j] = w->s.delta;
    return t;
}

static double share_right(WorldShape s, int draws) {
    int right = 0;
    int32_t *feature = mem_array((size_t)s.r, sizeof *feature);
    double *by = mem_array((size_t)s.n, sizeof *by);
    for (int i = 0; i < draws; i++) {
        World w = world_of(s, i);
        Tally t = endless(&w);
        estimate_heard(by, &w, &t, 0);
        for (int j = 0; j < s.r; j++)
            EXPECT(fabs(by[j] - s.delta) <= 1e-12, "feature %d hears %g", j, by[j]);
        estimate_choose_heard(feature, &ex, &w, by, s.r);
        right += estimate_right(&w, feature, s.r) == s.r;
        tally_free(&t);
        world_free(&w);
    }
    free(by), free(feature);
    return (double)right / draws;
}

static bool share_agrees(int r, double share, double closed, int draws) {
    double tol = 5 * sqrt(closed * (1 - closed) / draws) + 1.0 / draws;
    bool ok = fabs(share - closed) <= tol;
    EXPECT(test_quiet || ok, "rank %d: right in %g of draws, by formula %g", r, share, closed);
    return ok;
}

static void test_unheard(void) {
    enum { DRAWS = 60 };
    static const int r[] = {1, 8, 12, 16};
    for (int i = 0; i < 4; i++) {
        WorldShape s = USUAL;
        s.r = r[i];
        double share = share_right(s, DRAWS);
        share_agrees(r[i], share, closed_unheard(&s), DRAWS);
        s.r = 12;
        if (r[i] == 8) TEST_DETECTS(share_agrees(8, share, closed_unheard(&s), DRAWS));
    }
}

/* The mean of squares over the features that are not the task's, of finite documents. */
static void test_heard(void) {
    for (int documents = 50; documents <= 3200; documents *= 8) {
        Stat square = {0};
        double closed = 0;
        double *by = mem_array((size_t)USUAL.n, sizeof *by);
        for (int i = 0; i < 12; i++) {
            World w = world_of(USUAL, i);
            Tally t;
            tally_init(&t, &w);
            tally_extend(&t, &w, documents);
            estimate_heard(by, &w, &t, 0);
            double sum = 0;
            for (int j = w.s.r; j < w.s.n; j++) sum += by[j] * by[j];
            add(&square, sum / (w.s.n - w.s.r));
            closed = closed_heard(&w, documents);
            tally_free(&t);
            world_free(&w);
        }
        is_closed("what others hear", &square, closed * closed, 0);
        TEST_DETECTS(is_closed("", &square, 1.5 * closed * closed, 0));
        free(by);
    }
}

/* ------------------------------------------------------------------------------------- trained --
 */

static const WorldShape SMALL = {
    .H = 32, .n = 96, .r = 4, .p0 = 0.03, .delta = 0.15, .sigma = 0.05, .loudness = 1, .seed = 1};

/* Central differences of the loss; it is a polynomial of degree four in each parameter. */
static void test_gradients(void) {
    const double h = 1e-6;
    World w = world_of(SMALL, 0);
    TrainedSae s;
    trained_make(&s, &w, 3, 1);
    size_t rows = (size_t)s.n * (size_t)s.H, size = 2 * rows + (size_t)s.n + (size_t)s.H;
    double *grad = mem_array(size, sizeof *grad), *x = mem_array((size_t)s.H, sizeof *x);
    double *other = mem_array(size, sizeof *other);
    TrainedGrads g = {grad, grad + rows, grad + 2 * rows, grad + 2 * rows + s.n};
    TrainedGrads none = {other, other + rows, other + 2 * rows, other + 2 * rows + s.n};
    size_t checked = 0;
    sample_documents(x, &w, ALIGNED, 1000, 1);
    double loss = trained_backward(&g, &s, x);
    for (size_t i = 0; i < size; i++) {
        double was = s.enc[i]; /* all parameters lie behind it */
        s.enc[i] = was + h;
        double up = trained_backward(&none, &s, x);
        s.enc[i] = was - h;
        double down = trained_backward(&none, &s, x);
        s.enc[i] = was;
        checked += grad[i] != 0;
        EXPECT(fabs((up - down) / (2 * h) - grad[i]) <= 1e-8 * (1 + loss + fabs(grad[i])),
               "parameter %zu: %g, by differences %g", i, grad[i], (up - down) / (2 * h));
    }
    /* of three latents the rows and the bias, and the centre */
    EXPECT(checked == (size_t)(3 * (2 * s.H + 1) + s.H), "%zu parameters have a gradient", checked);
    free(other), free(grad), free(x);
    trained_free(&s);
    world_free(&w);
}

/* The k largest of what is above 0, in order. */
static void test_encode(void) {
    enum { N = 6, H = 2 };
    double enc[H * N] = {1, 3, -1, 2, 0, 0.5, 0, 0, 0, 0, 1, 0}, bias[N] = {0}, centre[H] = {1, 5};
    TrainedSae s = {.H = H, .n = N, .k = 3, .enc = enc, .bias = bias, .centre = centre};
    int32_t latent[3];
    double z[3];
    const double x[H] = {2, 5}, behind[H] = {0, 5};
    int n = trained_encode(latent, z, &s, x);
    EXPECT(n == 3 && latent[0] == 1 && latent[1] == 3 && latent[2] == 0 && z[0] == 3 && z[2] == 1,
           "%d: %d %d %d", n, latent[0], latent[1], latent[2]);
    n = trained_encode(latent, z, &s, behind);
    EXPECT(n == 1 && latent[0] == 2 && z[0] == 1, "behind: %d", n);
    n = trained_encode(latent, z, &s, centre);
    EXPECT(n == 0, "nothing: %d", n);
}

static void test_bits(void) {
    World w = world_of(SMALL, 0);
    TrainedSae one, two;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    trained_make(&one, &w, 3, 3000);
    omp_set_num_threads(2);
    trained_make(&two, &w, 3, 3000);
    omp_set_num_threads(threads);
    size_t rows = (size_t)one.n * (size_t)one.H;
    EXPECT(memcmp(one.enc, two.enc, 2 * rows * sizeof *one.enc) == 0, "two threads differ");
    for (int j = 0; j < one.n; j++) {
        double square = 0;
        for (int h = 0; h < one.H; h++)
            square += one.dec[(size_t)j * one.H + h] * one.dec[(size_t)j * one.H + h];
        EXPECT(fabs(square - 1) <= 1e-14, "row %d has length %g", j, sqrt(square));
    }
    trained_free(&one), trained_free(&two);
    world_free(&w);
}

/* What is unexplained of documents `first` .. of each corpus. */
static double unexplained(const World *w, const TrainedSae *s, int first, int n) {
    enum { H = 32 };
    double none[2 * 96 * H + 96 + H], x[H], sum[H] = {0}, loss = 0, square = 0;
    TrainedGrads g = {none, none + 96 * H, none + 2 * 96 * H, none + 2 * 96 * H + 96};
    memset(none, 0, sizeof none);
    for (int i = 0; i < 2 * n; i++) {
        sample_documents(x, w, i < n ? UNALIGNED : ALIGNED, first + i % n, 1);
        loss += trained_backward(&g, s, x);
        for (int h = 0; h < H; h++) sum[h] += x[h], square += x[h] * x[h];
    }
    for (int h = 0; h < H; h++) square -= sum[h] * sum[h] / (2 * n);
    return loss / square;
}

/* It is judged on documents that it has not seen: 11 batches, half of each corpus. */
static void test_unseen(void) {
    enum { SEEN = 11 * 128, N = 300 };
    World w = world_of(SMALL, 0);
    TrainedSae s;
    trained_make(&s, &w, 3, 3000);
    double got = trained_facts(&ex, &w, &s, N).unexplained;
    EXPECT(s.seen == SEEN, "%d documents seen", s.seen);
    double want = unexplained(&w, &s, SEEN, N), trained_on = unexplained(&w, &s, SEEN - N, N);
    EXPECT(fabs(got / want - 1) <= 1e-12 && fabs(got / trained_on - 1) > 1e-6,
           "unexplained %.9g, of what it has not seen %.9g, of the last that it has %.9g", got,
           want, trained_on);
    trained_free(&s);
    world_free(&w);
}

/* Trained longer, it comes nearer, below the floor of one vector. */
static void test_trained(void) {
    Stat few = {0}, many = {0};
    for (int i = 0; i < 2; i++) {
        World w = world_of(SMALL, i);
        for (int longer = 0; longer < 2; longer++) {
            TrainedSae s;
            trained_make(&s, &w, 3, longer ? 200000 : 10000);
            TrainedFacts f = trained_facts(&ex, &w, &s, 8000);
            add(longer ? &many : &few, f.found.error);
            /* three linear directions of 32 would leave nine tenths unexplained */
            EXPECT(!longer || (f.unexplained < 0.45 && f.alive > 0.9 && f.cosine > 0.9),
                   "unexplained %g, alive %g, cosine %g", f.unexplained, f.alive, f.cosine);
            trained_free(&s);
        }
        world_free(&w);
    }
    EXPECT(mean(&many) < 0.5 * mean(&few) && mean(&many) < closed_floor(SMALL.r),
           "errors %g and %g", mean(&few), mean(&many));
}

int main(void) {
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    test_unheard();
    test_heard();
    test_gradients();
    test_encode();
    test_bits();
    test_unseen();
    test_trained();
    exec_close(&ex);
    return test_done("theory encoders");
}
