/* noise.c - a million pseudo-random numbers, copied until the tensor is full. */
#include "host/stage/noise.h"

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "kernels/bf16.h"

enum { TILE = (1 << 20) + 7 }; /* no divisor of a row's length */

void noise_fill(Exec *ex, void *p, size_t n, enum Dtype t, double scale) {
    size_t size = dtype_size(t), tile = n < TILE ? n : TILE;
    char *host = mem_array(tile, size);
    for (size_t i = 0; i < tile; i++) {
        float f = (float)(scale * ((double)(rng_u64(0, 0, i) >> 11) * 0x1p-52 - 1));
        bf16 h = bf16_from_f32(f);
        memcpy(host + i * size, t == DTYPE_F32 ? (void *)&f : (void *)&h, size);
    }
    for (size_t at = 0; at < n; at += tile)
        exec_copy_in(ex, (char *)p + at * size, host, (n - at < tile ? n - at : tile) * size);
    free(host);
}
