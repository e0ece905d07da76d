/* tile.h - vectors, as wide as the level's, and the instructions that multiply them.
 *
 * With vector types, not intrinsics: the compiler makes AVX-512, AVX2 or NEON of them. Decided here
 * alone, for the kernels, for the peaks that they are measured against (peak.c) and for what the op
 * table says of itself: TILE_PAIRS, that this twin multiplies bf16 in pairs (all else is f32), and
 * TILE_AMX, that AMX does it (tdpbf16ps; else vdpbf16ps). */
#ifndef SAILS_TILE_H
#define SAILS_TILE_H

#include <stddef.h>

#if defined __AVX512F__
#define TILE_REGISTER "zmm"
enum { TILE_VEC = 16 };
#elif defined __AVX__
#define TILE_REGISTER "ymm"
enum { TILE_VEC = 8 };
#else
enum { TILE_VEC = 4 };
#endif

#if defined TWIN_bf16 && defined __AVX512BF16__
#define TILE_PAIRS
#endif
#if defined TWIN_bf16 && (defined __AMX_BF16__ || defined __AMXBF16__) /* gcc, older Clang */
#define TILE_AMX
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
