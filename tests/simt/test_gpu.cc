/* What kernels share through kernels/gpu.h: reductions over warps, and launches with more
 * shared memory than the default. */
#include <math.h>

#include "kernels/gpu.h"
#include "tests/simt/cases.h"

enum { WARPS = 5, THREADS = WARPS * WARP, RESULTS = 2 };

static __global__ void k_reduce(float *y) {
    int t = threadIdx.x;
    float mine = (float)(t * 37 % THREADS) - 100;
    y[t * RESULTS] = warp_sum(mine);
    y[t * RESULTS + 1] = warp_max(t == 7 ? NAN : mine);
}

static void reductions() {
    float *y = fresh<float>(THREADS * RESULTS);
    LAUNCH(k_reduce, 1, THREADS, 0, y);
    std::vector<float> got = host(y, THREADS * RESULTS);
    float sum[WARPS] = {}, max[WARPS];
    int wrong = 0;
    for (int w = 0; w < WARPS; w++) max[w] = -INFINITY;
    for (int t = 0; t < THREADS; t++) {
        float v = (float)(t * 37 % THREADS) - 100, &largest = max[t / WARP];
        sum[t / WARP] += v;
        if (t != 7) largest = fmaxf(largest, v);
    }
    for (int t = 0; t < THREADS; t++)
        wrong += got[t * RESULTS] != sum[t / WARP] || got[t * RESULTS + 1] != max[t / WARP];
    puts(wrong ? "some wrong" : "0 wrong");
}

static __global__ void k_last_byte(unsigned char *y, int bytes) {
    GPU_DYN_SHARED(unsigned char, s);
    s[bytes - 1] = 42;
    *y = s[bytes - 1];
}

static void shared_bytes(int kilobytes) {
    Exec ex = {};
    CudaState state = {};
    state.stream = stream;
    ex.state = &state;
    unsigned char *y = fresh<unsigned char>(1);
    GPU_LAUNCH(&ex, k_last_byte, 1, 1, kilobytes << 10, y, kilobytes << 10);
    printf("%d\n", host(y, 1)[0]);
}

static const Case cases[] = {
    {"reductions", reductions, true, "0 wrong", "0123", "lazy", ANY_BUILD},
    {"shared_default", [] { shared_bytes(48); }, true, "42", "0", "lazy", ANY_BUILD},
    {"shared_asked_for", [] { shared_bytes(163); }, true, "42", "0", "lazy", ANY_BUILD},
    {"shared_too_much", [] { shared_bytes(164); }, false, "k_last_byte: ", "0", "lazy", ANY_BUILD},
};

int main(int argc, char **argv) {
    return run_cases("test_gpu", cases, argc, argv);
}
