/* counted_heap.h - what this process has from malloc, and the most that it had while it was
 * watched. For one file of a test, whose malloc this is. */
#ifndef SAILS_TEST_COUNTED_HEAP_H
#define SAILS_TEST_COUNTED_HEAP_H

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

static atomic_long heap_live, heap_most;
static atomic_bool heap_watched;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* they have one of their own */
enum { HEAP_COUNTED = false };
#else
enum { HEAP_COUNTED = true };
void *__libc_malloc(size_t n), *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n), *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static void *counted(void *p) {
    long now =
        atomic_fetch_add(&heap_live, (long)malloc_usable_size(p)) + (long)malloc_usable_size(p);
    long was = atomic_load(&heap_most);
    while (atomic_load(&heap_watched) && now > was &&
           !atomic_compare_exchange_weak(&heap_most, &was, now))
        continue;
    return p;
}
void *malloc(size_t n) {
    return counted(__libc_malloc(n));
}
void *calloc(size_t n, size_t size) {
    return counted(__libc_calloc(n, size));
}
void *realloc(void *p, size_t n) {
    atomic_fetch_sub(&heap_live, (long)malloc_usable_size(p));
    return counted(__libc_realloc(p, n));
}
void *memalign(size_t align, size_t n) {
    return counted(__libc_memalign(align, n));
}
void *aligned_alloc(size_t align, size_t n) {
    return memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n) {
    *p = memalign(align, n);
    return *p ? 0 : ENOMEM;
}
void free(void *p) {
    atomic_fetch_sub(&heap_live, (long)malloc_usable_size(p));
    __libc_free(p);
}
#endif

/* From here on; returns what there is now. */
static inline long heap_begin(void) {
    atomic_store(&heap_most, atomic_load(&heap_live));
    return atomic_load(&heap_live);
}

#endif
