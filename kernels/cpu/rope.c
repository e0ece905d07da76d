/* rope.c - rotary position embedding: table, rotation and inverse. Contracts: ops.h. */
#include <math.h>

#include "kernels/cpu/twin.h"

size_t TWIN(rope_table_scratch)(Exec *ex, int E) {
    (void)ex;
    return (size_t)(E / 2) * sizeof(float);
}

void TWIN(rope_table)(Exec *ex, float *cosine, float *sine, int P, int E, double theta) {
    OP_BEGIN(ex, rope_table, P, E, theta);
    int half = E / 2;
    float *frequency = exec_scratch(ex, TWIN(rope_table_scratch)(ex, E));
    for (int i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)E;
        frequency[i] = 1 / (float)pow((double)(float)theta, (double)exponent);
    }
#pragma omp parallel for if ((size_t)P * half > OP_SMALL / 16)
    for (int p = 0; p < P; p++)
        for (int i = 0; i < half; i++) {
            float angle = frequency[i] * (float)p;
            size_t at = (size_t)p * half + i;
            cosine[at] = elem_get(elem_put((float)cos((double)angle)));
            sine[at] = elem_get(elem_put((float)sin((double)angle)));
        }
}

/* Rotates by the angle of pos[n] times sign: +1 forward, -1 back. */
static void rotate(elem *x, const float *cosine, const float *sine, const int32_t *pos, int N,
                   int H, int E, float sign) {
    int half = E / 2;
    for (int n = 0; n < N; n++) CHECK(pos[n] >= 0, "expected pos >= 0, pos[%d] is %d", n, pos[n]);
#pragma omp parallel for if ((size_t)N * H * E > OP_LIGHT)
    for (int n = 0; n < N; n++) {
        const float *c = cosine + (size_t)pos[n] * half, *s = sine + (size_t)pos[n] * half;
        for (int h = 0; h < H; h++) {
            elem *lo = x + ((size_t)n * H + h) * E, *hi = lo + half;
#pragma omp simd
            for (int i = 0; i < half; i++) {
                float a = elem_get(lo[i]), b = elem_get(hi[i]), si = sign * s[i];
                lo[i] = elem_put(a * c[i] - b * si);
                hi[i] = elem_put(b * c[i] + a * si);
            }
        }
    }
}

void TWIN(rope_fwd)(Exec *ex, store *x, const float *cosine, const float *sine, const int32_t *pos,
                    int N, int H, int E) {
    OP_BEGIN(ex, rope_fwd, N, H, E);
    rotate(elems(x), cosine, sine, pos, N, H, E, 1);
}

void TWIN(rope_bwd)(Exec *ex, store *dx, const float *cosine, const float *sine, const int32_t *pos,
                    int N, int H, int E) {
    OP_BEGIN(ex, rope_bwd, N, H, E);
    rotate(elems(dx), cosine, sine, pos, N, H, E, -1);
}
