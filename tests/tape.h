/* tape.h - derivatives that nobody derived: arithmetic on numbers in double leaves each of them on
 * a tape with its slopes by what it was made from, and the tape, read backwards, gives the slope of
 * the last one by all. A number is its place on the tape. */
#ifndef SAILS_TEST_TAPE_H
#define SAILS_TEST_TAPE_H

#include <math.h>

#include "data/base/mem.h"

typedef struct TapeNode {
    double value, slope; /* slope: of the last number, by this one */
    double by[3];
    int from[3]; /* the lower places of what it was made from; 0 with a slope of 0: nothing */
} TapeNode;

typedef struct Tape {
    TapeNode *node;
    size_t n, room;
} Tape;

static inline int tape_put(Tape *t, TapeNode node) {
    t->node = mem_grow(t->node, &t->room, t->n + 1, sizeof *t->node);
    t->node[t->n] = node;
    return (int)t->n++;
}

static inline double tape_value(const Tape *t, int a) {
    return t->node[a].value;
}

/* A number that is made from none: a parameter or a constant. */
static inline int tape_leaf(Tape *t, double value) {
    return tape_put(t, (TapeNode){.value = value});
}

/* f(a), whose value and slope the caller knows. */
static inline int tape_of(Tape *t, int a, double value, double by) {
    return tape_put(t, (TapeNode){.value = value, .by = {by}, .from = {a}});
}

static inline int tape_add(Tape *t, int a, int b) {
    double value = tape_value(t, a) + tape_value(t, b);
    return tape_put(t, (TapeNode){.value = value, .by = {1, 1}, .from = {a, b}});
}

static inline int tape_mul(Tape *t, int a, int b) {
    double x = tape_value(t, a), y = tape_value(t, b);
    return tape_put(t, (TapeNode){.value = x * y, .by = {y, x}, .from = {a, b}});
}

static inline int tape_scale(Tape *t, int a, double by) {
    return tape_of(t, a, by * tape_value(t, a), by);
}

/* sum + a b */
static inline int tape_mac(Tape *t, int sum, int a, int b) {
    double x = tape_value(t, a), y = tape_value(t, b);
    return tape_put(
        t, (TapeNode){.value = tape_value(t, sum) + x * y, .by = {1, y, x}, .from = {sum, a, b}});
}

static inline int tape_exp(Tape *t, int a) {
    double e = exp(tape_value(t, a));
    return tape_of(t, a, e, e);
}

static inline int tape_tanh(Tape *t, int a) {
    double y = tanh(tape_value(t, a));
    return tape_of(t, a, y, 1 - y * y);
}

static inline int tape_log(Tape *t, int a) {
    return tape_of(t, a, log(tape_value(t, a)), 1 / tape_value(t, a));
}

static inline int tape_inverse(Tape *t, int a) {
    double y = 1 / tape_value(t, a);
    return tape_of(t, a, y, -y * y);
}

/* The slopes of the last number by all others. */
static inline void tape_back(Tape *t) {
    for (size_t i = 0; i < t->n; i++) t->node[i].slope = i + 1 == t->n;
    for (size_t i = t->n; i-- > 0;) {
        const TapeNode *node = &t->node[i];
        for (int k = 0; k < 3; k++) t->node[node->from[k]].slope += node->slope * node->by[k];
    }
}

static inline void tape_free(Tape *t) {
    free(t->node);
    *t = (Tape){0};
}

#endif
