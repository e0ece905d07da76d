/* cmd_merge.c - an adapter merged into its base model:  W' = W + scale B A.
 *
 * Computed in f32 row by row and rounded once to the type that the base tensor has (F32 for F64).
 * What the rounding did is measured and printed: the largest error of a weight, and how much of the
 * adapter's change the rounding took away, which in bf16 can be a lot. */
#include <math.h>
#include <stdio.h>

#include "data/base/mem.h"
#include "data/base/out_folder.h"
#include "host/cli/command.h"
#include "data/base/interrupt.h"
#include "host/stage/model_files.h"
#include "host/stage/runtime.h"
#include "host/cli/print.h"
#include "kernels/bf16.h"
#include "model/lora.h"

enum { SHARD_BYTES_GB = 5, ROWS = 64 /* rows in memory at once */ };

typedef struct Merge {
    const StSet *base;
    const Config *c;
    Lora lora;
    Progress bar;
    size_t done, total; /* elements */
    /* of all tensors */
    double worst;
    char worst_name[96];
    double error2, change2, worst_loss; /* squared norms; largest share of a tensor's change lost */
    char worst_loss_name[96];
} Merge;

/* The adapter of a tensor with its factors in host memory; R 0: none. */
typedef struct Factors {
    int R, in;
    float scale;
    float *A, *B;
} Factors;

static Factors factors_of(const Merge *m, const Tensor *t) {
    const Adapter *a =
        t->kind == TENSOR_PROJ ? lora_at(&m->lora, t->layer, (enum Proj)t->which) : NULL;
    if (!a || a->R == 0) return (Factors){0};
    size_t nA = (size_t)a->R * (size_t)a->in, nB = (size_t)a->R * (size_t)a->out;
    Factors f = {a->R, a->in, a->scale, mem_array(nA, sizeof(float)), mem_array(nB, sizeof(float))};
    exec_copy_out(m->lora.ex, f.A, a->A->master, nA * sizeof(float));
    exec_copy_out(m->lora.ex, f.B, a->B->master, nB * sizeof(float));
    return f;
}

/* change[i] = scale sum over r of B[row][r] A[r][i] */
static void change_row(float *change, const Factors *f, size_t row) {
    memset(change, 0, (size_t)f->in * sizeof *change);
    for (int r = 0; r < f->R; r++) {
        float b = f->scale * f->B[row * (size_t)f->R + (size_t)r];
        const float *a = f->A + (size_t)r * (size_t)f->in;
#pragma omp simd
        for (int i = 0; i < f->in; i++) change[i] += b * a[i];
    }
}

/* Rounds to f16, nearest, ties to even, overflow to infinity. */
static uint16_t f16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    double a = fabs((double)x);
    if (!(a <= 65519.996)) return (uint16_t)(sign | (a > 0 ? 0x7c00 : 0x7e00));
    int e;
    frexp(a, &e);
    int step = (e < -13 ? -13 : e) - 11; /* of the last bit kept */
    int64_t n = llrint(ldexp(a, -step));
    if (e < -13) return (uint16_t)(sign | n);
    return (uint16_t)(sign | (uint32_t)((e + 13) * 1024 + n)); /* a carry moves the exponent */
}

static double round_to(enum StType type, float x, void *to, size_t i) {
    if (type == ST_BF16) {
        bf16 h = bf16_from_f32(x);
        ((bf16 *)to)[i] = h;
        return bf16_to_f32(h);
    }
    if (type == ST_F16) {
        uint16_t h = f16_bits(x);
        ((uint16_t *)to)[i] = h;
        double mantissa = h & 0x3ff, e = (h >> 10) & 31;
        double v = e == 31 ? (mantissa > 0 ? NAN : INFINITY)
                   : e > 0 ? ldexp(1024 + mantissa, (int)e - 25)
                           : ldexp(mantissa, -24);
        return h & 0x8000 ? -v : v;
    }
    ((float *)to)[i] = x;
    return x;
}

/* What rounding did to one tensor. */
typedef struct Loss {
    double worst, error2, change2;
} Loss;

static void merge_row(const Factors *f, size_t row, float *w, float *change, enum StType type,
                      void *to, Loss *loss) {
    change_row(change, f, row);
    for (int i = 0; i < f->in; i++) {
        double exact = (double)w[i] + change[i];
        double e = fabs(
            round_to(type, w[i] + change[i], to, row % ROWS * (size_t)f->in + (size_t)i) - exact);
        if (!(e <= loss->worst)) loss->worst = e;
        loss->error2 += e * e;
        loss->change2 += (double)change[i] * change[i];
    }
}

static void note(Merge *m, const char *name, const Loss *l) {
    double lost = l->change2 > 0 ? sqrt(l->error2 / l->change2) : 0;
    if (!(l->worst <= m->worst)) {
        m->worst = l->worst;
        snprintf(m->worst_name, sizeof m->worst_name, "%s", name);
    }
    if (lost > m->worst_loss) {
        m->worst_loss = lost;
        snprintf(m->worst_loss_name, sizeof m->worst_loss_name, "%s", name);
    }
    m->error2 += l->error2;
    m->change2 += l->change2;
}

static bool merged_tensor(Merge *m, const StTensor *base, enum StType type, const Factors *f,
                          StWriter *w, Err *err) {
    size_t in = (size_t)f->in, out = base->dim[0];
    float *row = mem_array(ROWS * in, sizeof *row), *change = mem_array(in, sizeof *change);
    void *to = mem_array(ROWS * in, st_type_size(type));
    Loss loss = {0};
    bool ok = true;
    for (size_t at = 0; at < out && ok; at += ROWS) {
        size_t n = out - at < ROWS ? out - at : ROWS;
        st_read_f32(base, row, at * in, n * in);
        for (size_t i = 0; i < n; i++) merge_row(f, at + i, row + i * in, change, type, to, &loss);
        ok = st_writer_data(w, to, n * in * st_type_size(type), err);
    }
    free(to);
    free(change);
    free(row);
    note(m, base->name, &loss);
    if (ok && !isfinite(loss.error2)) /* a sum keeps what a maximum may lose */
        return err_set(
            err, EXIT_NUMBERS,
            "%s: tensor %s: the merged weight is not finite in %s; take a base in BF16 or F32",
            base->file, base->name, st_type_name(type));
    return ok;
}

/* All of it is read anyway; a merged model would carry a bad number on to where nobody looks. */
static bool sound(const StTensor *t, Err *err) {
    enum { PIECE = 1 << 14 };
    float x[PIECE];
    for (size_t at = 0; at < t->count; at += PIECE) {
        size_t n = t->count - at < PIECE ? t->count - at : PIECE;
        st_read_f32(t, x, at, n);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(x[i]))
                return err_set(err, EXIT_NUMBERS,
                               "%s: tensor %s: element %zu is NaN or infinite; take another base",
                               t->file, t->name, at + i);
    }
    return true;
}

static bool converted_tensor(const StTensor *base, StWriter *w, Err *err) {
    enum { PIECE = 1 << 14 };
    float x[PIECE];
    bool ok = true;
    for (size_t at = 0; at < base->count && ok; at += PIECE) {
        size_t n = base->count - at < PIECE ? base->count - at : PIECE;
        st_read_f32(base, x, at, n);
        ok = st_writer_data(w, x, n * sizeof *x, err);
    }
    return ok;
}

static bool tensor_data(void *context, const OutTensor *t, StWriter *w, Err *err) {
    Merge *m = context;
    if (interrupted(err)) return false;
    const StTensor *base = st_find(m->base, t->tensor.name);
    if (!sound(base, err)) return false;
    Factors f = factors_of(m, &t->tensor);
    bool ok = f.R                     ? merged_tensor(m, base, t->type, &f, w, err)
              : base->type == t->type ? st_writer_data(w, base->data, base->bytes, err)
                                      : converted_tensor(base, w, err);
    free(f.A);
    free(f.B);
    st_release(base, 0, base->count); /* else the whole model would stay resident */
    m->done += base->count;
    progress_at(&m->bar, (double)m->done, (double)m->total);
    return ok;
}

/* The base's tensors with their own types, all of them and of the right shapes. */
static bool base_tensors(OutTensor **t, int *n, const Merge *m, Err *err) {
    *t = model_files_tensors(m->c, ST_F32, n);
    for (int i = 0; i < *n; i++) {
        const Tensor *tensor = &(*t)[i].tensor;
        const StTensor *base;
        if (!st_need(m->base, &base, tensor->name, tensor->rank, tensor->dim, err)) {
            free(*t);
            return false;
        }
        (*t)[i].type = base->type == ST_F64 ? ST_F32 : base->type; /* read as f32, as everywhere */
    }
    return true;
}

static void report(const Merge *m, const Settings *s) {
    double lost = m->change2 > 0 ? sqrt(m->error2 / m->change2) : 0;
    if (s->run.json) {
        print_json(json_pack("{s:s, s:f, s:s, s:f, s:f, s:s}", "out", s->merge.out,
                             "largest_weight_error", m->worst, "at", m->worst_name, "change_lost",
                             lost, "largest_change_lost", m->worst_loss, "in", m->worst_loss_name));
        return;
    }
    printf("%s: merged\n", s->merge.out);
    printf("  largest weight error %.3g, in %s\n", m->worst,
           *m->worst_name ? m->worst_name : "none");
    printf("  rounding lost %.3g %% of the adapter's change (at most %.3g %%%s%s)\n", 100 * lost,
           100 * m->worst_loss, *m->worst_loss_name ? ", in " : "", m->worst_loss_name);
}

static bool merge_all(Merge *m, const Settings *s, Err *err) {
    OutTensor *t;
    OutFolder *out;
    int n;
    if (!base_tensors(&t, &n, m, err)) return false;
    bool ok = out_folder_open(&out, s->merge.out, err);
    if (ok) {
        const char *to = out_folder_path(out);
        m->total = tensors_parameters(m->c);
        progress_begin(&m->bar, "merge", s->run.json);
        ok =
            model_files_write(to, t, n, (size_t)SHARD_BYTES_GB * 1000000000, tensor_data, m, err) &&
            model_files_copy(to, s->model.path, err);
        progress_end(&m->bar);
        ok = out_folder_close(out, ok, err);
    }
    free(t);
    if (ok) report(m, s);
    return ok;
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Config c = {0};
    Exec ex;
    StSet *base = NULL;
    if (!model_files_refuse_existing(s->merge.out, err) || !runtime_cpu(&ex, s, err)) return false;
    Merge m = {.c = &c};
    bool ok = config_load(&c, s->model.path, err) &&
              st_open_folder(&base, s->model.path, "model", err) &&
              lora_load(&m.lora, &ex, &c, s->model.adapter, false, err);
    m.base = base;
    if (ok) ok = merge_all(&m, s, err);
    lora_free(&m.lora);
    st_close(base);
    config_free(&c);
    exec_close(&ex);
    return ok;
}

static const Use use[] = {{"merge.*", USE_OPTIONAL},  {"merge.out", USE_NEEDED},
                          {"model.path", USE_NEEDED}, {"model.adapter", USE_NEEDED},
                          {"cpu", USE_OPTIONAL},      {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_merge = {
    .name = "merge",
    .summary = "merge an adapter into its model, in f32, with an error report",
    .positional = POSITIONAL_RECIPE,
    .use = use,
    .run = run,
};
