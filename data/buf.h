/* buf.h - a growing string of bytes, for text whose length is not known before it is read. */
#ifndef SAILS_BUF_H
#define SAILS_BUF_H

#include <stddef.h>

#include "data/base/mem.h"

/* Bytes; zero-initialise, buf_free at the end. p is NULL until something was added. */
typedef struct Buf {
    char *p;
    size_t n, capacity;
} Buf;

static inline void buf_add(Buf *b, const char *bytes, size_t n) {
    b->p = mem_grow(b->p, &b->capacity, b->n + n + 1, 1);
    if (n) memcpy(b->p + b->n, bytes, n);
    b->n += n;
    b->p[b->n] = 0;
}

static inline void buf_byte(Buf *b, char c) {
    if (b->n + 2 > b->capacity) b->p = mem_grow(b->p, &b->capacity, b->n + 2, 1);
    b->p[b->n++] = c;
    b->p[b->n] = 0;
}

static inline void buf_free(Buf *b) {
    free(b->p);
    *b = (Buf){0};
}

/* A copy of n bytes with a NUL behind them. */
static inline char *buf_copy(const char *bytes, size_t n) {
    char *p = mem_array(n + 1, 1);
    if (n) memcpy(p, bytes, n);
    return p;
}

#endif
