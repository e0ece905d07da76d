/* statistics.h - what a table says about its numbers: how sure they are, and whether two rows
 * differ. All intervals are at 95 %, all tests two-sided. */
#ifndef SAILS_STATISTICS_H
#define SAILS_STATISTICS_H

#include <stddef.h>

/* NaN where the data do not tell. */
typedef struct Interval {
    double mean, low, high;
} Interval;

/* Of the mean of n independent measurements, such as the seeds of a row: Student's t with n - 1
 * degrees of freedom. One measurement has no interval, nor have equal ones, whose spread is not
 * known to be nothing; none has no mean either. */
Interval statistics_mean(const double *x, size_t n);

/* Of a share, hits of n: Wilson's score interval (J. Am. Stat. Assoc. 22, 1927), which stays
 * within 0 and 1 and has a width at 0 and n too. */
Interval statistics_share(size_t hits, size_t n);

/* Of the probability that a draw of a (m) is above one of b (n), ties counting half: the area under
 * the ROC curve. By Newcombe's method 5 (Stat. Med. 25:559, 2006), a score interval: it stays
 * within 0 and 1, and has a width where all of a is above all of b. NaN for m or n 0. */
Interval statistics_auc(const double *a, size_t m, const double *b, size_t n);

/* Student's paired t test of n pairs (a[i], b[i]): the probability of a mean difference at least so
 * far from 0 if there is none. 1 where all pairs are equal; NaN for less than two pairs, and where
 * all differ by the same, which leaves nothing to measure the difference by. */
double statistics_paired(const double *a, const double *b, size_t n);

/* McNemar's exact test: of the cases on which two rows differ, so many are the first's and so many
 * the second's. 1 when there is none. */
double statistics_mcnemar(size_t first, size_t second);

/* How far two raters agree on n cases, labels 0 .. kinds - 1: the cases on which they do, and
 * Cohen's kappa, the share of agreement beyond what their own frequencies would give by chance
 * (Educ. Psychol. Meas. 20, 1960). `weighted` counts a disagreement by how many kinds it spans
 * (linear weights; Psychol. Bull. 70, 1968), for kinds that have an order. NaN where both raters
 * know one and the same kind alone, and for no cases. */
typedef struct Raters {
    size_t n, same;
    double kappa, weighted;
} Raters;
Raters statistics_raters(const int *a, const int *b, size_t n, int kinds);

/* P(T <= t) of Student's t with v > 0 degrees of freedom: to 1e-12 for v up to 1000, then to some
 * 1e-16 v log v, as its logarithms of factorials cancel. */
double statistics_student(double t, double v);

/* The t that 2.5 % lie above. */
double statistics_student_bound(double v);

#endif
