/* adapter_delta.c - an adapter's product taken apart along a basis of the stream. */
#include "model/adapter_delta.h"

#include <math.h>

#include "data/base/mem.h"

static double *to_device(Exec *ex, const double *host, size_t n) {
    double *p = exec_alloc(ex, n * sizeof *p, "adapter delta");
    exec_copy_in(ex, p, host, n * sizeof *p);
    return p;
}

static void from_device(Exec *ex, double *host, double *device, size_t n) {
    if (host) exec_copy_out(ex, host, device, n * sizeof *host);
    exec_free(ex, device);
}

/* A = U diag(s) Vt of A (M,N); returns how many singular values there are. U or Vt NULL: not
 * wanted. */
static int svd(Exec *ex, double *U, double *s, double *Vt, const double *A, int M, int N) {
    size_t m = (size_t)M, n = (size_t)N, k = m < n ? m : n;
    double *a = to_device(ex, A, m * n), *d = exec_alloc(ex, k * sizeof *d, "adapter delta");
    double *u = exec_alloc(ex, m * k * sizeof *u, "adapter delta");
    double *v = exec_alloc(ex, k * n * sizeof *v, "adapter delta");
    ex->op->svd(ex, u, d, v, a, M, N);
    from_device(ex, U, u, m * k);
    from_device(ex, s, d, k);
    from_device(ex, Vt, v, k * n);
    exec_free(ex, a);
    return (int)k;
}

static double *factor(const Lora *l, const Param *p) {
    float *host = mem_array(p->n, sizeof *host);
    double *wide = mem_array(p->n, sizeof *wide);
    params_get(&l->params, PARAM_MASTER, p->at, p->n, host);
    for (size_t i = 0; i < p->n; i++) wide[i] = host[i];
    free(host);
    return wide;
}

/* Columns at .. at + R - 1 of to (n,C) are those of B (n,R), or the rows of A (R,n), times f. */
static void put_columns(double *to, int C, int at, const Lora *l, const Param *p, bool rows,
                        double f) {
    double *x = factor(l, p);
    size_t n = rows ? p->cols : p->rows, R = rows ? p->rows : p->cols;
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < R; r++)
            to[i * (size_t)C + (size_t)at + r] = f * (rows ? x[r * n + i] : x[i * R + r]);
    free(x);
}

/* The factors side by side: dW = left (out,C) right^T, right (in,C). */
static int factors(double **left, double **right, const Lora *l, const Adapter *a) {
    int C = adapter_columns(a);
    *left = mem_array((size_t)a->out * (size_t)C, sizeof **left);
    *right = mem_array((size_t)a->in * (size_t)C, sizeof **right);
    put_columns(*left, C, 0, l, a->B, false, a->scale);
    put_columns(*right, C, 0, l, a->A, true, 1);
    if (a->B0) put_columns(*left, C, a->R, l, a->B0, false, -a->scale);
    if (a->A0) put_columns(*right, C, a->R, l, a->A0, true, 1);
    return C;
}

/* The singular values s and the vectors V (n,k) of near far^T on the side of `near` (n,C); returns
 * k <= C. With far (m,C) = Uf Sf Vf^T and near Vf Sf = V S W^T, near far^T = V S (Uf W)^T. */
static int vectors(Exec *ex, double *s, double *V, const double *near, int n, const double *far,
                   int m, int C) {
    size_t c = (size_t)C;
    double *vt = mem_array(c * c, sizeof *vt);
    size_t f = (size_t)svd(ex, NULL, s, vt, far, m, C);
    double *both = mem_array((size_t)n * f, sizeof *both);
    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t j = 0; j < f; j++)
            for (size_t k = 0; k < c; k++)
                both[i * f + j] += near[i * c + k] * vt[j * c + k] * s[j];
    int k = svd(ex, V, s, NULL, both, n, (int)f);
    free(vt), free(both);
    return k;
}

/* q_i = ||U^T v_i||^2 of column i of V (d,k). */
static double held(const Basis *b, const double *V, int k, int i) {
    double sum = 0;
    for (int j = 0; j < b->R; j++) {
        double dot = 0;
        for (int d = 0; d < b->D; d++)
            dot +=
                b->U[(size_t)d * (size_t)b->R + (size_t)j] * V[(size_t)d * (size_t)k + (size_t)i];
        sum += dot * dot;
    }
    return sum;
}

static void measure(AdapterDelta *d, const Basis *b, const double *s, const double *V, int k) {
    double total = 0, squares = 0, n = d->d, M = d->M;
    for (int i = 0; i < k; i++) total += s[i] * s[i];
    d->norm = sqrt(total);
    d->expected = M / n;
    d->energy = d->sd = NAN;
    if (!(total > 0)) return;
    d->energy = 0;
    for (int i = 0; i < k; i++) {
        double w = s[i] * s[i] / total;
        d->energy += w * held(b, V, k, i);
        squares += w * w;
        d->rank += s[i] > s[0] * 0x1p-24 * k; /* factors are f32 */
    }
    double one = 2 * M * (n - M) / (n * n * (n + 2));
    d->sd = n > 1 ? sqrt(one * fmax(squares - (1 - squares) / (n - 1), 0)) : 0;
}

static void measure_angles(AdapterDelta *d, Exec *ex, const Basis *b, const double *V, int k) {
    int n = d->rank;
    d->angle = mem_array((size_t)(n ? n : 1), sizeof *d->angle);
    if (n == 0) return;
    double *span = mem_array((size_t)d->d * (size_t)n, sizeof *span);
    for (int i = 0; i < d->d; i++)
        for (int j = 0; j < n; j++)
            span[(size_t)i * (size_t)n + (size_t)j] = V[(size_t)i * (size_t)k + (size_t)j];
    subspace_angles(ex, d->angle, span, n, b->U, b->R, d->d);
    free(span);
}

void adapter_delta(AdapterDelta *d, const Lora *l, int layer, enum Proj p, const Basis *b) {
    const Adapter *a = lora_at(l, layer, p);
    bool writes = adapter_writes_stream(p);
    int n = writes ? a->out : a->in, m = writes ? a->in : a->out;
    CHECK(a->R > 0 && b->D == n && !b->of, "layer %d %s: rank %d, width %d of %d", layer,
          proj_name[p], a->R, b->D, n);
    *d = (AdapterDelta){
        .layer = layer, .p = p, .writes = writes, .basis_layer = b->layer, .d = n, .M = b->R};
    double *left, *right;
    int C = factors(&left, &right, l, a);
    double *s = mem_array((size_t)C, sizeof *s), *V = mem_array((size_t)n * (size_t)C, sizeof *V);
    int k = vectors(l->ex, s, V, writes ? left : right, n, writes ? right : left, m, C);
    measure(d, b, s, V, k);
    measure_angles(d, l->ex, b, V, k);
    free(left), free(right), free(s), free(V);
}

void adapter_delta_free(AdapterDelta *d) {
    free(d->angle);
    *d = (AdapterDelta){0};
}

/* ------------------------------------------------------------------------------ taken apart -- */

/* x (R,d): each row its part within the basis, or without. */
static void keep_rows(double *x, size_t R, const Basis *b, enum DeltaPart part) {
    size_t d = (size_t)b->D, M = (size_t)b->R;
    double *dot = mem_array(M, sizeof *dot);
    for (size_t r = 0; r < R; r++) {
        double *row = x + r * d;
        memset(dot, 0, M * sizeof *dot);
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j < M; j++) dot[j] += row[i] * b->U[i * M + j];
        for (size_t i = 0; i < d; i++) {
            double inside = 0;
            for (size_t j = 0; j < M; j++) inside += b->U[i * M + j] * dot[j];
            row[i] = part == DELTA_INSIDE ? inside : row[i] - inside;
        }
    }
    free(dot);
}

/* A (R,in), or B (out,R). */
static void keep_factor(Lora *l, const Param *p, const Basis *b, bool writes, enum DeltaPart part) {
    size_t d = (size_t)b->D, R = p->n / d;
    double *x = factor(l, p), *rows = mem_array(p->n, sizeof *rows);
    float *host = mem_array(p->n, sizeof *host);
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < d; i++) rows[r * d + i] = writes ? x[i * R + r] : x[r * d + i];
    keep_rows(rows, R, b, part);
    for (size_t r = 0; r < R; r++)
        for (size_t i = 0; i < d; i++)
            host[writes ? i * R + r : r * d + i] = (float)rows[r * d + i];
    params_set(&l->params, PARAM_MASTER, p->at, p->n, host);
    free(x), free(rows), free(host);
}

void adapter_delta_keep(Lora *l, const Subspace *s, enum DeltaPart part) {
    for (int layer = 0; layer < l->c->L; layer++)
        for (enum Proj p = 0; p < PROJ_COUNT; p++) {
            const Adapter *a = lora_at(l, layer, p);
            if (a->R == 0) continue;
            CHECK(!a->A0, "layer %d %s: a start that is taken off", layer, proj_name[p]);
            bool writes = adapter_writes_stream(p);
            keep_factor(l, writes ? a->B : a->A, adapter_basis(s, layer, p), writes, part);
        }
    params_sync(&l->params);
}
