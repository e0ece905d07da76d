/* adapter_start_batch.c - starts that ask the documents of the first batch. */
#include <math.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "kernels/comm.h"
#include "model/adapter_start_impl.h"

/* ------------------------------------------------------------------------------- lora-ga -- */

static const double LORA_GA_GAMMA = 16;

/* A row of A and a column of B are of different pairs, so each has a sign of its own. What a sum of
 * GRAD_CHUNK products rounds is no direction. */
static bool lora_ga_adapter(Lora *l, Exec *ex, Adapter *a, const float *grad, Err *err) {
    size_t in = (size_t)a->in, out = (size_t)a->out, R = (size_t)a->R;
    float *wide = mem_array(out * in, sizeof *wide);
    double *G = mem_array(out * in, sizeof *G), *A = mem_array(R * in, sizeof *A);
    double *B = mem_array(out * R, sizeof *B), k = sqrt(sqrt((double)out) / LORA_GA_GAMMA);
    exec_copy_out(ex, wide, grad, out * in * sizeof *wide);
    for (size_t i = 0; i < out * in; i++) G[i] = wide[i];
    Factors f = start_factors(ex, G, a);
    bool ok = f.s[2 * R - 1] > sqrt(GRAD_CHUNK) * 0x1p-24 * f.s[0];
    for (size_t r = 0; ok && r < R; r++) {
        double of_A = k * start_sign(f.v + r * in, in, 1);
        double of_B = k * start_sign(f.u + R + r, out, f.n);
        for (size_t i = 0; i < in; i++) A[r * in + i] = of_A * f.v[r * in + i];
        for (size_t o = 0; o < out; o++) B[o * R + r] = of_B * f.u[o * f.n + R + r];
    }
    if (ok) start_put(l, a, A, B);
    free(f.u), free(B), free(A), free(G), free(wide);
    return ok || err_set(err, EXIT_INPUT,
                         "--init lora-ga: the gradient of the first batch has less than %d "
                         "directions; use a larger --batch or a lower --rank",
                         2 * a->R);
}

bool lora_ga_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err) {
    WeightGrads g;
    bool ok = true;
    (void)s;
    CHECK(o->batch && o->batch->n > 0, "expected the first batch");
    if (!weight_grads_make(&g, m, o->target, o->batch, err)) return false;
    for (int i = 0; i < m->c.L * PROJ_COUNT && ok; i++) {
        Adapter *a = &l->adapter[i];
        comm_beat(l->ex->comm);
        if (a->R == 0) continue;
        ok = !interrupted(err) &&
             (lora_ga_adapter(l, m->ex, a, g.of[i], err) ||
              err_prefix(err, "layer %d, %s", i / PROJ_COUNT, proj_name[i % PROJ_COUNT]));
    }
    weight_grads_free(&g);
    return ok;
}
