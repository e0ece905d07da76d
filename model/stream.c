/* stream.c - moments of document vectors: their sums, and what tells two corpora apart. */
#include "model/stream.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"

enum { TILE = 8 /* rows of v v^T that share a pass over the documents */ };

static size_t area(const StreamMoments *s) {
    return (size_t)s->D * (size_t)s->D;
}

void stream_init(StreamMoments *s, int D, const int *layer, int n) {
    *s = (StreamMoments){.n = n, .D = D, .layer = mem_array((size_t)n, sizeof *s->layer)};
    s->counted = mem_string(""), s->model = mem_string(""), s->data = mem_string("");
    for (int i = 0; i < n; i++) {
        CHECK(i == 0 || layer[i] > layer[i - 1], "expected rising layers");
        s->layer[i] = (StreamLayer){.layer = layer[i]};
        s->layer[i].sum = mem_array(2 * (size_t)D, sizeof(double));
        s->layer[i].square = mem_array(2 * area(s), sizeof(double));
        s->layer[i].difference = mem_array(area(s), sizeof(double));
        s->layer[i].landmark = mem_array(2 * STREAM_LANDMARKS * (size_t)D, sizeof(double));
    }
}

void stream_free(StreamMoments *s) {
    for (int i = 0; i < s->n; i++) {
        free(s->layer[i].sum), free(s->layer[i].square);
        free(s->layer[i].difference), free(s->layer[i].landmark);
    }
    free(s->layer), free(s->counted), free(s->model), free(s->data), free(s->file);
    memset(s, 0, sizeof *s);
}

void stream_text(char **field, const char *text) {
    free(*field);
    *field = mem_string(text ? text : "");
}

size_t stream_bytes(int D, int layers) {
    size_t vectors = 2 + 2 * STREAM_LANDMARKS + 3 * (size_t)D;
    return (size_t)layers * vectors * (size_t)D * sizeof(double);
}

/* ---------------------------------------------------------------------------------- the sums -- */

/* Rows first .. of square += sum of v v^T, from the diagonal on; v (n,D), one every ld numbers. */
static void add_rows(double *square, const double *v, size_t ld, int n, int D, int first) {
    for (int i = 0; i < n; i++) {
        const double *x = v + (size_t)i * ld;
        for (int a = first; a < first + TILE && a < D; a++) {
            double *row = square + (size_t)a * (size_t)D, z = x[a];
            for (int b = a; b < D; b++) row[b] += z * x[b];
        }
    }
}

/* Each element is one thread's, which adds the documents in order. */
static void add_squares(double *square, const double *v, size_t ld, int n, int D) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int first = 0; first < D; first += TILE) add_rows(square, v, ld, n, D, first);
}

/* d (pairs,D) = v0 - v1 of the items that are pairs, at one layer; returns how many there are. */
static int differences(double *d, const uint8_t *has, const double *v, size_t ld, size_t corpus,
                       int items, int D) {
    int n = 0;
    for (int i = 0; i < items; i++) {
        const double *v0 = v + (size_t)i * ld, *v1 = v0 + corpus;
        if (has[i] != 3) continue;
        for (int k = 0; k < D; k++) d[(size_t)n * (size_t)D + (size_t)k] = v0[k] - v1[k];
        n++;
    }
    return n;
}

void stream_add(StreamMoments *s, const uint8_t *has, const double *v, int items) {
    size_t D = (size_t)s->D, corpus = (size_t)s->n * D, ld = 2 * corpus;
    double *d = mem_array((size_t)items * D, sizeof *d);
    int pairs = 0;
    for (int l = 0; l < s->n; l++) {
        StreamLayer *to = &s->layer[l];
        for (size_t c = 0; c < 2; c++) {
            const double *of = v + c * corpus + (size_t)l * D;
            for (int i = 0; i < items; i++)
                for (size_t k = 0; k < D; k++) to->sum[c * D + k] += of[(size_t)i * ld + k];
            add_squares(to->square + c * D * D, of, ld, items, s->D);
        }
        pairs = differences(d, has, v + (size_t)l * D, ld, corpus, items, s->D);
        add_squares(to->difference, d, D, pairs, s->D);
    }
    for (int i = 0; i < items; i++)
        for (int c = 0; c < 2; c++) s->documents[c] += has[i] >> c & 1;
    s->pairs += pairs;
    free(d);
}

void stream_put_landmark(StreamMoments *s, int c, int at, const double *v) {
    size_t D = (size_t)s->D, row = ((size_t)c * STREAM_LANDMARKS + (size_t)at) * D;
    CHECK(at >= 0 && at < STREAM_LANDMARKS, "landmark %d", at);
    for (int l = 0; l < s->n; l++)
        memcpy(s->layer[l].landmark + row, v + (size_t)l * D, D * sizeof *v);
}

static void mirror(double *square, int D) {
    for (int a = 0; a < D; a++)
        for (int b = 0; b < a; b++)
            square[(size_t)a * (size_t)D + (size_t)b] = square[(size_t)b * (size_t)D + (size_t)a];
}

static double trace(const double *square, int D) {
    double sum = 0;
    for (int k = 0; k < D; k++) sum += square[(size_t)k * (size_t)D + (size_t)k];
    return sum;
}

/* The diagonal has a square of every number that was added. */
bool stream_finish(StreamMoments *s, Err *err) {
    for (int c = 0; c < 2; c++)
        if (s->documents[c] < 2)
            return err_set(err, EXIT_INPUT,
                           "the %s corpus has %lld documents with tokens that count; give it two "
                           "or more",
                           c ? "unaligned" : "aligned", (long long)s->documents[c]);
    for (int i = 0; i < s->n; i++) {
        StreamLayer *l = &s->layer[i];
        for (size_t c = 0; c < 2; c++) mirror(l->square + c * area(s), s->D);
        mirror(l->difference, s->D);
        if (!isfinite(trace(l->square, s->D)) || !isfinite(trace(l->square + area(s), s->D)))
            return err_set(err, EXIT_NUMBERS,
                           "layer %d: the stream is not finite; is the checkpoint sound?",
                           l->layer);
    }
    return true;
}

/* ----------------------------------------------------------------------- what tells them apart */

/* Of corpus c at layer number i: the mean square of its vectors' lengths. */
static double mean_square(const StreamMoments *s, int i, int c) {
    return trace(s->layer[i].square + (size_t)c * area(s), s->D) / (double)s->documents[c];
}

/* N terms added up in double are off by N 2^-53 of the sum of their sizes at most; a covariance is
 * so thrice, by its squares and twice by the mean. */
static double rounding(const StreamMoments *s, double size) {
    return 0x1p-51 * (double)(s->documents[0] + s->documents[1]) * size;
}

static double mean_at(const StreamMoments *s, int i, int c, int k) {
    return s->layer[i].sum[(size_t)c * (size_t)s->D + (size_t)k] / (double)s->documents[c];
}

double stream_mean(double *x, const StreamMoments *s, int i) {
    for (int k = 0; k < s->D; k++) x[k] = mean_at(s, i, 0, k) - mean_at(s, i, 1, k);
    return rounding(s, sqrt(mean_square(s, i, 0)) + sqrt(mean_square(s, i, 1)));
}

double stream_covariance(double *A, const StreamMoments *s, int i) {
    size_t D = (size_t)s->D;
    for (size_t a = 0; a < D; a++)
        for (size_t b = 0; b < D; b++) {
            double cov[2];
            for (int c = 0; c < 2; c++)
                cov[c] = s->layer[i].square[((size_t)c * D + a) * D + b] / (double)s->documents[c] -
                         mean_at(s, i, c, (int)a) * mean_at(s, i, c, (int)b);
            A[a * D + b] = cov[0] - cov[1];
        }
    return rounding(s, mean_square(s, i, 0) + mean_square(s, i, 1));
}

double stream_pairs(double *A, const StreamMoments *s, int i) {
    CHECK(s->pairs > 0, "expected pairs");
    for (size_t j = 0; j < area(s); j++) A[j] = s->layer[i].difference[j] / (double)s->pairs;
    return rounding(s, trace(A, s->D));
}

double stream_shared(const StreamMoments *s, int i) {
    double n = (double)s->pairs, of_mean[2] = {0}, of_difference = 0;
    if (s->pairs == 0) return NAN;
    for (int k = 0; k < s->D; k++) {
        double m0 = mean_at(s, i, 0, k), m1 = mean_at(s, i, 1, k);
        of_mean[0] += m0 * m0, of_mean[1] += m1 * m1;
        of_difference += (m0 - m1) * (m0 - m1);
    }
    double apart = mean_square(s, i, 0) - of_mean[0] + mean_square(s, i, 1) - of_mean[1];
    double pairs = trace(s->layer[i].difference, s->D) / n - of_difference;
    return apart > 0 ? 1 - pairs / apart : NAN;
}
