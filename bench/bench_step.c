/* bench_step - whole training steps on real documents: tokens/s, share of the machine's peak, and
 * where the time goes.
 *
 *   bench_step MODEL DATA [DTYPE [DOCUMENTS [STEPS]]]
 *
 * A step is what `sails train --init lora` does with a batch of all DOCUMENTS (default 64): packs,
 * forward, loss on replies, backward, AdamW. One step warms up, STEPS (default 3) are timed. CPU
 * only; MODEL may be random (sails init): time does not depend on the values. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "data/batch.h"
#include "host/base/mem.h"
#include "host/dataset.h"
#include "host/machine.h"
#include "host/perf.h"
#include "kernels/check.h"
#include "kernels/cpu/gate.h"
#include "model/init.h"
#include "model/optim.h"

enum { PACK = 2048, LONGEST = 1024, RANK = 16, OPS = 64 };

/* Time by op, in order of first use. */
typedef struct OpTime {
    const char *op;
    double seconds;
    size_t calls;
} OpTime;
static OpTime op_time[OPS];

static void add_time(const char *op, double seconds) {
    OpTime *t = op_time;
    while (t->op && strcmp(t->op, op) != 0) t++;
    CHECK(t < op_time + OPS - 1, "more than %d ops", OPS);
    t->op = op;
    t->seconds += seconds;
    t->calls++;
}

static int longest_first(const void *a, const void *b) {
    double x = ((const OpTime *)a)->seconds, y = ((const OpTime *)b)->seconds;
    return (x < y) - (x > y);
}

/* All documents of the bench, in their packs. */
typedef struct Batch {
    Pack *pack;
    int packs, rows, segs, labels; /* the last three: of the largest pack */
    size_t tokens, label_tokens;
} Batch;

static Batch make_batch(const Dataset *d) {
    int n = (int)d->n, *length = mem_array(d->n, sizeof *length);
    int *pack_of = mem_array(d->n, sizeof *pack_of);
    for (int i = 0; i < n; i++) length[i] = d->doc[i].n;
    Batch b = {.packs = batch_pack(pack_of, length, n, PACK), .tokens = d->tokens};
    b.pack = mem_array((size_t)b.packs, sizeof *b.pack);
    for (int i = 0; i < b.packs; i++) pack_init(&b.pack[i], PACK, n, PACK);
    for (int i = 0; i < n; i++) {
        Pack *p = &b.pack[pack_of[i]];
        pack_add(p, d->doc[i].token, d->doc[i].label, d->doc[i].n, i);
        b.rows = p->N > b.rows ? p->N : b.rows;
        b.segs = p->nseg > b.segs ? p->nseg : b.segs;
        b.labels = p->nlabel > b.labels ? p->nlabel : b.labels;
    }
    for (int i = 0; i < b.packs; i++) b.label_tokens += (size_t)b.pack[i].nlabel;
    free(length), free(pack_of);
    return b;
}

static double step(Model *m, Acts *a, Optim *o, const Batch *b) {
    float *nll = mem_array((size_t)b->labels, sizeof *nll), scale = 1 / (float)b->label_tokens;
    double sum = 0;
    for (int i = 0; i < b->packs; i++) {
        sum += model_loss(m, a, &b->pack[i], scale, nll);
        model_backward(m, a, &b->pack[i]);
    }
    optim_step(o, optim_norm(o), 2e-4, 1);
    free(nll);
    return sum * scale;
}

static void report(const Model *m, const Batch *b, double seconds, double loss, int steps) {
    double flops = 0, inside = 0;
    for (int i = 0; i < b->packs; i++) flops += perf_flops(&m->c, m->lora, &b->pack[i]);
    Peak peak = peak_measure();
    double roof = m->ex->dtype == DTYPE_BF16 && peak.bf16 > 0 ? peak.bf16 : peak.f32;
    printf("%s, %d threads, %zu tokens (%zu labels) in %d packs, loss %.4f, peak memory %.0f MB\n",
           m->ex->op->name, omp_get_max_threads(), b->tokens, b->label_tokens, b->packs, loss,
           1e-6 * machine_memory_use().peak);
    printf("%.1f tokens/s, %.2f s a step, %.1f GFLOP/s, %.1f %% of the measured peak %.0f\n",
           (double)b->tokens / seconds, seconds, 1e-9 * flops / seconds,
           100 * flops / seconds / roof, 1e-9 * roof);
    size_t ops = 0;
    while (op_time[ops].op) ops++;
    qsort(op_time, ops, sizeof *op_time, longest_first);
    puts("op,calls_per_step,ms_per_step,percent");
    for (OpTime *t = op_time; t < op_time + ops; t++) {
        printf("%s,%.0f,%.2f,%.2f\n", t->op, (double)t->calls / steps, 1e3 * t->seconds / steps,
               100 * t->seconds / steps / seconds);
        inside += t->seconds / steps;
    }
    printf("outside of ops,,%.2f,%.2f\n", 1e3 * (seconds - inside), 100 * (1 - inside / seconds));
}

static void adapt(Model *m, Lora *lora) {
    Err err;
    LoraShape shape;
    InitOptions o = {.rank = RANK, .alpha = 2 * RANK, .basis_scale = 1};
    for (enum Proj p = PROJ_Q; p <= PROJ_O; p++) o.target[p] = true;
    CHECK(init_shape(&shape, &m->c, &o, NULL, &err), "%s", err.text);
    lora_init(lora, m->ex, &m->c, &shape, true);
    lora_shape_free(&shape);
    init_lora(lora, 0);
    lora_sync(lora);
    m->lora = lora;
}

static void run(Exec *ex, const char *folder, const char *data, size_t docs, int steps) {
    Err err;
    Tokenizer *tokenizer;
    Dataset d;
    Model m;
    Lora lora;
    Optim optim;
    CHECK(tokenizer_open(&tokenizer, folder, &err) &&
              dataset_load(&d, tokenizer, data, SIDE_CHOSEN, LONGEST, docs, &err) &&
              model_open(&m, ex, folder, LONGEST, &err),
          "%s", err.text);
    adapt(&m, &lora);
    optim_init(&optim, &lora, (AdamW){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8});
    Batch b = make_batch(&d);
    Acts *a = acts_create(&m, b.rows, b.segs, b.labels, ACTS_TRAIN);
    double loss = step(&m, a, &optim, &b);
    gate_watch = add_time;
    double start = bench_seconds();
    for (int i = 0; i < steps; i++) step(&m, a, &optim, &b);
    double seconds = (bench_seconds() - start) / steps;
    gate_watch = NULL;
    report(&m, &b, seconds, loss, steps);
    for (int i = 0; i < b.packs; i++) pack_free(&b.pack[i]);
    free(b.pack);
    acts_destroy(a);
    optim_free(&optim);
    lora_free(&lora);
    model_close(&m);
    dataset_free(&d);
    tokenizer_close(tokenizer);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: bench_step MODEL DATA [f32|bf16 [DOCUMENTS [STEPS]]]\n");
        return 2;
    }
    Exec ex;
    bool f32 = argc > 3 && strcmp(argv[3], "f32") == 0;
    const char *why = exec_open(&ex, DEVICE_CPU, f32 ? DTYPE_F32 : DTYPE_BF16);
    CHECK(!why, "%s", why);
    int docs = argc > 4 ? atoi(argv[4]) : 64, steps = argc > 5 ? atoi(argv[5]) : 3;
    CHECK(docs > 0 && steps > 0, "expected counts, got %d documents, %d steps", docs, steps);
    run(&ex, argv[1], argv[2], (size_t)docs, steps);
    exec_close(&ex);
    return 0;
}
