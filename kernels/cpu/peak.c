/* peak.c - what no product of this level passes: loops of nothing but its instructions, an x86
 * processor's. Contract: device.h.
 *
 * Chains of the instructions that tile.h has decided on for the kernels, whatever else the
 * processor could do. Fourteen independent ones hide the latency of any current processor. Inline
 * assembly, because compilers fold loops of intrinsics whose result is known. */
#include "kernels/cpu/gemm_kernel.h"
#include "kernels/device.h"

#if defined __x86_64__
enum { STEPS = 2000000, CHAINS = 14, RESULTS = TILE_VEC * CHAINS };

#define EACH(op, r)                                                                           \
    op(r, 0) op(r, 1) op(r, 2) op(r, 3) op(r, 4) op(r, 5) op(r, 6) op(r, 7) op(r, 8) op(r, 9) \
        op(r, 10) op(r, 11) op(r, 12) op(r, 13)
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define DOT(r, i) "vdpbf16ps %%" r "14, %%" r "15, %%" r #i "\n\t"
#define CLEAR(r, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define CLOBBERS                                                                             \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

#define CHAIN_LOOP(name, op, r)                                                    \
    static void name(void) {                                                       \
        __asm__ volatile(EACH(CLEAR, r) CLEAR(r, 14) CLEAR(r, 15)::: CLOBBERS);    \
        for (int i = 0; i < STEPS; i++) __asm__ volatile(EACH(op, r)::: CLOBBERS); \
        __asm__ volatile("vzeroupper" ::: CLOBBERS); /* SSE code follows */        \
    }

CHAIN_LOOP(fma_chains, FMA, TILE_REGISTER)
#define VECTORS \
    { fma_chains, 2.0 * RESULTS *STEPS }

#if defined UNITS_FOR_AMX
/* The numbers in the tiles do not matter: whatever a thread's last product has left there. */
enum { TILE_STEPS = 200000, TILE_FLOPS = 2 * 16 * 16 * 32 };
static void tile_chains(void) {
    amx_shape(AMX_ROWS, AMX_ROWS);
    for (int i = 0; i < TILE_STEPS; i++) {
        _tile_dpbf16ps(SUM_00, LEFT_0, RIGHT_0);
        _tile_dpbf16ps(SUM_01, LEFT_0, RIGHT_1);
        _tile_dpbf16ps(SUM_10, LEFT_1, RIGHT_0);
        _tile_dpbf16ps(SUM_11, LEFT_1, RIGHT_1);
    }
}
#define PRODUCTS \
    { tile_chains, 4.0 * TILE_STEPS *TILE_FLOPS }
#elif defined UNITS_ARE_PAIRS
CHAIN_LOOP(dot_chains, DOT, TILE_REGISTER)
#define PRODUCTS \
    { dot_chains, 4.0 * RESULTS *STEPS }
#else
#define PRODUCTS VECTORS
#endif

const PeakLoops TWIN(peak) = {.vectors = VECTORS, .products = PRODUCTS};
#endif
