/* mem.h - host memory that cannot fail quietly: sizes are checked, exhaustion stops the process. */
#ifndef SAILS_MEM_H
#define SAILS_MEM_H

#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

/* n zeroed elements of `size` bytes, to be freed with free(); n may be 0. */
static inline void *mem_array(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    CHECK(p, "out of memory: %zu elements of %zu bytes", n, size);
    return p;
}

/* An array of *capacity elements made large enough for `need`, by doubling. */
static inline void *mem_grow(void *p, size_t *capacity, size_t need, size_t size) {
    if (need <= *capacity) return p;
    size_t n = *capacity ? *capacity : 16;
    while (n < need) {
        CHECK(n <= (size_t)-1 / 2 / size, "out of memory: %zu elements of %zu bytes", need, size);
        n *= 2;
    }
    p = realloc(p, n * size);
    CHECK(p, "out of memory: %zu elements of %zu bytes", n, size);
    *capacity = n;
    return p;
}

static inline char *mem_string(const char *s) {
    char *copy = strdup(s);
    CHECK(copy, "out of memory");
    return copy;
}

#endif
