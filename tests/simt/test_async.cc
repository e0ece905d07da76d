/* Asynchronous copies and tensor-core steps: the simulated device must see their misuse. Right use
 * is tested here for copies, in test_fragments.cc for matrices. Cases as in test_simt.cc. */
#include <math.h>

#include "kernels/ptx.h"
#include "tests/simt/cases.h"

enum { TILE = 64, TILES = 5, SLOTS = 2 }; /* a tile: one 4-byte or 16-byte copy per thread */

/* y = x + 1 in each block, tile by tile through two stages of shared memory; the last tile is half
 * full. */
template <class T, bool WAITS, bool GUARDS>
static __global__ void k_pipeline(T *y, const T *x, int n) {
    __shared__ __align__(16) T stage[SLOTS][TILE];
    int t = threadIdx.x, other = TILE - 1 - t;
    y += blockIdx.x * TILES * TILE;
    for (int i = 0; i < TILES + 1; i++) {
        if (i < TILES) {
            int at = i * TILE + t;
            cp_async<sizeof(T)>(&stage[i % SLOTS][t], x + at, at < n);
            cp_async_commit();
        }
        if (i == 0) continue;
        if (WAITS && i < TILES) cp_async_wait<1>();
        if (i == TILES) cp_async_wait<0>();
        __syncthreads();
        T v = stage[(i - 1) % SLOTS][other];
        v.x += 1;
        if ((i - 1) * TILE + other < n || v.x == 1) y[(i - 1) * TILE + other] = v;
        if (GUARDS) __syncthreads(); /* the stage is free for the copy after the next */
    }
}

template <class T, bool WAITS, bool GUARDS>
static void pipeline() {
    int n = TILES * TILE - TILE / 2, wrong = 0, nans = 0;
    std::vector<T> x(n);
    for (int i = 0; i < n; i++) x[i].x = (float)i;
    T *y = fresh<T>(2 * TILES * TILE), *dx = device(x);
    LAUNCH((k_pipeline<T, WAITS, GUARDS>), 2, TILE, 0, y, dx, n);
    std::vector<T> out = host(y, 2 * TILES * TILE);
    for (int i = 0; i < 2 * TILES * TILE; i++) {
        int at = i % (TILES * TILE);
        nans += isnan(out[i].x);
        wrong += !(out[i].x == (at < n ? at : 0) + 1);
    }
    printf("%s, %s\n", wrong ? "some wrong" : "0 wrong", nans ? "some NaN" : "0 NaN");
}

/* One warp, one wrong use, chosen by `fault`. */
enum Fault {
    NONE,
    NO_WAIT,
    NO_COMMIT,
    COPY_ODD_SHARED,
    COPY_ODD_GLOBAL,
    COPY_TO_GLOBAL,
    COPY_FROM_SHARED,
    COPY_PAST_END,
    LOAD_ODD,
    LOAD_GLOBAL,
    LOAD_PART_OF_WARP,
    MMA_PART_OF_WARP,
    MMA_OTHER_LINE,
    TF32_UNROUNDED
};

static __device__ void copy_wrongly(Fault fault, float4 *s, float4 *global) {
    int lane = threadIdx.x % WARP;
    char *to = reinterpret_cast<char *>(s + lane), *from = reinterpret_cast<char *>(global + lane);
    if (fault == COPY_ODD_SHARED) to += 8;
    if (fault == COPY_ODD_GLOBAL) from += 4;
    if (fault == COPY_TO_GLOBAL) to = from;
    if (fault == COPY_FROM_SHARED) from = to;
    if (fault == COPY_PAST_END) from += 16;
    cp_async<16>(to, from, true);
    if (fault != NO_COMMIT) cp_async_commit();
    if (fault != NO_WAIT) cp_async_wait<0>();
    __syncwarp();
}

static __device__ void multiply_wrongly(Fault fault, const float4 *s, float4 *global) {
    int lane = threadIdx.x % WARP;
    uint32_t a[1][4], b[1][2] = {{tf32_round(1.25f), tf32_round(1 / 3.0f)}};
    float d[1][1][4] = {};
    if (fault == LOAD_PART_OF_WARP && lane == 5) return;
    const char *row = reinterpret_cast<const char *>(s + lane);
    if (fault == LOAD_ODD) row += 8;
    if (fault == LOAD_GLOBAL) row = reinterpret_cast<const char *>(global + lane);
    ldmatrix<4, false>(a[0], row);
    if (fault == MMA_PART_OF_WARP && lane >= 16) return;
    if (fault == TF32_UNROUNDED && lane == 7) b[0][1] |= 1;
    if (fault == MMA_OTHER_LINE && lane == 3)
        mma_tf32(d, a, b);
    else
        mma_tf32(d, a, b);
    global[lane].x = d[0][0][0];
}

static __global__ void k_wrong(Fault fault, float4 *global) {
    __shared__ float4 s[WARP];
    copy_wrongly(fault, s, global);
    multiply_wrongly(fault, s, global);
}

template <Fault FAULT>
static void wrong() {
    LAUNCH(k_wrong, 1, WARP, 0, FAULT, device(std::vector<float4>(WARP)));
    cudaStreamSynchronize(stream);
    puts("not seen");
}

static const Case cases[] = {
    {"copies_16", pipeline<float4, true, true>, true, "0 wrong", "0123", "lazy", ANY_BUILD},
    {"copies_4", pipeline<float1, true, true>, true, "0 wrong", "0123", "lazy", ANY_BUILD},
    {"no_wait_read", pipeline<float4, false, true>, true, "some wrong, some NaN", "0123", "lazy",
     ANY_BUILD},
    {"no_barrier_before_copy", pipeline<float4, true, false>, true, "some wrong, some NaN", "123",
     "lazy", NO_TSAN_BUILD},
    {"reports_no_barrier_before_copy", pipeline<float4, true, false>, false, "data race", "01",
     "lazy", TSAN_BUILD},
    {"right", wrong<NONE>, true, "not seen", "01", "lazy", ANY_BUILD},
    {"no_wait", wrong<NO_WAIT>, false, "exits with 1 cp_async in flight, the oldest from", "01",
     "lazy", ANY_BUILD},
    {"no_commit", wrong<NO_COMMIT>, false, "exits with 1 cp_async in flight", "0", "lazy",
     ANY_BUILD},
    {"copy_odd_shared", wrong<COPY_ODD_SHARED>, false, "expected multiples of 16", "0", "lazy",
     ANY_BUILD},
    {"copy_odd_global", wrong<COPY_ODD_GLOBAL>, false, "expected multiples of 16", "0", "lazy",
     ANY_BUILD},
    {"copy_to_global", wrong<COPY_TO_GLOBAL>, false, "is not in shared memory", "0", "lazy",
     ANY_BUILD},
    {"copy_from_shared", wrong<COPY_FROM_SHARED>, false, "is not device memory", "0", "lazy",
     ANY_BUILD},
    {"copy_past_end", wrong<COPY_PAST_END>, false, "thread (31,0,0): cp_async", "0", "lazy",
     ANY_BUILD},
    {"load_odd", wrong<LOAD_ODD>, false, "is not a multiple of 16", "0", "lazy", ANY_BUILD},
    {"load_global", wrong<LOAD_GLOBAL>, false, "is not in shared memory", "0", "lazy", ANY_BUILD},
    {"load_part_of_warp", wrong<LOAD_PART_OF_WARP>, false, "waits for it in ldmatrix", "0", "lazy",
     ANY_BUILD},
    {"mma_part_of_warp", wrong<MMA_PART_OF_WARP>, false, "mma_tf32 (", "0", "lazy", ANY_BUILD},
    {"mma_other_line", wrong<MMA_OTHER_LINE>, false, "meets lane", "01", "lazy", ANY_BUILD},
    {"tf32_unrounded", wrong<TF32_UNROUNDED>, false, "lane 7 gives 3eaaa001", "0", "lazy",
     ANY_BUILD},
};

int main(int argc, char **argv) {
    return run_cases("test_async", cases, argc, argv);
}
