/* bench_step.c - `sails bench --step` and `--score`: the very loops of train and score, timed as a
 * whole, and then once more with every op watched. Watching waits for each op, which the timed
 * passes do not. */
#include <stdarg.h>
#include <stdio.h>

#include "host/stage/adapting.h"
#include "data/base/mem.h"
#include "host/bench/bench.h"
#include "host/stage/dataset.h"
#include "host/stage/machine.h"
#include "host/stage/plan.h"
#include "host/stage/preference.h"
#include "host/cli/print.h"
#include "host/stage/scoring.h"
#include "host/stage/train.h"

/* One kind of pass: what was timed, and the sums of the watched one. */
typedef struct Passes {
    const Bench *b;
    const char *what; /* "step" */
    double *seconds;  /* (runs) of the timed ones */
    int done;         /* the one that warms up and the watched one counted */
    double flops;     /* of one pass; 0: what its ops add up to */
    int64_t tokens;   /* of one pass */
    double watched;   /* seconds */
    OpSums ops;
    double waited, carried; /* seconds of the timed ones: for other ranks, and while bytes moved */
    CommWork so_far, last;  /* of a rank: before the last pass, and in it */
} Passes;

static void passes_init(Passes *p, const Bench *b, const char *what) {
    *p = (Passes){.b = b, .what = what, .ops.peak = &b->peak};
    p->seconds = mem_array((size_t)b->s->bench.runs, sizeof *p->seconds);
}

/* A pass has ended; the next one may be the one to watch. */
static void passes_add(Passes *p, double seconds) {
    int runs = p->b->s->bench.runs, i = p->done++;
    if (i >= 1 && i <= runs) p->seconds[i - 1] = seconds;
    if (i == runs) exec_watch(&p->b->r->ex, op_sums_add, &p->ops);
    if (i == runs + 1) p->watched = seconds, exec_watch_end(&p->b->r->ex);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_sum(const Table *t, const char *first, const OpSum *o, double whole) {
    char row[256];
    snprintf(row, sizeof row, "%s,%zu,%s,%s,%s,%s,%s,", o->op, o->calls,
             table_number(1e3 * o->seconds), table_number(100 * o->seconds / whole),
             table_number(1e-9 * o->bytes / o->seconds), table_number(1e-9 * o->flops / o->seconds),
             table_number(100 * o->least / o->seconds));
    table_row(t, first, row);
}

static void passes_print(Passes *p) {
    static const int width[] = {-18, 8, 11, 17, 10, 11, 17, 12};
    const Bench *b = p->b;
    Table t = {b->s->bench.csv, width, sizeof width / sizeof *width};
    char first[192], row[256];
    snprintf(first, sizeof first, "%s,%s", b->machine, b->r->ex.op->name);
    qsort(p->seconds, (size_t)b->s->bench.runs, sizeof *p->seconds, by_value);
    double median = p->seconds[b->s->bench.runs / 2], inside = 0, bytes = 0, flops = 0;
    for (int i = 0; i < p->ops.n; i++) {
        inside += p->ops.sum[i].seconds;
        bytes += p->ops.sum[i].bytes;
        flops += p->ops.sum[i].flops;
    }
    if (p->flops > 0) flops = p->flops;
    table_row(&t, "device,twin",
              "op,calls,ms,percent_of_time,GB/s,GFLOP/s,percent_of_peak,tokens/s");
    double share = b->peak.products > 0 ? flops / median / b->peak.products : 0;
    snprintf(row, sizeof row, "%s,1,%s,100,%s,%s,%s,%s", p->what, table_number(1e3 * median),
             table_number(1e-9 * bytes / median), table_number(1e-9 * flops / median),
             table_number(100 * share), table_number((double)p->tokens / median));
    table_row(&t, first, row);
    op_sums_sort(&p->ops, BY_SECONDS);
    for (int i = 0; i < p->ops.n; i++) print_sum(&t, first, &p->ops.sum[i], p->watched);
    snprintf(row, sizeof row, "outside of ops,,%s,%s,,,,",
             table_number(1e3 * (p->watched - inside)),
             table_number(100 * (1 - inside / p->watched)));
    table_row(&t, first, row);
}

/* What was measured, for people. */
static void say(const Bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const Bench *b, const char *fmt, ...) {
    va_list ap;
    if (b->s->bench.csv) return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

/* ----------------------------------------------------------------------------------- step -- */

static void step_done(void *context, const StepMetrics *s) {
    Passes *p = context;
    CommWork work = comm_work(p->b->r->ex.comm);
    if (p->done >= 1 && p->done <= p->b->s->bench.runs)
        p->waited += s->waited, p->carried += s->carried;
    p->last = (CommWork){.calls = work.calls - p->so_far.calls,
                         .sent = work.sent - p->so_far.sent,
                         .signing = work.signing - p->so_far.signing};
    p->so_far = work;
    p->tokens = (int64_t)s->tokens;
    p->flops = s->flops;
    passes_add(p, s->seconds);
}

/* What the ranks cost: their work, what they wait for each other, and what moves meanwhile or not.
 * The gradients of a round go to the ranks that add them, the sums to all: of n elements on N ranks
 * a rank sends (N - 1) / N, for each round that it has a pack in, and once more. Where machines add
 * by themselves first, it is as much: of M machines of m ranks (m - 1) / m stays within one, and
 * (M - 1) / (m M) goes to others. */
/* What a rank sends by the formulas, in elements: of gradients what others keep, of weights its
 * part to each of them. Those that are always there are gathered once a step; of L layers those
 * from the third on in each forward, in the first one all, and in each backward all but the last
 * two: two are still in their rooms (params.h). */
static void shared_out(double *sums, double *weights, const Params *p, double rounds) {
    int L = 0, layer = 0;
    *sums = *weights = 0;
    for (int i = 0; i < p->nsections; i++) L += p->section[i].in_turn;
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        double own = (double)s->part[p->rank].n, times = 1;
        if (s->in_turn) {
            times = (layer < 2 ? 1 : rounds) + (layer < L - 2 ? rounds : 0);
            layer++;
        }
        *sums += rounds * ((double)s->n - own);
        *weights += times * own * (p->ranks - 1);
    }
}

static void print_formula(const Passes *p, double rounds) {
    const Exec *ex = &p->b->r->ex;
    const Params *params = model_params(&p->b->r->model);
    int ranks = comm_size(ex->comm);
    double sums = (rounds + 1) * (double)params->size * (ranks - 1) / ranks, weights = 0;
    if (params->ranks) shared_out(&sums, &weights, params, rounds);
    say(p->b, "rank 0 sent %.3f MB a step; gradients by the formula %.3f MB",
        1e-6 * (double)p->last.sent, 1e-6 * sizeof(float) * sums);
    if (params->ranks)
        say(p->b, ", weights %.3f MB", 1e-6 * (double)dtype_size(ex->dtype) * weights);
    say(p->b, "\n");
}

static void print_ranks(const Passes *p, const TrainSetup *t) {
    const Runtime *r = p->b->r;
    int ranks = comm_size(r->ex.comm), packs = train_packs(t, 0), runs = p->b->s->bench.runs;
    if (ranks == 1) return;
    double step = p->seconds[runs / 2], waited = p->waited / runs, carried = p->carried / runs;
    double all = (double)model_params(&r->model)->size * sizeof(float);
    double ways = (packs + ranks - 1) / ranks + 1;
    CommGroup machine, others;
    say(p->b,
        "%d ranks, %d packs: %.1f ms of work, %.1f ms waiting for other ranks (%.0f %%), "
        "%.1f ms of exposed communication (%.1f %%)\n",
        ranks, packs, 1e3 * (step - waited - carried), 1e3 * waited, 100 * waited / step,
        1e3 * carried, 100 * carried / step);
    print_formula(p, ways - 1);
    say(p->b, "%llu calls a step; their signatures take %.4f ms of it\n",
        (unsigned long long)p->last.calls, 1e3 * p->last.signing);
    if (comm_machines(r->ex.comm, &machine, &others))
        say(p->b, "%d machines: %.3f MB of the gradients go to others\n", others.size,
            1e-6 * ways * all / machine.size * (others.size - 1) / others.size);
}

/* Every step has the same documents or pairs, as many as a batch has. */
static bool run_steps(const Bench *b, const Dataset *d, Err *err) {
    TrainSetup t;
    TrainResult result;
    Passes p;
    Settings s = *b->s;
    size_t n = dataset_examples(d).n;
    s.train.steps = s.bench.runs + 2;
    train_setup(&t, &s, n);
    passes_init(&p, b, "step");
    t.doc = d->doc, t.shared = d->shared;
    t.sink = step_done, t.sink_context = &p;
    bool ok = train(&result, &b->r->model, &t, err);
    if (ok) {
        say(b, "%zu %s, %lld tokens, %zu labels a step, loss %.4f, peak memory %.0f MB\n", n,
            d->shared ? "pairs" : "documents", (long long)p.tokens, result.labels / (size_t)t.steps,
            result.first_loss, 1e-6 * machine_memory_use().peak);
        passes_print(&p);
        print_ranks(&p, &t);
    }
    free(p.seconds);
    return ok;
}

/* With what is to be trained. */
static bool open_model(Runtime *r, const Settings *s, int positions, Err *err) {
    if (settings_all_weights(s)) return runtime_trained_model(r, s, positions, err);
    return runtime_model(r, s, positions, err) && adapting_fresh(r, s, START_LORA, NULL, err);
}

bool bench_step(const Bench *b, Err *err) {
    const Settings *s = b->s;
    Runtime *r = b->r;
    Dataset d = {0};
    bool ok = training_load(&d, r->tokenizer, s, s->data.path, (size_t)s->train.batch, err);
    if (ok && !s->bench.csv) dataset_print_notes(stdout, "", &d);
    Plan plan = {0};
    if (ok) plan_measured(&plan, "program, tokenizer and data");
    ok = ok && plan_train(&plan, s, &r->ex, &d, err) && plan_fits(&plan, &r->ex, err) &&
         open_model(r, s, (int)d.longest, err) && run_steps(b, &d, err);
    dataset_free(&d);
    return ok;
}

/* ---------------------------------------------------------------------------------- score -- */

static bool run_scores(const Bench *b, const SaeSet *saes, Err *err) {
    Records records = {0};
    Passes p;
    ScoringWork work = {0};
    bool ok = records_read(&records, b->s->data.path, (size_t)b->s->data.limit, err);
    passes_init(&p, b, "score");
    for (int i = 0; i < b->s->bench.runs + 2 && ok; i++) {
        Scores scores = {0};
        ok = scoring_run(&scores, &work, b->r, saes, b->s, &records, NULL, records.n, NULL, err);
        if (ok) passes_add(&p, work.seconds);
        scores_free(&scores);
    }
    if (ok) {
        p.tokens = work.pass.tokens;
        say(b, "%zu pairs, %lld tokens (%lld computed, %lld counted) a pass, peak memory %.0f MB\n",
            records.n, (long long)work.pass.tokens, (long long)work.pass.rows,
            (long long)work.pass.counted, 1e-6 * machine_memory_use().peak);
        passes_print(&p);
    }
    free(p.seconds);
    records_free(&records);
    return ok;
}

bool bench_score(const Bench *b, Err *err) {
    const Settings *s = b->s;
    Runtime *r = b->r;
    Layers layers = {0};
    SaeSet saes = {0};
    Plan plan = {0};
    plan_measured(&plan, "program and tokenizer");
    bool ok = plan_score(&plan, s, &r->ex, NULL, err) && plan_fits(&plan, &r->ex, err) &&
              runtime_model(r, s, s->data.max_length, err) &&
              layers_parse(&layers, s->score.layers, r->model.c.L, err) &&
              saes_open(&saes, &r->ex, s, &layers, r->model.c.D, err) && run_scores(b, &saes, err);
    saes_close(&saes);
    layers_free(&layers);
    return ok;
}
