/* merge: every merged weight is W + scale B A, rounded once to the type of the base, and every
 * other tensor is the base's, bit for bit; for bases in F32, BF16, F16 and F64 (which becomes F32).
 */
#include <math.h>

#include "host/stage/model_files.h"
#include "kernels/bf16.h"
#include "model/lora.h"
#include "tests/world.h"

extern const Command cmd_merge, cmd_train;

/* Bits of a double rounded to F16 by counting: the nearest of all finite values, ties to even.
 * Slow and simple, so that it shares nothing with the code under test. */
static uint16_t nearest_f16(double x) {
    uint16_t sign = x < 0 ? 0x8000 : 0, low = 0, high = 0x7bff;
    double a = fabs(x);
    while (low < high) { /* the largest value that is not above a */
        uint16_t mid = (uint16_t)((low + high + 1) / 2);
        double v = mid >> 10 ? ldexp(1024 + (mid & 1023), (mid >> 10) - 25) : ldexp(mid, -24);
        if (v <= a)
            low = mid;
        else
            high = (uint16_t)(mid - 1);
    }
    double v = low >> 10 ? ldexp(1024 + (low & 1023), (low >> 10) - 25) : ldexp(low, -24);
    double gap = ldexp(1, low >> 10 ? (low >> 10) - 25 : -24);
    bool up = a - v > gap / 2 || (a - v == gap / 2 && low % 2 == 1);
    return (uint16_t)(sign | (low + up));
}

/* Copies the world's model with its tensors in another type. */
static bool convert(void *context, const OutTensor *t, StWriter *w, Err *err) {
    const StTensor *from = st_find(context, t->tensor.name);
    for (size_t i = 0; i < from->count; i++) {
        float x;
        st_read_f32(from, &x, i, 1);
        bf16 b = bf16_from_f32(x);
        uint16_t h = nearest_f16(x);
        double d = x;
        const void *data = t->type == ST_F64    ? (void *)&d
                           : t->type == ST_F32  ? (void *)&x
                           : t->type == ST_BF16 ? (void *)&b
                                                : &h;
        if (!st_writer_data(w, data, st_type_size(t->type), err)) return false;
    }
    return true;
}

static void make_base(enum StType type) {
    Err err;
    Config c;
    StSet *set;
    int n;
    MUST(config_load(&c, in_world("model"), &err), err);
    MUST(st_open_folder(&set, in_world("model"), "model", &err), err);
    OutTensor *t = model_files_tensors(&c, type, &n);
    MUST(files_mkdirs(in_world("base%d", type), &err), err);
    /* some 100 kB a file: the base comes in shards */
    MUST(model_files_write(in_world("base%d", type), t, n, 100000, convert, set, &err), err);
    char *config;
    size_t bytes;
    MUST(files_read(&config, &bytes, in_world("model/config.json"), 1 << 20, &err), err);
    MUST(files_write(in_world("base%d/config.json", type), config, bytes, &err), err);
    MUST(model_files_copy_tokenizer(in_world("base%d", type), in_world("model"), &err), err);
    free(config);
    free(t);
    st_close(set);
    config_free(&c);
}

/* The tensor's values as doubles (malloc). */
static double *values(const StSet *set, const char *name, size_t *rows, size_t *cols) {
    const StTensor *t = st_find(set, name);
    if (!t) return NULL;
    double *v = mem_array(t->count, sizeof *v);
    for (size_t i = 0; i < t->count; i++) {
        float x;
        st_read_f32(t, &x, i, 1);
        v[i] = x;
    }
    *rows = t->dim[0];
    *cols = t->rank > 1 ? t->dim[1] : 1;
    return v;
}

/* W + scale B A in double for one tensor of the base (no adapter: W), and in *size the sum of the
 * magnitudes of its terms. */
static double *expected(double **size, const StSet *base, const StSet *adapter, const char *name,
                        size_t *count, bool *adapted) {
    char a_name[256], b_name[256];
    int stem = (int)(strlen(name) - strlen(".weight"));
    snprintf(a_name, sizeof a_name, "base_model.model.%.*s.lora_A.weight", stem, name);
    snprintf(b_name, sizeof b_name, "base_model.model.%.*s.lora_B.weight", stem, name);
    size_t rows, cols, R, in, out, r2;
    double *w = values(base, name, &rows, &cols);
    double *A = values(adapter, a_name, &R, &in), *B = values(adapter, b_name, &out, &r2);
    *count = rows * cols;
    *adapted = A != NULL;
    *size = mem_array(*count, sizeof **size);
    for (size_t j = 0; j < *count; j++) (*size)[j] = fabs(w[j]);
    for (size_t o = 0; A && o < rows; o++)
        for (size_t i = 0; i < cols; i++)
            for (size_t r = 0; r < R; r++) { /* alpha 32, rank 4 */
                double term = 8 * B[o * R + r] * A[r * in + i];
                w[o * cols + i] += term;
                (*size)[o * cols + i] += fabs(term);
            }
    free(A);
    free(B);
    return w;
}

/* Rounding to the type: half a unit of the last place, of a subnormal in F16 at least 2^-25. In
 * front of that the f32 sum of four products and W is off by 6 roundings of its terms. */
static double allowed(enum StType type, double x, double size) {
    double unit = type == ST_F32 ? ldexp(1, -24) : type == ST_BF16 ? ldexp(1, -8) : ldexp(1, -11);
    return fabs(x) * unit + (type == ST_F16 ? ldexp(1, -25) : 0) + 6 * size * ldexp(1, -24);
}

static int merged_right(enum StType type, int alpha_off) {
    Err err;
    StSet *base, *adapter, *merged;
    MUST(st_open_folder(&base, in_world("base%d", type), "model", &err), err);
    MUST(st_open_folder(&merged, in_world("merged%d", type), "model", &err), err);
    MUST(st_open_folder(&adapter, in_world("adapter"), "adapter_model", &err), err);
    int ok = st_count(merged) == st_count(base), changed = 0;
    for (size_t i = 0; i < st_count(base) && ok; i++) {
        const StTensor *from = st_at(base, i), *to = st_find(merged, from->name);
        size_t count, rows, cols;
        bool adapted;
        enum StType want_type = type == ST_F64 ? ST_F32 : type;
        ok = to && to->type == want_type && to->count == from->count;
        if (!ok) break;
        double *size, *want = expected(&size, base, adapter, from->name, &count, &adapted);
        double *got = values(merged, from->name, &rows, &cols);
        double *was = values(base, from->name, &rows, &cols);
        changed += adapted;
        if (!adapted && type != ST_F64) ok = memcmp(from->data, to->data, from->bytes) == 0;
        for (size_t j = 0; !adapted && j < count; j++) ok = ok && got[j] == was[j];
        for (size_t j = 0; adapted && j < count; j++) {
            double x = want[j] + alpha_off * (want[j] - was[j]);
            if (!(fabs(got[j] - x) <= allowed(want_type, x, size[j]))) ok = 0;
        }
        free(was);
        free(got);
        free(want);
        free(size);
    }
    st_close(adapter);
    st_close(merged);
    st_close(base);
    return ok && changed == 4 * WORLD_LAYERS;
}

static void test_type(enum StType type, const char *name) {
    Err err;
    char line[1024];
    if (type != ST_F32) make_base(type);
    snprintf(line, sizeof line, "--model %s --adapter %s --out %s --json", in_world("base%d", type),
             in_world("adapter"), in_world("merged%d", type));
    MUST(world_run(&cmd_merge, line, &err), err);
    EXPECT(merged_right(type, 0), "%s", name);
    TEST_DETECTS(merged_right(type, 1)); /* as if alpha were twice as large */
}

/* 1 and the next number of the type, in turn. */
static bool neighbours(void *context, const OutTensor *t, StWriter *w, Err *err) {
    uint16_t one = t->type == ST_F16 ? 0x3c00 : 0x3f80;
    size_t n = t->tensor.count;
    (void)context;
    for (size_t i = 0; i < n; i++) {
        uint16_t h = (uint16_t)(one + i % 2);
        if (!st_writer_data(w, &h, sizeof h, err)) return false;
    }
    return true;
}

/* An adapter that adds half a step to every weight of layer 0's q: from the 1, as from the number
 * behind it, the even one of the two candidates is taken. */
static void test_ties(enum StType type, const char *name) {
    Err err;
    Config c;
    LoraShape shape;
    Lora l;
    Exec ex;
    StSet *set;
    char line[1024];
    int n;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    MUST(config_load(&c, in_world("model"), &err), err);
    OutTensor *t = model_files_tensors(&c, type, &n);
    MUST(files_mkdirs(in_world("even"), &err), err);
    MUST(model_files_write(in_world("even"), t, n, (size_t)1 << 30, neighbours, NULL, &err), err);
    char *config;
    size_t bytes;
    MUST(files_read(&config, &bytes, in_world("model/config.json"), 1 << 20, &err), err);
    MUST(files_write(in_world("even/config.json"), config, bytes, &err), err);
    lora_shape_init(&shape, &c);
    shape.rank[PROJ_Q] = 1, shape.alpha[PROJ_Q] = 2;
    lora_alloc(&l, &ex, &c, &shape, false);
    Adapter *a = lora_at(&l, 0, PROJ_Q);
    float half = type == ST_F16 ? 0x1p-12f : 0x1p-9f, one = 1; /* alpha doubles it */
    for (int i = 0; i < a->in; i++) exec_copy_in(&ex, a->A->master + i, &half, sizeof half);
    for (int i = 0; i < a->out; i++) exec_copy_in(&ex, a->B->master + i, &one, sizeof one);
    MUST(lora_save(&l, in_world("halves"), NULL, &err), err);
    snprintf(line, sizeof line, "--model %s --adapter %s --out %s --json", in_world("even"),
             in_world("halves"), in_world("rounded%d", type));
    MUST(world_run(&cmd_merge, line, &err), err);
    MUST(st_open_folder(&set, in_world("rounded%d", type), "model", &err), err);
    const uint16_t *got = st_find(set, "model.layers.0.self_attn.q_proj.weight")->data;
    uint16_t first = type == ST_F16 ? 0x3c00 : 0x3f80;
    for (int i = 0; i < a->in * a->out; i++)
        EXPECT(got[i] == first + (i % 2 ? 2 : 0), "%s: element %d is %04x", name, i, got[i]);
    st_close(set);
    lora_free(&l);
    lora_shape_free(&shape);
    free(config);
    free(t);
    config_free(&c);
    exec_close(&ex);
}

/* A factor of 1e9 is too much for F16: found out in the middle of the work. */
static void test_overflow(void) {
    Err err;
    Config c;
    Lora l;
    Exec ex;
    char line[1024];
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    MUST(config_load(&c, in_world("model"), &err), err);
    MUST(lora_load(&l, &ex, &c, in_world("adapter"), false, &err), err);
    for (int i = 0; i < c.L * PROJ_COUNT; i++) l.adapter[i].alpha = 1e9f;
    MUST(lora_save(&l, in_world("huge"), NULL, &err), err);
    lora_free(&l);
    config_free(&c);
    exec_close(&ex);
    snprintf(line, sizeof line, "--model %s --adapter %s --out %s", in_world("base%d", ST_F16),
             in_world("huge"), in_world("overflown"));
    bool ok = world_run(&cmd_merge, line, &err);
    EXPECT(!ok && err.code == EXIT_NUMBERS && strstr(err.text, "not finite in F16"), "%d %s",
           err.code, err.text);
    EXPECT(!files_exists(in_world("overflown")), "a failed merge left a folder");
}

int main(void) {
    Err err;
    char line[1024];
    world_make();
    make_base(ST_F32);
    snprintf(line, sizeof line,
             "--model %s --data %s --out %s --init lora --rank 4 --lr 0.05 --batch 8 --steps 4 "
             "--max-length 128 --json",
             in_world("model"), in_world("pairs.jsonl"), in_world("adapter"));
    MUST(world_run(&cmd_train, line, &err), err);
    test_type(ST_F32, "F32");
    test_type(ST_BF16, "BF16");
    test_type(ST_F16, "F16");
    test_type(ST_F64, "F64");
    test_overflow();
    test_ties(ST_F16, "F16");
    test_ties(ST_BF16, "BF16");
    snprintf(line, sizeof line, "--model %s --adapter %s --out %s", in_world("model"),
             in_world("adapter"), in_world("base%d", ST_F32));
    bool ok = world_run(&cmd_merge, line, &err);
    EXPECT(!ok && err.code == EXIT_USAGE, "a model was written over");
    world_remove();
    return test_done("merge");
}
