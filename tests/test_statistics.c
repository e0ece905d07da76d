/* Intervals and tests of the tables, against closed forms and sums. */
#include "data/base/statistics.h"

#include <math.h>

#include "tests/test.h"

static bool near(double x, double expected, double tolerance) {
    return fabs(x - expected) <= tolerance;
}

/* Student's t has closed forms for few degrees of freedom, and is symmetric. */
static void test_student(void) {
    for (double t = -40; t <= 40; t += 0.37) {
        double one = 0.5 + atan(t) / M_PI, two = 0.5 + t / (2 * sqrt(2 + t * t));
        double q = 1 + t * t / 4, four = 0.5 + 0.375 * t / sqrt(q) * (1 - t * t / (12 * q));
        EXPECT(near(statistics_student(t, 1), one, 1e-12), "t %g, 1: %.17g, expected %.17g", t,
               statistics_student(t, 1), one);
        EXPECT(near(statistics_student(t, 2), two, 1e-12), "t %g, 2: %.17g, expected %.17g", t,
               statistics_student(t, 2), two);
        EXPECT(near(statistics_student(t, 4), four, 1e-12), "t %g, 4: %.17g, expected %.17g", t,
               statistics_student(t, 4), four);
        double sum = statistics_student(t, 7.5) + statistics_student(-t, 7.5);
        EXPECT(near(sum, 1, 1e-12), "t %g: both tails %.17g", t, sum);
    }
    double far = statistics_student(1.5, 1e8), normal = 0.5 * erfc(-1.5 / sqrt(2));
    EXPECT(near(far, normal, 1e-8), "many degrees: %.17g, the normal %.17g", far, normal);
}

/* Two values x, y: half a width is |x - y|/2 tan(0.475 pi), since one degree is Cauchy's. */
static void test_mean(void) {
    const double two[] = {3, 5}, three[] = {1, 2, 6};
    Interval i = statistics_mean(two, 2);
    EXPECT(i.mean == 4 && near(i.high - 4, tan(0.475 * M_PI), 1e-9) &&
               near(4 - i.low, i.high - 4, 1e-12),
           "%g %g %g", i.low, i.mean, i.high);
    /* two degrees: t solves t / (2 sqrt(2 + t^2)) = 0.475; the error is sqrt(7/3) */
    double t = 0.95 * sqrt(2 / (1 - 0.95 * 0.95)), half = t * sqrt(7.0 / 3);
    i = statistics_mean(three, 3);
    EXPECT(i.mean == 3 && near(i.low, 3 - half, 1e-9) && near(i.high, 3 + half, 1e-9), "%g %g %g",
           i.low, i.mean, i.high);
    const double equal[] = {1, 1};
    i = statistics_mean(equal, 2);
    EXPECT(i.mean == 1 && isnan(i.low) && isnan(i.high), "equal: %g %g %g", i.low, i.mean, i.high);
    i = statistics_mean(two, 1);
    EXPECT(i.mean == 3 && isnan(i.low) && isnan(i.high), "one: %g %g %g", i.low, i.mean, i.high);
    i = statistics_mean(two, 0);
    EXPECT(isnan(i.mean) && isnan(i.low), "none: %g %g", i.mean, i.low);
}

/* The bounds of Wilson's interval are the shares whose own deviation from what was seen is 1.96. */
static void test_share(void) {
    for (size_t n = 1; n < 400; n = 2 * n + 1)
        for (size_t k = 0; k <= n; k++) {
            Interval i = statistics_share(k, n);
            double p = (double)k / (double)n, z = 1.959963984540054;
            const double bound[] = {i.low, i.high};
            EXPECT(i.mean == p && i.low <= p && i.high >= p && i.low >= 0 && i.high <= 1,
                   "%zu of %zu: %g %g %g", k, n, i.low, i.mean, i.high);
            for (int b = 0; b < 2; b++) {
                if (bound[b] == (b ? 1 : 0)) continue;
                double sd = sqrt(bound[b] * (1 - bound[b]) / (double)n);
                EXPECT(near(fabs(bound[b] - p) / sd, z, 1e-9), "%zu of %zu: bound %g is %g off", k,
                       n, bound[b], fabs(bound[b] - p) / sd);
            }
        }
    EXPECT(isnan(statistics_share(0, 0).mean), "a share of none");
    EXPECT(statistics_share(0, 10).low == 0 && statistics_share(10, 10).high == 1, "the ends");
}

static void test_paired(void) {
    const double a[] = {1, 2, 3, 4}, b[] = {0, 2.5, 2, 3}, c[] = {0, 1, 2, 3};
    /* differences 1, -0.5, 1, 1: mean 0.625, sum of squares about it 1.6875 */
    double t = 0.625 / sqrt(1.6875 / 3 / 4), p = 2 * statistics_student(-t, 3);
    EXPECT(near(statistics_paired(a, b, 4), p, 1e-14), "%.17g, expected %.17g",
           statistics_paired(a, b, 4), p);
    EXPECT(statistics_paired(b, a, 4) == statistics_paired(a, b, 4), "it has a direction");
    EXPECT(p > 0.15 && p < 0.2, "p %g", p); /* t = 1.667: tables have 0.19 there */
    EXPECT(isnan(statistics_paired(a, c, 4)) && statistics_paired(a, a, 4) == 1, "no spread");
    EXPECT(isnan(statistics_paired(a, b, 1)), "one pair");
}

/* Sums of binomial coefficients. */
static void test_mcnemar(void) {
    for (size_t n = 1; n <= 50; n++)
        for (size_t k = 0; 2 * k < n; k++) {
            double sum = 0, choose = 1;
            for (size_t i = 0; i <= k; i++) {
                sum += choose;
                choose = choose * (double)(n - i) / (double)(i + 1);
            }
            double p = fmin(1, 2 * sum * pow(0.5, (double)n));
            EXPECT(near(statistics_mcnemar(k, n - k), p, 1e-12 * p), "%zu %zu: %.17g not %.17g", k,
                   n - k, statistics_mcnemar(k, n - k), p);
            EXPECT(statistics_mcnemar(n - k, k) == statistics_mcnemar(k, n - k), "a direction");
        }
    EXPECT(statistics_mcnemar(0, 0) == 1 && statistics_mcnemar(8, 8) == 1, "no difference");
    EXPECT(statistics_mcnemar(0, 1000) < 1e-290, "a thousand to none");
}

/* Two tables of counts, worked by hand: Cohen's own kind, and one whose order matters. */
static void test_raters(void) {
    int a[100], b[100];
    size_t n = 0;
    /* rows a, columns b: 20 5 / 10 15; agreement 35/50, chance 25*30 + 25*20 over 2500 = 0.5 */
    static const int two[2][2] = {{20, 5}, {10, 15}};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            for (int k = 0; k < two[i][j]; k++) a[n] = i, b[n++] = j;
    Raters r = statistics_raters(a, b, n, 2);
    EXPECT(r.n == 50 && r.same == 35 && near(r.kappa, 0.4, 1e-14), "%zu %zu %g", r.n, r.same,
           r.kappa);
    EXPECT(near(r.weighted, 0.4, 1e-14), "two kinds have one distance: %g", r.weighted);
    /* 4 2 0 / 1 3 1 / 1 1 3: a has 6 5 5, b has 6 6 4. Seen: apart by one 5 times, by two once, 7
     * in all; by chance (6 (6 + 2 4) + 5 (6 + 4) + 5 (2 6 + 6)) / 16 = 224/16. Different 6 times;
     * by chance 16 - (36 + 30 + 20) / 16. */
    static const int three[3][3] = {{4, 2, 0}, {1, 3, 1}, {1, 1, 3}};
    n = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < three[i][j]; k++) a[n] = i, b[n++] = j;
    r = statistics_raters(a, b, n, 3);
    EXPECT(near(r.weighted, 1 - 7 / 14.0, 1e-14), "weighted %g", r.weighted);
    EXPECT(near(r.kappa, 1 - 6 / (16 - 86.0 / 16), 1e-14), "plain %g", r.kappa);
    Raters back = statistics_raters(b, a, n, 3), self = statistics_raters(a, a, n, 3);
    EXPECT(back.kappa == r.kappa && back.weighted == r.weighted, "it has a direction");
    EXPECT(self.kappa == 1 && self.weighted == 1 && self.same == n, "with oneself %g", self.kappa);
    EXPECT(isnan(statistics_raters(a, b, 0, 3).kappa), "no cases");
    EXPECT(isnan(statistics_raters(a, a, 4, 3).kappa), "four cases of one kind");
}

/* The bounds are those whose own error is a 1.96th of the distance, ties count half, and the two
 * sides may change places. */
static void test_auc(void) {
    const double a[] = {3, 5, 2, 2, 9, 7}, b[] = {1, 2, 4, 0};
    Interval i = statistics_auc(a, 6, b, 4), back = statistics_auc(b, 4, a, 6);
    EXPECT(i.mean == (3 + 4 + 2.5 + 2.5 + 4 + 4) / 24, "area %g", i.mean);
    EXPECT(near(back.mean, 1 - i.mean, 1e-15) && near(back.low, 1 - i.high, 1e-12), "%g to %g",
           back.low, i.high);
    const double bound[] = {i.low, i.high};
    for (int k = 0; k < 2; k++) {
        double p = bound[k], N = 5 - 1;
        double v = p * (1 - p) * (1 + N * (1 - p) / (2 - p) + N * p / (1 + p)) / 24;
        EXPECT(near(fabs(p - i.mean), 1.959963984540054 * sqrt(v), 1e-9), "bound %g of %g", p,
               i.mean);
    }
    EXPECT(i.low < i.mean && i.mean < i.high && i.high < 1, "%g %g %g", i.low, i.mean, i.high);
    Interval all = statistics_auc(a + 4, 2, b, 4);
    EXPECT(all.mean == 1 && all.high == 1 && all.low > 0.2 && all.low < 1, "apart: %g to %g",
           all.low, all.high);
    EXPECT(isnan(statistics_auc(a, 0, b, 4).mean) && isnan(statistics_auc(a, 6, b, 0).low), "none");
}

int main(void) {
    test_raters();
    test_student();
    test_mean();
    test_share();
    test_auc();
    test_paired();
    test_mcnemar();
    return test_done("statistics");
}
