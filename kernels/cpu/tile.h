/* tile.h - vectors, as wide as the processor's.
 *
 * With vector types, not intrinsics: the compiler makes AVX-512, AVX2 or SSE of them. */
#ifndef SAILS_TILE_H
#define SAILS_TILE_H

#include <stddef.h>

#if defined __AVX512F__
enum { TILE_VEC = 16 };
#elif defined __AVX__
enum { TILE_VEC = 8 };
#else
enum { TILE_VEC = 4 };
#endif

typedef float tile_vec __attribute__((vector_size(TILE_VEC * sizeof(float))));

static inline int tile_pad(int n, int multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* What a product does to C. */
enum TileOut { TILE_SET, TILE_ADD };

#if defined __clang__
#define TILE_UNROLL _Pragma("unroll")
#else
#define TILE_UNROLL _Pragma("GCC unroll 24")
#endif

#endif
