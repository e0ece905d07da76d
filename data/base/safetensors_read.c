/* safetensors_read.c - elements of a mapped tensor as f32. */
#include "data/base/safetensors.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/bf16.h"
#include "kernels/check.h"

/* A half's exponent and fraction, moved to where f32 has them, read as 2^-112 of its value, also
 * for subnormals: the product is exact. Infinity and NaN would become numbers and are set apart.
 * No branch, so that the loop vectorises. */
static inline float half_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)(h & 0x7fff) << 13, special = (uint32_t) - ((h & 0x7c00) == 0x7c00);
    float f;
    memcpy(&f, &u, sizeof f);
    f *= 0x1p112f;
    uint32_t v;
    memcpy(&v, &f, sizeof v);
    v = (v & ~special) | ((u | 0x7f800000u) & special) | (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &v, sizeof f);
    return f;
}

void st_read_f32(const StTensor *t, float *to, size_t first, size_t n) {
    CHECK(first <= t->count && n <= t->count - first, "%s: elements %zu + %zu of %zu", t->name,
          first, n, t->count);
    const char *from = (const char *)t->data + first * st_type_size(t->type);
    if (t->type == ST_F32) {
        if (n) memcpy(to, from, n * sizeof *to);
    } else if (t->type == ST_BF16) {
        for (size_t i = 0; i < n; i++) {
            bf16 h;
            memcpy(&h, from + 2 * i, sizeof h);
            to[i] = bf16_to_f32(h);
        }
    } else if (t->type == ST_F64) {
        for (size_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, from + 8 * i, sizeof x);
            to[i] = (float)x;
        }
    } else {
        CHECK(t->type == ST_F16, "%s: expected a float tensor, it is %s", t->name,
              st_type_name(t->type));
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, from + 2 * i, sizeof h);
            to[i] = half_to_f32(h);
        }
    }
}

void st_release(const StTensor *t, size_t first, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = st_type_size(t->type);
    uintptr_t from = (uintptr_t)t->data + first * size, to = from + n * size;
    from = (from + page - 1) / page * page; /* whole pages within */
    to = to / page * page;
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED); /* a wish: may fail */
}

bool st_stores(const StTensor *t, enum Dtype dtype) {
    return t->type == (dtype == DTYPE_F32 ? ST_F32 : ST_BF16);
}
