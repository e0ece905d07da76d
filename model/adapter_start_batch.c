/* adapter_start_batch.c - starts that ask the documents of the first batch. */
#include <math.h>
#include <string.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "kernels/comm.h"
#include "model/adapter_start_impl.h"
#include "model/inputs.h"

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

/* The gradient, in f32 too. */
static StartBytes lora_ga_weight(size_t in, size_t out, size_t R) {
    StartBytes n = start_factors_bytes(in, out, R);
    n.host += in * out * (sizeof(double) + sizeof(float));
    return n;
}

StartBytes lora_ga_bytes(const Config *c, const bool target[PROJ_COUNT], int R) {
    return start_bytes_most(c, target, R, lora_ga_weight);
}

/* --------------------------------------------------------------------------------- corda -- */

static const double CORDA_DAMP = 0.01;

/* C (W,W): the mean of x x^T, so that the mean of its diagonal is 1, and DAMP on that. */
static double *damped_moment(const float *sums, int width) {
    size_t W = (size_t)width;
    const float *square = sums + W;
    double *C = mem_array(W * W, sizeof *C), mean = 0;
    for (size_t i = 0; i < W; i++) mean += square[i * (W + 1)] / (double)W;
    for (size_t i = 0; i < W * W && mean > 0; i++) C[i] = square[i] / mean;
    for (size_t i = 0; i < W; i++) C[i * (W + 1)] += CORDA_DAMP;
    return C;
}

/* M (out,in) = W C. Each row is one thread's. */
static double *times_moment(const double *W, const double *C, size_t out, size_t in) {
    double *M = mem_array(out * in, sizeof *M);
#pragma omp parallel for
    for (size_t o = 0; o < out; o++)
        for (size_t k = 0; k < in; k++)
            for (size_t i = 0; i < in; i++) M[o * in + i] += W[o * in + k] * C[k * in + i];
    return M;
}

/* W C = U S V^T: what S V^T C^-1 is, U^T W is, without an inverse. at: of (L,PROJ_COUNT). False:
 * there are less than R directions. */
static bool corda_adapter(Lora *l, const Model *m, Adapter *a, int at, const double *C,
                          bool smallest) {
    size_t in = (size_t)a->in, out = (size_t)a->out, R = (size_t)a->R;
    double *W = start_weight(m, at / PROJ_COUNT, (enum Proj)(at % PROJ_COUNT), a->in);
    double *M = times_moment(W, C, out, in), scale = (double)a->scale;
    double *A = mem_array(R * in, sizeof *A), *B = mem_array(out * R, sizeof *B);
    Factors f = start_factors(m->ex, M, a);
    size_t first = smallest ? f.n - R : 0;
    bool ok = f.s[first + R - 1] > 0x1p-52 * (double)(in > out ? in : out) * f.s[0];
    for (size_t r = 0; ok && r < R; r++) {
        double sigma = f.s[first + r];
        for (size_t o = 0; o < out; o++) {
            double u = f.u[o * f.n + first + r];
            B[o * R + r] = sqrt(sigma / scale) * u;
            for (size_t i = 0; i < in; i++)
                A[r * in + i] += u / sqrt(sigma * scale) * W[o * in + i];
        }
    }
    if (ok) start_put(l, a, A, B);
    free(f.u), free(B), free(A), free(M), free(W);
    return ok;
}

/* The adapters of a group, whose C is of one input. */
static bool corda_group(Lora *l, const Model *m, InputsRun *run, int layer, enum Group g,
                        bool smallest, Err *err) {
    float *sums = mem_array(inputs_numbers(&m->c, g), sizeof *sums);
    inputs_run_take(run, layer, g, sums);
    double *C = damped_moment(sums, inputs_width(&m->c, g));
    bool ok = !inputs_run_bad(run) ||
              err_set(err, EXIT_NUMBERS,
                      "layer %d: what %s reads is not finite; is the checkpoint sound?", layer,
                      group_name[g]);
    for (enum Proj p = group_first[g]; ok && p < group_first[g + 1]; p++) {
        int at = layer * PROJ_COUNT + (int)p;
        comm_beat(l->ex->comm);
        if (l->adapter[at].R == 0) continue;
        ok = !interrupted(err) &&
             (corda_adapter(l, m, &l->adapter[at], at, C, smallest) ||
              err_set(err, EXIT_INPUT,
                      "layer %d, %s: the weight has too few directions for --rank %d; use %s",
                      layer, proj_name[p], l->adapter[at].R,
                      smallest ? "--init corda, which takes the largest" : "a lower --rank"));
    }
    free(C), free(sums);
    return ok;
}

/* Every token of the batch counts. */
static bool read_batch(InputsRun *run, const StartBatch *b, Comm *comm, Err *err) {
    uint8_t *all = mem_array((size_t)b->pack_tokens, sizeof *all);
    memset(all, 1, (size_t)b->pack_tokens);
    bool ok = true;
    for (int i = 0; i < b->n && ok; i++) {
        if ((ok = !interrupted(err))) inputs_run_add(run, b->doc[i]->token, all, b->doc[i]->n);
        comm_beat(comm);
    }
    inputs_run_finish(run);
    free(all);
    return ok;
}

bool corda_fill(Lora *l, const Model *m, const StartOptions *o, const Subspace *s, Err *err) {
    Model base = *m;
    InputGroups groups = inputs_groups(o->target);
    (void)s;
    CHECK(o->batch && o->batch->n > 0, "expected the first batch");
    base.lora = NULL;
    InputsRun *run = inputs_run_open(&base, groups, o->batch->pack_tokens);
    bool ok = read_batch(run, o->batch, m->ex->comm, err);
    for (int i = 0; i < m->c.L * GROUP_COUNT && ok; i++)
        if (groups.has[i % GROUP_COUNT])
            ok = corda_group(l, m, run, i / GROUP_COUNT, (enum Group)(i % GROUP_COUNT),
                             o->kind == START_CORDA_KPM, err);
    inputs_run_close(run);
    return ok;
}

/* C and the sums that it is of, W and W C. */
static StartBytes corda_weight(size_t in, size_t out, size_t R) {
    StartBytes n = start_factors_bytes(in, out, R);
    n.host += in * in * sizeof(double) + (in + in * in) * sizeof(float);
    n.host += 2 * in * out * sizeof(double);
    return n;
}

StartBytes corda_bytes(const Config *c, const bool target[PROJ_COUNT], int R) {
    return start_bytes_most(c, target, R, corda_weight);
}
