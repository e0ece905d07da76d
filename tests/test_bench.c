/* `sails bench`: what the ops of whole passes are said to cost, against the count of a pass; and
 * the tables that it prints. test_costs.c has the costs of single calls. */
#include <math.h>

#include "host/bench/bench_ops.h"
#include "host/stage/flops.h"
#include "host/stage/machine.h"
#include "kernels/device.h"
#include "model/gemma2.h"
#include "tests/program.h"

/* ------------------------------------------------------------------------------- the peak -- */

/* The rate of memory is that of 256 MB of it, not of one page seen everywhere. */
static void test_peak(void) {
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    double before = machine_memory_use().anonymous;
    Peak peak = device_peak_measure(&ex);
    double more = machine_memory_use().peak - before;
    EXPECT(peak.products > 0 && peak.vectors > 0 && peak.bytes > 0, "%g %g %g", peak.products,
           peak.vectors, peak.bytes);
    EXPECT(more > 1 << 28, "measured with %.0f bytes of memory", more);
    exec_close(&ex);
}

/* --------------------------------------------------------------------------- costs of steps -- */

static double product_flops;
static void add_products(void *context, const OpCall *call) {
    (void)context;
    if (call->unit == UNIT_PRODUCT) /* of attention's 10 E, 2 make the scores again: a choice */
        product_flops += strcmp(call->op, "attn_bwd") == 0 ? 0.8 * call->flops : call->flops;
}

enum { PASS_ROWS = 9, PASS_DOC = 5, PASS_RANK = 4 };

/* The products of a training pass are those that flops_pack counts, which knows the model and not
 * its calls, and the last layer's attention for rows that nobody needs. */
static void test_pass(const Model *m, int ways) {
    enum { N = PASS_ROWS, DOC = PASS_DOC, R = PASS_RANK };
    Pack p;
    Exec *ex = m->ex;
    pack_init(&p, N, 2, N);
    int32_t token[N] = {2, 3, 4, 5, 6, 7, 8, 9, 10};
    uint8_t label[DOC] = {0, 1, 1, 1, 1};
    pack_add(&p, token, label, DOC, 0);
    pack_add(&p, token, label, N - DOC, 1);
    Acts *a = acts_create(m, N, 2, p.nlabel, ACTS_TRAIN);
    float nll[N];
    product_flops = 0;
    exec_watch(ex, add_products, NULL);
    Objective sft = objective_sft(1);
    model_loss(m, a, &p, &sft, nll);
    model_backward(m, a, &p);
    exec_watch_end(ex);
    double in = m->c.D,
           out = m->c.H * m->c.E; /* of q, which the last rows of both documents have */
    double idle = 2 * 2 * (ways * in * out + (m->lora ? 3 * R * (in + out) : 0));
    idle += 12.0 * m->c.H * m->c.E * (DOC + (N - DOC)); /* they see all rows before them */
    double want = flops_pack(&m->c, m->lora, &p) + idle;
    EXPECT(product_flops == want, "%.0f FLOPs, expected %.0f", product_flops, want);
    acts_destroy(a);
    pack_free(&p);
}

static void test_passes(void) {
    Err err;
    Exec ex;
    Model m;
    Lora lora;
    Full full;
    LoraShape shape;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    MUST(model_open(&m, &ex, in_world("model"), PASS_ROWS, &err), err);
    lora_shape_init(&shape, &m.c);
    for (int i = 0; i < m.c.L * PROJ_COUNT; i++) shape.rank[i] = PASS_RANK, shape.alpha[i] = 1;
    lora_alloc(&lora, &ex, &m.c, &shape, true);
    m.lora = &lora;
    test_pass(&m, 2); /* forward, and back into the input */
    lora_free(&lora), lora_shape_free(&shape);
    model_close(&m);
    MUST(model_open_trained(&m, &full, &ex, in_world("model"), PASS_ROWS, &err), err);
    test_pass(&m, 3); /* and for the gradient */
    model_close(&m);
    full_free(&full);
    exec_close(&ex);
}

/* ---------------------------------------------------------------------------------- tables -- */

enum { COLUMNS = 16, ROWS = 200 };
typedef struct Csv {
    char text[1 << 16], *cell[ROWS][COLUMNS];
    int rows, columns; /* the head is row 0 */
} Csv;

/* Runs a bench and takes its CSV apart: every row has as many columns, every number is finite. */
static Csv *csv_of(const char *line) {
    static Csv csv;
    Ended e = program_run(line);
    EXPECT(e.code == 0 && e.err[0] == 0, "sails %s: exit %d: %s", line, e.code, e.err);
    csv = (Csv){.rows = 0};
    strcpy(csv.text, e.out);
    for (char *l = strtok(csv.text, "\n"); l && csv.rows < ROWS; l = strtok(NULL, "\n")) {
        if (*l == '#') continue;
        int n = 0;
        for (char *p = l; p && n < COLUMNS; n++) {
            csv.cell[csv.rows][n] = p;
            p = strchr(p, ',');
            if (p) *p++ = 0;
        }
        if (csv.rows == 0) csv.columns = n;
        EXPECT(n == csv.columns, "%s: row %d has %d columns of %d", line, csv.rows, n, csv.columns);
        csv.rows++;
    }
    CHECK(csv.rows > 1, "sails %s: no rows: %s", line, e.out);
    return &csv;
}

static int column(const Csv *c, const char *name) {
    for (int i = 0; i < c->columns; i++)
        if (strcmp(c->cell[0][i], name) == 0) return i;
    CHECK(false, "no column %s", name);
    return 0;
}

static double number(const Csv *c, int row, const char *name) {
    const char *text = c->cell[row][column(c, name)];
    char *end;
    double x = strtod(text, &end);
    EXPECT(end != text && *end == 0 && isfinite(x), "row %d, %s: %s, %s", row, c->cell[row][2],
           name, text);
    return x;
}

static int row_of(const Csv *c, const char *op) {
    for (int i = 1; i < c->rows; i++)
        if (strcmp(c->cell[i][column(c, "op")], op) == 0) return i;
    EXPECT(false, "no row of %s", op);
    return 1;
}

static void test_ops(const char *dtype) {
    char line[512], twin[32];
    snprintf(line, sizeof line, "bench --ops --csv --model %s --rows 32 --seconds 0 --dtype %s",
             in_world("model"), dtype);
    const Csv *c = csv_of(line);
#define X(op) row_of(c, #op);
    SAILS_OPS(X)
#undef X
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, strcmp(dtype, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32),
          "no cpu");
    snprintf(twin, sizeof twin, "%s", ex.op->name);
    exec_close(&ex);
    for (int i = 1; i < c->rows; i++) {
        const char *op = c->cell[i][column(c, "op")];
        EXPECT(c->cell[i][0][0] && strcmp(c->cell[i][1], twin) == 0, "%s on %s", op, c->cell[i][1]);
        double least = number(c, i, "min_us"), median = number(c, i, "median_us");
        EXPECT(least >= 0 && least <= median && median <= number(c, i, "max_us"), "%s", op);
        EXPECT(number(c, i, "calls") >= 5, "%s: few calls", op);
        EXPECT(number(c, i, "GB/s") > 0 && number(c, i, "GFLOP/s") >= 0, "%s: rates", op);
        EXPECT(number(c, i, "percent_of_peak") > 0, "%s: no share", op);
    }
    EXPECT(number(c, row_of(c, "gemm"), "GFLOP/s") > 0, "gemm without FLOPs");
    strcat(line, " --filter rmsnorm_b");
    c = csv_of(line);
    EXPECT(c->rows == 2 && strcmp(c->cell[1][2], "rmsnorm_bwd") == 0, "%d rows", c->rows);
    strcat(line, " --once");
    c = csv_of(line);
    EXPECT(c->rows == 2 && number(c, 1, "calls") == 1, "%d rows, once", c->rows);
}

/* The whole comes first; what its ops took adds up to all of it with what lies outside of them. */
static void check_passes(const Csv *c, const char *what) {
    EXPECT(strcmp(c->cell[1][2], what) == 0, "%s comes first", c->cell[1][2]);
    EXPECT(number(c, 1, "tokens/s") > 0 && number(c, 1, "ms") > 0, "no rate");
    EXPECT(number(c, 1, "GFLOP/s") > 0 && number(c, 1, "percent_of_peak") > 0, "no rate");
    double percent = 0;
    for (int i = 2; i < c->rows; i++) percent += number(c, i, "percent_of_time");
    EXPECT(fabs(percent - 100) < 0.01 * c->rows, "%g %%", percent); /* two decimals */
    for (int i = 3; i + 1 < c->rows; i++)
        EXPECT(number(c, i, "ms") <= number(c, i - 1, "ms"), "row %d is not in order", i);
    EXPECT(strcmp(c->cell[c->rows - 1][2], "outside of ops") == 0, "%s", c->cell[c->rows - 1][2]);
}

static void test_step(void) {
    char line[512];
    snprintf(line, sizeof line,
             "bench --step --csv --runs 1 --model %s --data %s --batch 6 --max-length 100 "
             "--pack-tokens 100 --dtype f32",
             in_world("model"), in_world("pairs.jsonl"));
    const Csv *c = csv_of(line);
    check_passes(c, "step");
    double attention = number(c, row_of(c, "attn_fwd"), "calls");
    int adamw = row_of(c, "adamw");
    EXPECT(attention > WORLD_LAYERS && (int)attention % WORLD_LAYERS == 0, "%g calls", attention);
    EXPECT(number(c, row_of(c, "attn_bwd"), "calls") == attention, "as many backward");
    EXPECT(number(c, adamw, "calls") == 1, "one step watched, not %s", c->cell[adamw][3]);
}

/* Steps of the other methods: what is trained, and on what. Equal to its reference a model loses
 * ln 2 on every pair. */
static void test_methods(void) {
    char line[768];
    const char *common = "--max-length 100 --dtype f32 --batch 6 --runs 1";
    snprintf(line, sizeof line, "bench --step --csv --method full --model %s --data %s %s",
             in_world("model"), in_world("pairs.jsonl"), common);
    const Csv *c = csv_of(line);
    check_passes(c, "step");
    row_of(c, "embed_bwd");
    snprintf(line, sizeof line, "bench --step --method dpo --model %s --data %s %s",
             in_world("model"), in_world("pairs.jsonl"), common);
    Ended e = program_run(line);
    EXPECT(e.code == 0 && strstr(e.out, "\n6 pairs, ") && strstr(e.out, " loss 0.6931,"),
           "exit %d: %s%s", e.code, e.out, e.err);
    strcat(line, " --pack-tokens 150");
    e = program_run(line);
    EXPECT(e.code == 2 && strstr(e.err, "twice --max-length"), "exit %d: %s", e.code, e.err);
    snprintf(line, sizeof line,
             "bench --step --csv --method dpo --weights all --model %s --data %s %s",
             in_world("model"), in_world("pairs.jsonl"), common);
    row_of(csv_of(line), "embed_bwd");
    snprintf(line, sizeof line, "bench --step --method full --rank 4 --model %s --data %s %s",
             in_world("model"), in_world("pairs.jsonl"), common);
    e = program_run(line);
    EXPECT(e.code == 2 && strstr(e.err, "--rank: it is for adapters"), "exit %d: %s", e.code,
           e.err);
    static const char *const of_a_step[] = {"--method full", "--weights all"};
    for (int i = 0; i < 2; i++) {
        snprintf(line, sizeof line, "bench --ops %s", of_a_step[i]);
        e = program_run(line);
        EXPECT(e.code == 2 && strstr(e.err, "--weights are for --step"), "%s: exit %d: %s", line,
               e.code, e.err);
    }
}

static void test_score(void) {
    char line[768];
    snprintf(line, sizeof line,
             "bench --score --csv --runs 2 --model %s --data %s --sae %s/{layer} --layers 1,2 "
             "--limit 7 --max-length 100 --dtype f32",
             in_world("model"), in_world("pairs.jsonl"), in_world("sae"));
    const Csv *c = csv_of(line);
    check_passes(c, "score");
    EXPECT(number(c, row_of(c, "sae_stats"), "calls") == 2, "a call for each SAE");
}

/* ---------------------------------------------------------------------------------- derived -- */

static double gflop_per_token(const char *flags, double tokens) {
    char line[256];
    snprintf(line, sizeof line, "bench --derive --csv %s", flags);
    const Csv *c = csv_of(line);
    int step = row_of(c, "step");
    double sum = 0;
    for (int i = 1; i < step; i++) {
        double roof = number(c, i, "roof_ms"), ceiling = number(c, i, "ceiling_ms");
        EXPECT(ceiling >= roof && roof >= 0, "%s: %g ms above the roof's %g", c->cell[i][2],
               ceiling, roof);
        sum += ceiling;
    }
    EXPECT(fabs(sum / number(c, step, "ceiling_ms") - 1) < 1e-3, "rows add up to %g ms", sum);
    for (int i = 1; i < c->rows; i++)
        EXPECT(number(c, i, "expected_ms") > number(c, i, "ceiling_ms") &&
                   number(c, i, "launches") >= number(c, i, "calls"),
               "%s: less is expected than must be", c->cell[i][2]);
    for (int i = step + 1; i < c->rows; i++)
        EXPECT(number(c, i, "ceiling_tokens/s") < number(c, i - 1, "ceiling_tokens/s"), "row %d",
               i);
    double ms = number(c, step, "ceiling_ms"), rate = number(c, step, "ceiling_tokens/s");
    EXPECT(fabs(rate * ms / 1e3 / tokens - 1) < 1e-3, "%g tokens/s in %g ms", rate, ms);
    return number(c, step, "GFLOP") / tokens;
}

/* Against a sum made from the shapes alone, 2 FLOP for each parameter and token forward and
 * backward, attention 3.5 times its forward: 42.0 and 10.6 GFLOP. What the model does not need is
 * less (the lowest layer's input has no gradient), norms and the like are more: 2 %. */
static void test_derived(void) {
    double nine = gflop_per_token("--shape 9b --rows 8192 --length 4096", 8192);
    EXPECT(fabs(nine / 42.0 - 1) < 0.02, "9B: %g GFLOP a token", nine);
    double two = gflop_per_token("--shape 2b --rows 8160 --length 160", 8160);
    EXPECT(fabs(two / 10.6 - 1) < 0.02, "2B: %g GFLOP a token", two);
    double quarter = gflop_per_token("--shape 2b --rows 8160 --length 160 --labels 0.25", 8160);
    EXPECT(fabs(quarter / 8.8 - 1) < 0.03, "2B, a quarter labelled: %g GFLOP a token", quarter);
    /* Kernels, as the heads of their files count them. */
    const Csv *c = csv_of("bench --derive --csv --shape 9b --rows 8192 --length 4096");
    for (int i = 1; i < c->rows; i++) {
        const char *op = c->cell[i][column(c, "op")];
        double each = number(c, i, "launches") / number(c, i, "calls");
        double want = strcmp(op, "gemm_grad") == 0  ? 8 /* chunks of 1024 rows */
                      : strcmp(op, "attn_bwd") == 0 ? 2
                      : strcmp(op, "xent") == 0     ? 3
                                                    : 1;
        if (strcmp(op, "step") == 0) break;
        EXPECT(each == want, "%s launches %g kernels", op, each);
        if (strcmp(op, "attn_fwd") == 0) /* 64 FLOP for each byte at 5.5 TB/s */
            EXPECT(fabs(number(c, i, "GFLOP") / number(c, i, "ceiling_ms") / 352 - 1) < 1e-3,
                   "attention's ceiling");
    }
    char line[256];
    snprintf(line, sizeof line, "bench --derive --csv --model %s --rows 64 --length 16",
             in_world("model"));
    c = csv_of(line);
    double layers = 0; /* with a window and without one */
    for (int i = 1; i < c->rows; i++)
        if (strcmp(c->cell[i][2], "attn_fwd") == 0) layers += number(c, i, "calls");
    EXPECT(layers == WORLD_LAYERS, "%g layers", layers);
}

/* ------------------------------------------------------------------------- one op's timing -- */

/* An op that keeps the addresses that it was called with. */
enum { SEEN = 4096 };
static const void *from_seen[SEEN], *to_seen[SEEN];
static int uncasts;

static void spy_uncast(Exec *ex, float *y, const store *x, size_t n) {
    (void)ex, (void)n;
    if (uncasts < SEEN) to_seen[uncasts] = y, from_seen[uncasts] = x;
    uncasts++;
}

/* How many distinct sets of tensors the calls after the first, cold one went through. */
static int sets_seen(void) {
    int n = 0;
    for (int i = 1; i < uncasts && i < SEEN; i++) {
        bool before = false;
        for (int j = 1; j < i; j++) before = before || from_seen[j] == from_seen[i];
        n += !before;
        EXPECT((from_seen[i] == from_seen[0]) == (to_seen[i] == to_seen[0]), "call %d mixes sets",
               i);
    }
    return n;
}

/* No call reads what the one before left in the cache: neighbours have no tensor in common, and all
 * that are stepped through are several times as large as it. */
static void test_sets(bool once) {
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    Settings s = {0};
    s.bench.once = once, s.bench.csv = true;
    s.bench.filter = "uncast";
    Bench b = {.s = &s};
    OpsBench o = {.b = &b, .ex = &ex, .table = {.csv = true}};
    Ops table = *ex.op;
    size_t held = ex.bytes_now, n = exec_cache(&ex) / 64; /* 8 n bytes are an eighth of it */
    float *x, *y;
    bench_f32(&o, &x, n, 1);
    bench_blank(&o, &y, n * sizeof *y);
    const void *first = x;
    uncasts = 0;
    table.uncast = spy_uncast;
    spy_uncast(&ex, y, (store *)x, n);
    o.call = (OpCall){.op = "uncast", .bytes = 8.0 * (double)n};
    bench_begin(&o, OUT_OTHER);
    ex.op = &table;
    while (bench_more(&o))
        for (int i = 0; i < o.calls; i++) bench_next(&o), o.ex->op->uncast(o.ex, y, (store *)x, n);
    int timed = o.calls * o.runs, sets = sets_seen();
    for (int i = 1; i < uncasts && i < SEEN; i++)
        EXPECT(from_seen[i] != from_seen[i - 1] && to_seen[i] != to_seen[i - 1],
               "call %d finds its tensors in the cache", i);
    if (once)
        EXPECT(uncasts == 2 && timed == 1, "%d calls, %d of them timed", uncasts, timed);
    else
        EXPECT(timed >= BENCH_MIN_RUNS && uncasts == 2 + timed &&
                   8.0 * (double)n * sets > 3.0 * (double)exec_cache(&ex),
               "%d calls, %d sets", uncasts, sets);
    bench_row(&o);
    EXPECT(x == first, "the variable does not point to its tensor again");
    bench_free(&o);
    ex.op = ex.device->ops[DTYPE_F32];
    EXPECT(ex.bytes_now == held, "%zu bytes left", ex.bytes_now - held);
    exec_close(&ex);
}

static void bad(int code, const char *words, const char *flags) {
    char line[600];
    snprintf(line, sizeof line, "bench %s", flags);
    Ended e = program_run(line);
    EXPECT(e.code == code && program_one_line(e.err, words), "%s: exit %d: %s", line, e.code,
           e.err);
}

static void test_refused(void) {
    bad(2, "expected one of --ops, --step, --score, --derive", "--csv");
    bad(2, "expected one of --ops, --step, --score, --derive", "--ops --step");
    bad(2, "--once is for --ops", "--derive --once");
    bad(2, "--model and --data are needed", "--step");
    bad(2, "--sae and --layers are needed", "--score --model m --data d");
    bad(2, "expected one of 2b|9b|27b", "--ops --shape 3b");
    bad(2, "--rows: expected at least --length 160", "--derive --rows 100");
    bad(2, "--length: expected at most the model's 8192", "--derive --rows 9000 --length 9000");
    bad(2, "--rows: expected 16 to", "--ops --rows 1");
    bad(2, "no op's name holds 'attention'", "--ops --filter attention --rows 16");
    bad(3, "nowhere", "--ops --model nowhere");
    char line[300];
    snprintf(line, sizeof line, "--step --model %s --data nowhere.jsonl", in_world("model"));
    bad(3, "nowhere.jsonl", line);
}

int main(void) {
    world_make();
    test_peak();
    test_passes();
    const char *strict =
        getenv("SAILS_STRICT"); /* which shuts every copy of every tensor each call */
    setenv("SAILS_STRICT", "0", 1);
    test_ops("f32");
    test_ops("bf16");
    setenv("SAILS_STRICT", strict ? strict : "0", 1);
    test_step();
    test_methods();
    test_score();
    test_sets(false);
    test_sets(true);
    test_derived();
    test_refused();
    world_remove();
    return test_done("bench");
}
