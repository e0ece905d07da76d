/* plan_items.h - what a plan says of one thing, and whether that is what was allocated. */
#ifndef SAILS_TEST_PLAN_ITEMS_H
#define SAILS_TEST_PLAN_ITEMS_H

#include <string.h>

#include "host/stage/plan.h"
#include "tests/test.h"

static inline bool of_rank_0(const Plan *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, name) == 0) return p->item[i].root;
    return false;
}

static inline double item(const Plan *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->item[i].name, name) == 0) return p->item[i].bytes;
    return -1;
}

/* Blocks begin at multiples of 64 bytes; the plan counts elements. */
static inline bool near(double planned, size_t real, int blocks) {
    bool ok = planned <= (double)real && (double)real <= planned + 64.0 * blocks;
    EXPECT(test_quiet || ok, "planned %.0f, allocated %zu", planned, real);
    return ok;
}

#endif
