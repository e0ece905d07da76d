/* bench_derive.c - `sails bench --derive`: what a training step would cost on an H100. The model's
 * own code runs it on a device that has no memory and whose ops only count; the calls that it makes
 * are priced by the formulas of contracts.h and by the card's data sheet. Nothing here is measured.
 */
#include <math.h>
#include <stdio.h>

#include "host/stage/adapting.h"
#include "data/base/mem.h"
#include "host/bench/bench_cluster.h"
#include "host/stage/train.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "model/tensors.h"

/* An H100 SXM: bf16 products without sparsity, f32, memory. */
static const Peak h100 = {.products = 989.4e12, .vectors = 66.9e12, .bytes = 3.35e12};

/* What bounds the kernels that cannot reach that, as the heads of their files derive it; on the
 * least FLOPs and bytes of an op. The matrix products are cuBLASLt's, which has wgmma.
 *   attn_fwd  64 pairs of a block share the keys and values that it reads from the L2: 64 FLOP for
 *             each byte of that, of which an H100 gives 5.5 TB/s (public measurements; not in its
 *             data sheet). mma.sync from shared memory, 0.07 bytes per FLOP of a warp, leaves 440.
 *   attn_bwd  likewise; two kernels, 6 and 8 E FLOP at 371 and 425 TFLOP/s where 10 E are the
 *             least, and 3 bytes moved for 2
 *   xent      instructions: 332 us for 256 rows of 256000, 40 FLOP each */
static const struct Ceiling {
    const char *op;
    double flops, bytes; /* per second */
} ceilings[] = {
    {"attn_fwd", 64 * 5.5e12, 3.35e12},
    {"attn_bwd", 10 / (6 / 371e12 + 8 / 425e12), 3.35e12 * 2 / 3},
    {"xent", 40 * 256 * 256000.0 / 332e-6, 3.35e12},
};

/* What to expect is less than a ceiling: kernels wait at barriers, begin and end, and their copies
 * do not fill every cycle. Estimates, until a card has been measured: of cuBLASLt's large products
 * 650 TFLOP/s, of attention 0.6 of its ceiling, of all that streams 0.87 of the memory's rate or of
 * the ceiling, and 1.5 us between the end of a kernel and the start of the next. */
static const double attention_share = 0.6, stream_share = 0.87, gap = 1.5e-6;
static const double expected_matmul = 650e12;

/* Kernels that the CUDA twin of an op launches, GPU_LAUNCH by GPU_LAUNCH, and what it zeroes; 1
 * unless named here. gemm_grad: one for each chunk of its rows. */
static const struct Launches {
    const char *op;
    int kernels;
} launches[] = {
    {"rmsnorm_grad", 2}, {"attn_bwd", 2}, {"xent", 3}, {"find_bad", 2}, {"find_bad_f32", 2}};

static int launches_of(const OpSum *o) {
    int M, N, T;
    if (strcmp(o->op, "gemm_grad") == 0) {
        CHECK(sscanf(o->shape, "TN %dx%dx%d", &M, &N, &T) == 3, "%s", o->shape);
        return (T + GRAD_CHUNK - 1) / GRAD_CHUNK;
    }
    for (size_t i = 0; i < sizeof launches / sizeof *launches; i++)
        if (strcmp(launches[i].op, o->op) == 0) return launches[i].kernels;
    return 1;
}

/* ------------------------------------------------------------------------ a device on paper -- */

/* Addresses that nobody follows, each at a multiple of 64. */
static void *paper_alloc(Exec *ex, size_t bytes) {
    static uintptr_t next = 64;
    (void)ex;
    uintptr_t p = next;
    next += (bytes + 63) / 64 * 64;
    return (void *)p;
}
static void paper_free(Exec *ex, void *p) {
    (void)ex, (void)p;
}
static void paper_copy(Exec *ex, void *to, const void *from, size_t bytes) {
    (void)ex, (void)to, (void)from, (void)bytes;
}
static void paper_copy_out(Exec *ex, void *host, const void *device, size_t bytes) {
    (void)ex, (void)device;
    memset(host, 0, bytes);
}
static void paper_zero(Exec *ex, void *p, size_t bytes) {
    (void)p;
    if (!ex->state) return;
    OpCall call = {.op = "zero", .bytes = (double)bytes};
    snprintf(call.shape, sizeof call.shape, "%zu bytes", bytes);
    op_sums_add(ex->state, &call);
}
static void paper_nothing(Exec *ex) {
    (void)ex;
}
static double paper_timer_stop(Exec *ex) {
    (void)ex;
    return 1; /* whatever: long enough not to be measured again */
}
static const Device paper = {
    .name = "paper",
    .close = paper_nothing,
    .alloc = paper_alloc,
    .free = paper_free,
    .copy_in = paper_copy,
    .copy_out = paper_copy_out,
    .copy = paper_copy,
    .zero = paper_zero,
    .sync = paper_nothing,
    .timer_start = paper_nothing,
    .timer_stop = paper_timer_stop,
};

/* Exec.state points to the sums while they are taken. */
static void count(void *context, const OpCall *call) {
    Exec *ex = context;
    if (ex->state) op_sums_add(ex->state, call);
}

/* The CPU's ops, of which no more than the contracts run. */
static void paper_open(Exec *ex, const Device *cpu) {
    *ex = (Exec){.op = cpu->ops[DTYPE_BF16], .device = &paper, .dtype = DTYPE_BF16};
    exec_count(ex, count, ex);
}

/* All weights at one address: none is read. */
static void paper_model(Model *m, Exec *ex, Config *c) {
    const store *weight = paper_alloc(ex, 1);
    *m = (Model){.c = *c, .ex = ex, .embed = weight, .final_norm = weight, .embed_scale = 1};
    m->cos = m->sin = paper_alloc(ex, 1);
    m->layer = mem_array((size_t)c->L, sizeof *m->layer);
    for (int l = 0; l < c->L; l++) {
        LayerWeights *w = &m->layer[l];
        for (int n = 0; n < NORM_COUNT; n++) w->norm[n] = weight;
        for (int p = 0; p < PROJ_COUNT; p++) w->proj[p] = weight;
    }
}

/* ------------------------------------------------------------------------------------ step -- */

/* A document of n tokens, the last `labels` of which are targets. */
static Doc paper_doc(int n, int labels) {
    Doc d = {.token = mem_array((size_t)n, sizeof *d.token), .n = n};
    d.label = mem_array((size_t)n, sizeof *d.label);
    for (int t = n - labels; t < n; t++) d.label[t] = 1;
    return d;
}

typedef struct Derived {
    Runtime r;
    OpSums sums;
    StepMetrics step;
} Derived;

static void step_done(void *context, const StepMetrics *s) {
    Derived *d = context;
    d->r.ex.state = s->step == 1 ? &d->sums : NULL; /* the first one's calls are as the others' */
    d->step = *s;
}

static bool take_steps(Derived *d, const Settings *settings, Err *err) {
    Settings s = *settings;
    int n = s.bench.rows / s.bench.length;
    int labels = (int)lround(s.bench.labels * s.bench.length), most = s.bench.length - 1;
    labels = labels < 1 ? 1 : labels > most ? most : labels;
    Doc *doc = mem_array((size_t)n, sizeof *doc);
    for (int i = 0; i < n; i++) doc[i] = paper_doc(s.bench.length, labels);
    s.train.batch = n;
    s.train.steps = 2;
    s.data.pack_tokens = s.bench.rows;
    TrainSetup t;
    TrainResult result;
    train_setup(&t, &s, (size_t)n);
    t.doc = doc;
    t.sink = step_done, t.sink_context = d;
    bool ok = train(&result, &d->r.model, &t, err);
    for (int i = 0; i < n; i++) free(doc[i].token), free(doc[i].label);
    free(doc);
    return ok;
}

/* ----------------------------------------------------------------------------------- table -- */

/* Seconds of calls that are all alike. */
static double at_rates(const OpSum *o, double flops, double bytes) {
    return fmax(o->flops / flops, o->bytes / bytes);
}

static bool is_matmul(const OpSum *o) {
    return strncmp(o->op, "gemm", 4) == 0;
}

/* matmul: FLOP/s that matrix products reach. */
static double at_roof(const OpSum *o, double matmul) {
    return is_matmul(o) ? at_rates(o, matmul, h100.bytes) : o->least;
}

static double at_ceiling(const OpSum *o, double matmul) {
    for (size_t i = 0; i < sizeof ceilings / sizeof *ceilings; i++)
        if (strcmp(ceilings[i].op, o->op) == 0)
            return at_rates(o, ceilings[i].flops, ceilings[i].bytes);
    return at_roof(o, matmul);
}

static double at_expected(const OpSum *o, double matmul) {
    bool attention = strncmp(o->op, "attn", 4) == 0;
    double work = is_matmul(o)
                      ? at_rates(o, matmul, stream_share * h100.bytes)
                      : at_ceiling(o, matmul) / (attention ? attention_share : stream_share);
    return work + gap * launches_of(o) * (double)o->calls;
}

/* Sums of all calls, or of those alone that take no more than `most` at their ceiling. */
typedef struct Whole {
    int kinds;
    OpSum sum;
    double launches, roof, ceiling, expected;
} Whole;

static void add_kind(Whole *w, const OpSum *o, double matmul, double expected) {
    w->kinds++;
    w->sum.calls += o->calls, w->sum.bytes += o->bytes, w->sum.flops += o->flops;
    w->launches += launches_of(o) * (double)o->calls;
    w->roof += at_roof(o, matmul), w->ceiling += at_ceiling(o, matmul);
    w->expected += at_expected(o, expected);
}

/* expected: FLOP/s of matrix products for what is expected. */
static Whole whole(const OpSums *sums, double matmul, double expected, double most) {
    Whole w = {0};
    for (const OpSum *o = sums->sum; o < sums->sum + sums->n; o++) {
        if (at_ceiling(o, matmul) > most) continue;
        add_kind(&w, o, matmul, expected);
    }
    return w;
}

/* rates: the columns behind the times. */
static void print_line(const Table *t, const Whole *w, const char *rates) {
    char row[256];
    const OpSum *o = &w->sum;
    snprintf(row, sizeof row, "%s,%s,%zu,%.0f,%s,%s,%s,%s,%s,%s", o->op, o->shape, o->calls,
             w->launches, table_number(1e-9 * o->bytes), table_number(1e-9 * o->flops),
             table_number(1e3 * w->roof), table_number(1e3 * w->ceiling),
             table_number(1e3 * w->expected), rates);
    table_row(t, "H100 SXM derived,cuda bf16", row);
}

/* Every kind of call; for people, those below a four-hundredth of the step together. */
static void print_kinds(const Table *t, const OpSums *sums) {
    double peak = h100.products;
    double few = t->csv ? 0 : whole(sums, peak, peak, INFINITY).ceiling / 400;
    for (const OpSum *o = sums->sum; o < sums->sum + sums->n; o++) {
        Whole w = {.sum = {.op = o->op}};
        if (!t->csv && at_ceiling(o, peak) <= few) continue;
        memcpy(w.sum.shape, o->shape, sizeof w.sum.shape);
        add_kind(&w, o, peak, expected_matmul);
        print_line(t, &w, ",,,");
    }
    if (t->csv) return;
    Whole rest = whole(sums, peak, expected_matmul, few);
    rest.sum.op = "the rest";
    snprintf(rest.sum.shape, sizeof rest.sum.shape, "%d kinds of calls", rest.kinds);
    print_line(t, &rest, ",,,");
}

static void print_step(const Table *t, const Derived *d, double matmul) {
    char rates[128];
    Whole w = whole(&d->sums, matmul, matmul, INFINITY);
    double tokens = (double)d->step.tokens;
    w.sum.op = "step";
    snprintf(w.sum.shape, sizeof w.sum.shape, "gemm at %.0f TFLOP/s", matmul * 1e-12);
    snprintf(rates, sizeof rates, "%s,%s,%s,%s", table_number(tokens / w.roof),
             table_number(tokens / w.ceiling), table_number(tokens / w.expected),
             table_number(100 * d->step.flops / w.expected / h100.products));
    print_line(t, &w, rates);
}

static void print(Derived *d, const Settings *s) {
    static const int width[] = {-18, -40, 6, 9, 9, 11, 9, 11, 12, 14, 17, 18, 17};
    static const double matmul[] = {989.4e12, 800e12, 700e12, 650e12, 600e12, 500e12, 400e12};
    Table t = {s->bench.csv, width, sizeof width / sizeof *width};
    if (!s->bench.csv)
        printf("derived, not measured: %zu tokens, %zu labels, %zu parameters trained\n",
               d->step.tokens, d->step.labels, params_trained(&d->r.lora.params));
    table_row(&t, "device,twin",
              "op,shape,calls,launches,GB,GFLOP,roof_ms,ceiling_ms,expected_ms,roof_tokens/s,"
              "ceiling_tokens/s,expected_tokens/s,percent_of_peak");
    op_sums_sort(&d->sums, BY_LEAST);
    print_kinds(&t, &d->sums);
    for (size_t i = 0; i < sizeof matmul / sizeof *matmul; i++) print_step(&t, d, matmul[i]);
}

/* Expected seconds of the ops that a step has once, whatever its packs. */
static double optimiser_seconds(const OpSums *sums) {
    double seconds = 0;
    for (const OpSum *o = sums->sum; o < sums->sum + sums->n; o++)
        if (strcmp(o->op, "adamw") == 0 || strcmp(o->op, "sumsq") == 0)
            seconds += at_expected(o, expected_matmul);
    return seconds;
}

static void print_cluster(Derived *d, const Settings *s) {
    const Config *c = &d->r.model.c;
    const Params *p = &d->r.lora.params;
    int rows = s->bench.rows, documents = rows / s->bench.length;
    double all = whole(&d->sums, expected_matmul, expected_matmul, INFINITY).expected;
    double once = optimiser_seconds(&d->sums), n = (double)p->size;
    Cluster cluster = {.pack = all - once,
                       .optimiser = once,
                       .tokens = (double)d->step.tokens,
                       .gradients = n * sizeof(float),
                       .weights = (double)tensors_parameters(c) * 2,
                       .activations = (double)acts_bytes(c, &d->r.lora, DTYPE_BF16, rows, documents,
                                                         (int)d->step.labels, ACTS_TRAIN),
                       .trained = n * (4 * sizeof(float) + 2)};
    if (!s->bench.csv)
        printf("derived, not measured: LoRA of rank %d, packs of %zu tokens, a pack in %s ms\n",
               s->train.rank, d->step.tokens, table_number(1e3 * cluster.pack));
    bench_cluster_print(&cluster, documents, s->bench.csv);
}

bool bench_derive(const Settings *s, Err *err) {
    Config c;
    if (s->bench.rows < s->bench.length)
        return err_set(err, EXIT_USAGE, "--rows: expected at least --length %d, got %d",
                       s->bench.length, s->bench.rows);
    Exec cpu;
    if (!bench_config(&c, s, err)) return false;
    if (s->bench.length > c.max_positions) {
        err_set(err, EXIT_USAGE, "--length: expected at most the model's %d positions, got %d",
                c.max_positions, s->bench.length);
        config_free(&c);
        return false;
    }
    Derived d = {.sums = {.by_shape = true, .peak = &h100}};
    if (!runtime_cpu(&cpu, s, err)) {
        config_free(&c);
        return false;
    }
    paper_open(&d.r.ex, cpu.device);
    exec_close(&cpu);
    paper_model(&d.r.model, &d.r.ex, &c);
    bool ok = adapting_fresh(&d.r, s, START_LORA, NULL, err) && take_steps(&d, s, err);
    if (ok) (s->bench.cluster ? print_cluster : print)(&d, s);
    runtime_drop_adapter(&d.r);
    exec_close(&d.r.ex);
    free(d.r.model.layer);
    config_free(&c);
    return ok;
}
