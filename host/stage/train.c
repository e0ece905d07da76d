/* train.c - the loop over global batches: packs, gradients in their tree, one step. */
#include "host/stage/train.h"

#include <math.h>
#include <stdio.h>

#include "data/batch.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/out_folder.h"
#include "data/base/interrupt.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/flops.h"
#include "host/cli/print.h"
#include "model/grad_tree.h"
#include "model/optim.h"

bool train_saves(const Settings *s) {
    return s->train.checkpoint_every || s->train.checkpoint_minutes > 0 || s->train.resume;
}

void train_setup(TrainSetup *t, const Settings *s, size_t n) {
    int batch = s->train.batch;
    size_t steps = s->train.steps ? (size_t)s->train.steps : batch_steps(n, batch, s->train.epochs);
    CHECK(steps <= INT32_MAX, "%zu steps", steps);
    *t = (TrainSetup){.n = n,
                      .batch = batch,
                      .steps = (int)steps,
                      .steps_per_epoch = (double)batch_steps(n, batch, 1),
                      .pack_tokens = settings_pack_tokens(s),
                      .seed = (uint64_t)s->run.seed,
                      .clip = s->train.clip,
                      .json = s->run.json};
    t->schedule = (Schedule){(enum ScheduleKind)s->train.schedule, s->train.lr,
                             (int)ceil(s->train.warmup * (double)steps), (int)steps};
    t->adamw = (AdamW){.beta1 = s->train.beta1,
                       .beta2 = s->train.beta2,
                       .eps = s->train.eps,
                       .weight_decay = s->train.weight_decay};
}

/* What the loop holds from the first step to the last. */
typedef struct Loop {
    const TrainSetup *t;
    Model *m;
    Optim optim;
    GradTree tree;
    Acts *acts;
    Pack pack;
    Metrics metrics;
    int *number, *length, *pack_of; /* (batch) of the step's documents */
    float *nll;                     /* (labels of the largest pack) */
} Loop;

static const Doc *doc_at(const TrainSetup *t, size_t i) {
    return &t->doc[t->index ? t->index[i] : i];
}

static int labels_of(const Doc *d) {
    int n = 0;
    for (int i = 0; i < d->n; i++) n += d->label[i] != 0;
    return n;
}

/* The documents of a step and their packs, into number, length and pack_of (batch); returns the
 * documents, *packs the packs. The recipe alone decides, never what memory there is. */
static int step_packs(const TrainSetup *t, int step, int *number, int *length, int *pack_of,
                      int *packs) {
    int n = batch_docs(number, t->n, t->batch, t->seed, (size_t)step);
    for (int i = 0; i < n; i++) length[i] = doc_at(t, (size_t)number[i])->n;
    *packs = batch_pack(pack_of, length, n, t->pack_tokens);
    return n;
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

/* Bound without looking at the steps: a full pack, or everything that a batch can hold; and of any
 * two packs that first fit has made, the second begins with a document that the first had no room
 * for. */
static TrainSize size_bound(const TrainSetup *t) {
    size_t longest = 0, pack = (size_t)t->pack_tokens;
    for (size_t i = 0; i < t->n; i++)
        if ((size_t)doc_at(t, i)->n > longest) longest = (size_t)doc_at(t, i)->n;
    size_t batch = longest * (size_t)t->batch, packs = 2 * batch / pack + 1;
    int rows = batch < pack ? (int)batch : t->pack_tokens;
    return (TrainSize){{rows, t->batch < rows ? t->batch : rows, rows},
                       packs < (size_t)t->batch ? (int)packs : t->batch};
}

TrainSize train_size(const TrainSetup *t) {
    enum { STEPS = 20000 }; /* more would take longer than the memory saved is worth */
    if (t->steps > STEPS) return size_bound(t);
    size_t n = (size_t)t->batch;
    int *number = mem_array(n, sizeof(int)), *length = mem_array(n, sizeof(int));
    int *pack_of = mem_array(n, sizeof(int));
    PackSize *pack = mem_array(n, sizeof *pack), most = {1, 1, 1};
    int most_packs = 1;
    for (int step = 0; step < t->steps; step++) {
        int packs, docs = step_packs(t, step, number, length, pack_of, &packs);
        memset(pack, 0, (size_t)packs * sizeof *pack);
        for (int i = 0; i < docs; i++) {
            PackSize *p = &pack[pack_of[i]];
            p->rows += length[i];
            p->segs++;
            p->labels += labels_of(doc_at(t, (size_t)number[i]));
        }
        for (int p = 0; p < packs; p++)
            most = (PackSize){larger(most.rows, pack[p].rows), larger(most.segs, pack[p].segs),
                              larger(most.labels, pack[p].labels)};
        most_packs = larger(most_packs, packs);
    }
    free(pack), free(pack_of), free(length), free(number);
    return (TrainSize){most, most_packs};
}

static void loop_init(Loop *l, Model *m, const TrainSetup *t) {
    TrainSize most = train_size(t);
    PackSize size = most.pack;
    l->t = t;
    l->m = m;
    optim_init(&l->optim, &m->lora->params, t->adamw);
    grad_tree_init(&l->tree, &m->lora->params, most.packs);
    l->acts = acts_create(m, size.rows, size.segs, size.labels, ACTS_TRAIN);
    pack_init(&l->pack, size.rows, size.segs, size.labels);
    l->number = mem_array((size_t)t->batch, sizeof *l->number);
    l->length = mem_array((size_t)t->batch, sizeof *l->length);
    l->pack_of = mem_array((size_t)t->batch, sizeof *l->pack_of);
    l->nll = mem_array((size_t)size.labels, sizeof *l->nll);
}

static void loop_free(Loop *l) {
    free(l->nll);
    free(l->pack_of);
    free(l->length);
    free(l->number);
    pack_free(&l->pack);
    acts_destroy(l->acts);
    grad_tree_free(&l->tree);
    optim_free(&l->optim);
}

/* Forward and backward of one pack; returns its part of the batch's loss. Where that is not finite
 * there is no backward. */
static double run_pack(Loop *l, const int *number, int ndocs, int which, const Objective *o,
                       double *flops) {
    pack_clear(&l->pack);
    for (int i = 0; i < ndocs; i++) {
        if (l->pack_of[i] != which) continue;
        const Doc *d = doc_at(l->t, (size_t)number[i]);
        pack_add(&l->pack, d->token, d->label, d->n, number[i]);
    }
    if (l->pack.nlabel == 0) return 0; /* nothing to learn from */
    double loss = model_loss(l->m, l->acts, &l->pack, o, l->nll);
    if (isfinite(loss)) model_backward(l->m, l->acts, &l->pack);
    *flops += flops_pack(&l->m->c, l->m->lora, &l->pack);
    return loss;
}

/* The gradient has a norm where the loss is finite. */
static bool went_bad(Loop *l, const StepMetrics *s, Err *err) {
    char where[96], norm[48] = "";
    if (isfinite(s->loss)) snprintf(norm, sizeof norm, ", gradient norm %g", s->grad_norm);
    snprintf(where, sizeof where, "step %d: loss %g%s", s->step, s->loss, norm);
    return bad_tensor_find(l->m, l->acts, where, err);
}

/* Gradients of one global batch; fills tokens, labels, loss and flops. */
static bool run_batch(Loop *l, int step, StepMetrics *s, Err *err) {
    const TrainSetup *t = l->t;
    int packs, ndocs = step_packs(t, step, l->number, l->length, l->pack_of, &packs);
    for (int i = 0; i < ndocs; i++) {
        s->tokens += (size_t)l->length[i];
        s->labels += (size_t)labels_of(doc_at(t, (size_t)l->number[i]));
    }
    Objective objective = objective_sft((double)s->labels);
    for (int p = 0; p < packs; p++) {
        if (interrupted(err)) return false;
        exec_range_push(l->m->ex, "microbatch %d", p + 1);
        s->loss += run_pack(l, l->number, ndocs, p, &objective, &s->flops);
        (p + 1 < packs ? grad_tree_add : grad_tree_finish)(&l->tree);
        exec_range_pop(l->m->ex);
        if (!isfinite(s->loss)) return went_bad(l, s, err); /* while the pack is there to look at */
    }
    return true;
}

static bool run_step(Loop *l, int step, StepMetrics *s, Err *err) {
    const TrainSetup *t = l->t;
    double start = clock_seconds();
    *s = (StepMetrics){.step = step + 1, .total = t->steps};
    if (!run_batch(l, step, s, err)) return false;
    s->grad_norm = optim_norm(&l->optim);
    if (!isfinite(s->grad_norm)) return went_bad(l, s, err);
    s->learning_rate = schedule_lr(&t->schedule, step);
    optim_step(&l->optim, s->grad_norm, s->learning_rate, t->clip);
    exec_sync(l->m->ex);
    s->epoch = (step + 1) / t->steps_per_epoch;
    s->seconds = clock_seconds() - start;
    return metrics_step(&l->metrics, s, err);
}

static TrainResult result_of(const RunTotals *t) {
    TrainResult r = {.steps = (int)t->steps,
                     .seconds = t->seconds,
                     .first_loss = NAN,
                     .last_loss = NAN,
                     .mean_loss = NAN,
                     .tokens = t->tokens,
                     .labels = t->labels};
    if (t->steps == 0) return r;
    r.first_loss = t->first_loss, r.last_loss = t->last_loss;
    r.mean_loss = t->loss_sum / (double)t->steps;
    return r;
}

static bool run_steps(Loop *l, Checkpoints *saves, Err *err) {
    bool ok = true;
    for (int step = l->optim.step; step < l->t->steps && ok; step++) {
        StepMetrics s;
        if (saves && !checkpoints_before_step(saves, &l->metrics, err)) return false;
        exec_range_push(l->m->ex, "step %d", step + 1);
        ok = run_step(l, step, &s, err);
        exec_range_pop(l->m->ex);
    }
    return ok;
}

bool train(TrainResult *result, Model *m, const TrainSetup *t, Err *err) {
    Loop l = {0};
    Checkpoints *saves = NULL;
    if (!metrics_open(&l.metrics, t->metrics_path, t->json, flops_peak(m->ex), err)) return false;
    l.metrics.sink = t->sink, l.metrics.sink_context = t->sink_context;
    loop_init(&l, m, t);
    bool ok = !t->checkpoints ||
              checkpoints_open(&saves, t->checkpoints, &m->lora->params, &l.metrics, err);
    l.optim.step = (int)l.metrics.totals.steps;
    ok = ok && run_steps(&l, saves, err);
    Err late;
    bool saved = checkpoints_close(saves, ok ? err : &late);
    *result = result_of(&l.metrics.totals);
    loop_free(&l);
    bool closed = metrics_close(&l.metrics, ok && saved ? err : &late);
    return ok && saved && closed;
}

bool train_folder(TrainResult *result, Model *m, TrainSetup *t, const char *folder,
                  const char *base_model, Err *err) {
    OutFolder *out;
    if (!out_folder_open(&out, folder, err)) return false;
    char *metrics = files_join(out_folder_path(out), "metrics.jsonl");
    t->metrics_path = metrics;
    bool ok = train(result, m, t, err) && lora_save(m->lora, out_folder_path(out), base_model, err);
    t->metrics_path = NULL;
    free(metrics);
    return out_folder_close(out, ok, err);
}
