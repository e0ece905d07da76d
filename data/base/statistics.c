/* statistics.c - Student's t by the incomplete beta function, and what follows from it. */
#include "data/base/statistics.h"

#include <math.h>
#include <stdlib.h>

#include "data/base/mem.h"

/* The quantile of the normal distribution at 0.975. */
static const double NORMAL = 1.959963984540054;
static const double TAIL = 0.025;

/* The continued fraction of the incomplete beta function, by Lentz's method; converges quickly for
 * x < (a + 1)/(a + b + 2). Numerators: Abramowitz and Stegun 26.5.8. */
static double beta_fraction(double x, double a, double b) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m < 10000; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        const double term[] = {even, odd};
        double step = 1;
        for (int i = 0; i < 2; i++) {
            d = 1 + term[i] * d, c = 1 + term[i] / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            step = c * d;
            f *= step;
        }
        if (fabs(step - 1) < 1e-16) break;
    }
    return f;
}

/* I_x(a, b), the regularised incomplete beta function. */
static double beta_share(double x, double a, double b) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(x, a, b) / a;
    return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double statistics_student(double t, double v) {
    double tail = 0.5 * beta_share(v / (v + t * t), v / 2, 0.5);
    return t > 0 ? 1 - tail : tail;
}

double statistics_student_bound(double v) {
    double low = 0, high = 16;
    while (statistics_student(-high, v) > TAIL) high *= 2;
    for (int i = 0; i < 200 && low < high; i++) {
        double middle = 0.5 * (low + high);
        if (statistics_student(-middle, v) > TAIL)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* Mean and its standard error; NaN where n is too small for them. */
static double mean_of(const double *x, size_t n, double *error) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    double mean = n ? sum / (double)n : NAN;
    for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    *error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN;
    return mean;
}

Interval statistics_mean(const double *x, size_t n) {
    double error, mean = mean_of(x, n, &error);
    double half = error > 0 ? error * statistics_student_bound((double)(n - 1)) : NAN;
    return (Interval){mean, mean - half, mean + half};
}

Interval statistics_share(size_t hits, size_t n) {
    if (n == 0) return (Interval){NAN, NAN, NAN};
    double p = (double)hits / (double)n, z2 = NORMAL * NORMAL / (double)n;
    double middle = (p + z2 / 2) / (1 + z2);
    double half = NORMAL * sqrt(p * (1 - p) / (double)n + z2 / (4 * (double)n)) / (1 + z2);
    return (Interval){p, hits == 0 ? 0 : middle - half, hits == n ? 1 : middle + half};
}

static double score_error(double p, double m, double n) {
    double N = (m + n) / 2 - 1;
    return sqrt(p * (1 - p) * (1 + N * (1 - p) / (2 - p) + N * p / (1 + p)) / (m * n));
}

/* The share furthest from `mean`, towards `end`, that lies within 1.96 of its own error of it. */
static double score_bound(double mean, double end, double m, double n) {
    double in = mean, out = end;
    for (int i = 0; i < 200; i++) {
        double middle = 0.5 * (in + out);
        if (fabs(middle - mean) <= NORMAL * score_error(middle, m, n))
            in = middle;
        else
            out = middle;
    }
    return in;
}

Interval statistics_auc(const double *a, size_t m, const double *b, size_t n) {
    if (m == 0 || n == 0) return (Interval){NAN, NAN, NAN};
    double above = 0, M = (double)m, N = (double)n;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) above += a[i] > b[j] ? 1 : a[i] == b[j] ? 0.5 : 0;
    double mean = above / (M * N);
    return (Interval){mean, score_bound(mean, 0, M, N), score_bound(mean, 1, M, N)};
}

double statistics_paired(const double *a, const double *b, size_t n) {
    double sum = 0, squares = 0;
    if (n < 2) return NAN;
    for (size_t i = 0; i < n; i++) sum += a[i] - b[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    double error = sqrt(squares / (double)(n - 1) / (double)n);
    if (error == 0) return mean == 0 ? 1 : NAN;
    return 2 * statistics_student(-fabs(mean) / error, (double)(n - 1));
}

/* Of n = first + second fair coins, min(first, second) or fewer fall so: I_1/2(n - k, k + 1). */
double statistics_mcnemar(size_t first, size_t second) {
    double n = (double)(first + second), k = (double)(first < second ? first : second);
    return fmin(1, 2 * beta_share(0.5, n - k, k + 1));
}

/* 1 - disagreement seen / disagreement by chance; `most` is what one case may weigh. */
static double kappa(const size_t *of_a, const size_t *of_b, int kinds, double n, double seen,
                    int most) {
    double chance = 0;
    for (int i = 0; i < kinds; i++)
        for (int j = 0; j < kinds; j++) {
            int apart = abs(i - j);
            chance += (apart < most ? apart : most) * (double)of_a[i] * (double)of_b[j] / n;
        }
    return chance > 0 ? 1 - seen / chance : NAN;
}

Raters statistics_raters(const int *a, const int *b, size_t n, int kinds) {
    Raters r = {.n = n};
    size_t *of_a = mem_array((size_t)kinds, sizeof *of_a);
    size_t *of_b = mem_array((size_t)kinds, sizeof *of_b);
    double apart = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(a[i] >= 0 && a[i] < kinds && b[i] >= 0 && b[i] < kinds, "case %zu: %d and %d of %d",
              i, a[i], b[i], kinds);
        of_a[a[i]]++, of_b[b[i]]++;
        r.same += a[i] == b[i];
        apart += abs(a[i] - b[i]);
    }
    r.kappa = kappa(of_a, of_b, kinds, (double)n, (double)(n - r.same), 1);
    r.weighted = kappa(of_a, of_b, kinds, (double)n, apart, kinds);
    free(of_a), free(of_b);
    return r;
}
