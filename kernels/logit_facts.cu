/* logit_facts.cu - entropy, mean and best guess of long rows. Contract: ops.h.
 *
 * Math, with top the largest z, d = z - top and e = exp(d):
 *   entropy = log(sum of e) - sum of e d / sum of e;   mean = sum of z / V;
 *   hit = the target's logit is the largest, and no earlier one is as large
 *
 * Work split: a block per row, of as many threads as it may have: a chunk of logits has fewer than
 *   two rows for each SM. Two passes: the largest logit; the sums, four elements in f32, these in
 *   double, then over the block in a fixed tree.
 * Traffic, for 250 rows of V = 256000: at least 4NV = 256 MB, derived 76 us at an H100's 3.35 TB/s;
 *   ours 8NV, as rows do not stay in the L2 while 250 are worked on: 153 us. The logits' own
 *   product, 2NVD = 295 GFLOP at D = 2304, takes 450 us at 650 TFLOP/s.
 * Limits: none beyond the contract. A target out of range traps. */
#include <math.h>

#include "kernels/gpu.h"
#include "kernels/scalar.h"

enum { THREADS = 1024, WARPS = THREADS / WARP };

static __device__ inline float capped(float x, float cap) {
    return cap > 0 ? scalar_softcap(x, cap) : x;
}

template <bool WHOLE>
static __global__ void __launch_bounds__(THREADS)
    k_logit_facts(float *entropy, float *mean, float *hit, const float *logits,
                  const int32_t *target, int V, float cap) {
    constexpr int W = pack_len<float>;
    __shared__ float tops[WARPS];
    __shared__ double e_sums[WARPS], ed_sums[WARPS], z_sums[WARPS];
    __shared__ int befores[WARPS];
    int t = target[blockIdx.x], before = 0;
    gpu_expect(t >= 0 && t < V);
    const float *x = logits + (size_t)blockIdx.x * V;
    float most = -INFINITY;
    for (int i = threadIdx.x * W; i < V; i += THREADS * W) {
        Pack<float> a = pack_load<W>(x + i, V - i, WHOLE);
        for (int k = 0; k < W; k++)
            if (WHOLE || i + k < V) most = fmaxf(most, a.v[k]);
    }
    most = block_max(most, tops);
    float top = capped(most, cap);
    double e_sum = 0, ed_sum = 0, z_sum = 0;
    for (int i = threadIdx.x * W; i < V; i += THREADS * W) {
        Pack<float> a = pack_load<W>(x + i, V - i, WHOLE);
        float e_few = 0, ed_few = 0, z_few = 0;
        for (int k = 0; k < W; k++) {
            if (!WHOLE && i + k >= V) continue;
            float z = capped(a.v[k], cap), d = z - top, e = scalar_exp(d);
            e_few += e;
            ed_few += e > 0 ? e * d : 0; /* d may be -infinity */
            z_few += z;
            before += i + k < t && a.v[k] == most;
        }
        e_sum += e_few, ed_sum += ed_few, z_sum += z_few;
    }
    e_sum = block_sum(e_sum, e_sums);
    ed_sum = block_sum(ed_sum, ed_sums);
    z_sum = block_sum(z_sum, z_sums);
    before = block_sum(before, befores);
    if (threadIdx.x != 0) return;
    entropy[blockIdx.x] = (float)(log(e_sum) - ed_sum / e_sum);
    mean[blockIdx.x] = (float)(z_sum / V);
    hit[blockIdx.x] = x[t] == most && before == 0;
}

template <class T>
static void logit_facts(Exec *ex, float *entropy, float *mean, float *hit, const float *logits,
                        const int32_t *target, int N, int V, float cap) {
    OP_BEGIN(ex, logit_facts, N, V, cap);
    if (N == 0) return; /* an empty grid is a launch error */
    bool whole = pack_rows<float>(V, {logits});
    GPU_LAUNCH(ex, (whole ? k_logit_facts<true> : k_logit_facts<false>), N, THREADS, 0, entropy,
               mean, hit, logits, target, V, cap);
}

GPU_TWINS(logit_facts);
