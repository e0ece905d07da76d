/* logit_facts.c - entropy, mean and best guess of long rows. Contract: ops.h.
 *
 * A thread does whole rows: the largest logit first; then the sums, chunk by chunk in order, so
 * that their bits are the row's own. With d = z - zmax and e = exp(d), the entropy is log(sum of e)
 * - sum of e d / sum of e: neither is below 0. */
#include <math.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum { CHUNK = 1 << 13 };

static float largest(const float *x, int V) {
    int32_t m = INT32_MIN;
#pragma omp simd reduction(max : m)
    for (int i = 0; i < V; i++) {
        int32_t k = scalar_order(x[i]);
        m = k > m ? k : m;
    }
    return scalar_from_order(m);
}

static inline float capped(float x, float cap) {
    return cap > 0 ? scalar_softcap(x, cap) : x;
}

typedef struct Sums {
    double e, ed, z;
} Sums;

static void add_chunk(Sums *s, const float *x, int n, float cap, float zmax) {
    double e_sum = 0, ed_sum = 0, z_sum = 0;
#pragma omp simd reduction(+ : e_sum, ed_sum, z_sum)
    for (int i = 0; i < n; i++) {
        float z = capped(x[i], cap), d = z - zmax;
        double e = (double)scalar_exp(d);
        e_sum += e;
        ed_sum += e > 0 ? e * d : 0; /* d may be -infinity */
        z_sum += z;
    }
    s->e += e_sum, s->ed += ed_sum, s->z += z_sum;
}

/* The first of the largest? */
static bool is_first(const float *x, int target, float most) {
    if (!(x[target] == most)) return false;
    for (int i = 0; i < target; i++)
        if (x[i] == most) return false;
    return true;
}

void TWIN(logit_facts)(Exec *ex, float *entropy, float *mean, float *hit, const float *logits,
                       const int32_t *target, int N, int V, float cap) {
    OP_BEGIN(ex, logit_facts, N, V, cap);
    for (int n = 0; n < N; n++)
        CHECK(target[n] >= 0 && target[n] < V, "expected a target in [0,%d), target[%d] is %d", V,
              n, target[n]);
#pragma omp parallel for if ((size_t)N * V > OP_SMALL)
    for (int n = 0; n < N; n++) {
        const float *x = logits + (size_t)n * V;
        float most = largest(x, V), zmax = capped(most, cap);
        Sums s = {0, 0, 0};
        for (int i = 0; i < V; i += CHUNK)
            add_chunk(&s, x + i, V - i < CHUNK ? V - i : CHUNK, cap, zmax);
        entropy[n] = (float)(log(s.e) - s.ed / s.e);
        mean[n] = (float)(s.z / V);
        hit[n] = is_first(x, target[n], most);
    }
}
