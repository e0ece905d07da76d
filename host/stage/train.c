/* train.c - the loop over global batches: packs, gradients in their tree, one step. */
#include "host/stage/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/batch.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/out_folder.h"
#include "data/base/interrupt.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/flops.h"
#include "host/stage/nll.h"
#include "host/stage/preference.h"
#include "host/stage/reference.h"
#include "host/stage/same_input.h"
#include "host/stage/tuned_model.h"
#include "host/cli/print.h"
#include "model/grad_tree.h"
#include "model/optim.h"
#include "model/redundancy.h"

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
                      .pack_tokens = settings_training_pack(s),
                      .recompute = s->train.recompute,
                      .pair_loss = preference_loss(s),
                      .reference_is_start = *s->train.init_adapter || settings_all_weights(s),
                      .seed = (uint64_t)s->run.seed,
                      .clip = s->train.clip,
                      .redundancy = s->train.redundancy,
                      .tensorboard = s->train.tensorboard,
                      .json = s->run.json};
    t->schedule = (Schedule){(enum ScheduleKind)s->train.schedule, s->train.lr,
                             (int)ceil(s->train.warmup * (double)steps), (int)steps};
    t->adamw = (AdamW){.beta1 = s->train.beta1,
                       .beta2 = s->train.beta2,
                       .eps = s->train.eps,
                       .weight_decay = s->train.weight_decay};
}

/* What came of a pack. */
typedef struct PackNews {
    double loss, flops;
    PairFacts facts; /* sums */
} PackNews;

/* What a rank tells the others at the end of a step. */
typedef struct StepNews {
    Wish wish;
    double waited, carried; /* seconds, of this step; for news of the step before */
    PackNews pack[];        /* of the rank's packs, in the order of rounds */
} StepNews;

/* What the loop holds from the first step to the last. */
typedef struct Loop {
    const TrainSetup *t;
    Model *m;
    Comm *comm;         /* m->ex's */
    StepNews *news;     /* one for each rank */
    Checkpoints *saves; /* NULL: none */
    Wish wish;          /* of all ranks, at the end of the last step */
    double waited;      /* seconds for the news of the last step, which could not tell of them */
    Optim optim;
    Redundancy redundancy;
    GradTree tree;
    Acts *acts;
    Pack pack;
    bool bad; /* a pack of this step had no finite loss; it stays, to be looked at */
    Metrics metrics;
    int *number, *length, *pack_of; /* (batch) of the step's documents */
    float *nll;                     /* (labels of the largest pack) */
    Reference reference;            /* of pairs */
    PairObjective pairs;            /* with that */
    LogitFacts logits;              /* of pairs: what nll is not */
} Loop;

Examples train_examples(const TrainSetup *t) {
    return (Examples){.doc = t->doc, .shared = t->shared, .index = t->index, .n = t->n};
}

Examples train_eval_examples(const TrainSetup *t) {
    return (Examples){
        .doc = t->eval, .shared = t->eval_shared, .index = t->eval_index, .n = t->neval};
}

/* The examples of a step and their packs, into number, length and pack_of (batch); returns the
 * examples, *packs the packs. The recipe alone decides, never what memory there is. */
static int step_packs(const TrainSetup *t, int step, int *number, int *length, int *pack_of,
                      int *packs) {
    int n = batch_docs(number, t->n, t->batch, t->seed, (size_t)step);
    Examples data = train_examples(t);
    for (int i = 0; i < n; i++) length[i] = example_size(&data, (size_t)number[i]).rows;
    *packs = batch_pack(pack_of, length, n, t->pack_tokens);
    return n;
}

int train_packs(const TrainSetup *t, int step) {
    size_t n = (size_t)t->batch;
    int packs, *number = mem_array(n, sizeof(int)), *length = mem_array(n, sizeof(int));
    int *pack_of = mem_array(n, sizeof(int));
    step_packs(t, step, number, length, pack_of, &packs);
    free(pack_of), free(length), free(number);
    return packs;
}

/* Bound without looking at the steps: a full pack, or everything that a batch can hold; and of any
 * two packs that first fit has made, the second begins with a document that the first had no room
 * for. */
static TrainSize size_bound(const TrainSetup *t) {
    PackSize one = {0};
    Examples data = train_examples(t);
    for (size_t i = 0; i < t->n; i++) one = pack_size_most(one, example_size(&data, i));
    size_t longest = (size_t)one.rows, pack = (size_t)t->pack_tokens;
    size_t batch = longest * (size_t)t->batch, packs = 2 * batch / pack + 1;
    size_t segs = (size_t)one.segs * (size_t)t->batch;
    int rows = batch < pack ? (int)batch : t->pack_tokens;
    return (TrainSize){{rows, segs < (size_t)rows ? (int)segs : rows, rows},
                       packs < (size_t)t->batch ? (int)packs : t->batch};
}

TrainSize train_size(const TrainSetup *t) {
    enum { STEPS = 20000 }; /* more would take longer than the memory saved is worth */
    if (t->steps > STEPS) return size_bound(t);
    size_t n = (size_t)t->batch;
    int *number = mem_array(n, sizeof(int)), *length = mem_array(n, sizeof(int));
    int *pack_of = mem_array(n, sizeof(int));
    PackSize *pack = mem_array(n, sizeof *pack), most = {1, 1, 1};
    Examples data = train_examples(t);
    int most_packs = 1;
    for (int step = 0; step < t->steps; step++) {
        int packs, docs = step_packs(t, step, number, length, pack_of, &packs);
        memset(pack, 0, (size_t)packs * sizeof *pack);
        for (int i = 0; i < docs; i++) {
            PackSize *p = &pack[pack_of[i]];
            *p = pack_size_sum(*p, example_size(&data, (size_t)number[i]));
        }
        for (int p = 0; p < packs; p++) most = pack_size_most(most, pack[p]);
        if (packs > most_packs) most_packs = packs;
    }
    free(pack), free(pack_of), free(length), free(number);
    return (TrainSize){most, most_packs};
}

static int rounds_of(const Loop *l, int packs) {
    return (packs + comm_size(l->comm) - 1) / comm_size(l->comm);
}

static size_t news_bytes(const Loop *l, int packs) {
    return sizeof(StepNews) + (size_t)rounds_of(l, packs) * sizeof l->news->pack[0];
}

/* Of a step of so many packs, for which the news lie one behind another. */
static StepNews *news_of(const Loop *l, int packs, int rank) {
    return (StepNews *)((char *)l->news + (size_t)rank * news_bytes(l, packs));
}

static void loop_init(Loop *l) {
    const TrainSetup *t = l->t;
    Model *m = l->m;
    TrainSize most = train_size(t);
    PackSize size = most.pack;
    l->news = mem_array((size_t)comm_size(l->comm), news_bytes(l, most.packs));
    optim_init(&l->optim, model_params(m), t->adamw);
    if (m->lora) redundancy_init(&l->redundancy, m->lora);
    grad_tree_init(&l->tree, model_params(m), most.packs);
    if (m->full) full_tell(m->full, model_params(m)->ranks ? grad_tree_give : NULL, &l->tree);
    l->acts = acts_create(m, size.rows, size.segs, size.labels,
                          t->recompute ? ACTS_RECOMPUTE : ACTS_TRAIN);
    pack_init(&l->pack, size.rows, size.segs, size.labels);
    l->number = mem_array((size_t)t->batch, sizeof *l->number);
    l->length = mem_array((size_t)t->batch, sizeof *l->length);
    l->pack_of = mem_array((size_t)t->batch, sizeof *l->pack_of);
    l->nll = mem_array((size_t)size.labels, sizeof *l->nll);
    if (!t->shared) return;
    l->logits = (LogitFacts){mem_array((size_t)size.labels, sizeof(float)),
                             mem_array((size_t)size.labels, sizeof(float)),
                             mem_array((size_t)size.labels, sizeof(float))};
    acts_tell_facts(l->acts, &l->logits);
}

static void loop_free(Loop *l) {
    reference_free(&l->reference);
    free(l->logits.entropy), free(l->logits.mean), free(l->logits.hit);
    free(l->news);
    free(l->nll);
    free(l->pack_of);
    free(l->length);
    free(l->number);
    pack_free(&l->pack);
    acts_destroy(l->acts);
    if (l->m->full) full_tell(l->m->full, NULL, NULL);
    grad_tree_free(&l->tree);
    redundancy_free(&l->redundancy);
    optim_free(&l->optim);
}

/* Forward and backward of one pack, and its part of the batch's loss; which -1: of none. Where that
 * is not finite there is no backward. */
static PackNews run_pack(Loop *l, int examples, int which, const Objective *o) {
    Examples data = train_examples(l->t);
    PackNews news = {.loss = 0};
    pack_clear(&l->pack);
    for (int i = 0; i < examples; i++)
        if (l->pack_of[i] == which) example_add(&l->pack, &data, (size_t)l->number[i]);
    bool learns = l->pack.nlabel > 0;
    if (learns)
        news.loss = model_loss(l->m, l->acts, &l->pack, o, l->nll);
    else
        model_idle_forward(l->m);
    if (learns && isfinite(news.loss))
        model_backward(l->m, l->acts, &l->pack);
    else
        model_idle_backward(l->m);
    if (!learns) return news;
    if (l->t->shared) pair_facts_of_pack(&news.facts, &l->pairs, &l->pack, l->nll, &l->logits);
    news.flops = flops_pack(&l->m->c, l->m->lora, &l->pack);
    return news;
}

/* The gradient has a norm where the loss is finite. All ranks are here, but for a loss that one
 * alone can look for. */
static bool went_bad(Loop *l, const StepMetrics *s, Err *err) {
    char where[96], norm[48] = "";
    if (isfinite(s->loss)) snprintf(norm, sizeof norm, ", gradient norm %g", s->grad_norm);
    snprintf(where, sizeof where, "step %d: loss %g%s", s->step, s->loss, norm);
    bool all = isfinite(s->loss) || model_params(l->m)->ranks;
    return (all ? bad_tensor_find_together : bad_tensor_find)(l->m, l->acts, where, err);
}

/* This rank's pack of a round, if it has one, and the round's gradients into the tree. Where a loss
 * is not finite it goes on with the others, without packs, until all have heard of it. */
static void run_round(Loop *l, int round, int packs, int ndocs, const StepMetrics *s) {
    int ranks = comm_size(l->comm), first = round * ranks, p = first + comm_rank(l->comm);
    int givers = packs - first < ranks ? packs - first : ranks;
    PackNews *own = news_of(l, packs, comm_rank(l->comm))->pack;
    Objective objective =
        l->t->shared ? objective_pairs(&l->pairs, ndocs) : objective_sft((double)s->labels);
    exec_range_push(l->m->ex, "microbatch %d", p + 1);
    grad_tree_round(&l->tree, givers, first + ranks >= packs);
    PackNews news = run_pack(l, ndocs, p < packs && !l->bad ? p : -1, &objective);
    if (p < packs) own[round] = news;
    l->bad = l->bad || !isfinite(news.loss);
    comm_beat(l->comm);
    (first + ranks < packs ? grad_tree_add : grad_tree_finish)(&l->tree, givers);
    exec_range_pop(l->m->ex);
}

/* Every pack's loss and work, added in the order of the packs, and what the ranks wish. */
static void hear_news(Loop *l, int packs, StepMetrics *s) {
    int ranks = comm_size(l->comm);
    comm_share(l->comm, "losses", l->news, news_bytes(l, packs));
    s->loss = 0;
    for (int p = 0; p < packs; p++) {
        s->loss += news_of(l, packs, p % ranks)->pack[p / ranks].loss;
        s->flops += news_of(l, packs, p % ranks)->pack[p / ranks].flops;
        pair_facts_join(&s->facts, &news_of(l, packs, p % ranks)->pack[p / ranks].facts);
    }
    l->wish = (Wish){0};
    double least = INFINITY;
    for (int r = 0; r < ranks; r++) {
        wish_join(&l->wish, &news_of(l, packs, r)->wish);
        s->waited += news_of(l, packs, r)->waited / ranks;
        s->carried += news_of(l, packs, r)->carried / ranks;
        least = fmin(least, news_of(l, packs, r)->carried);
    }
    if (!comm_behind(l->m->ex)) return;
    s->waited += s->carried - least; /* who comes last stands still for the bytes alone */
    s->carried = least;
}

/* Gradients of one global batch; fills tokens, labels, loss and flops. */
static bool run_batch(Loop *l, int step, StepMetrics *s, Err *err) {
    const TrainSetup *t = l->t;
    int packs, ndocs = step_packs(t, step, l->number, l->length, l->pack_of, &packs);
    CommWork before = comm_work(l->comm);
    StepNews *own = news_of(l, packs, comm_rank(l->comm));
    Examples data = train_examples(t);
    for (int i = 0; i < ndocs; i++) {
        s->tokens += (size_t)example_tokens(&data, (size_t)l->number[i]);
        s->labels += (size_t)example_size(&data, (size_t)l->number[i]).labels;
    }
    l->bad = false;
    for (int round = 0; round < rounds_of(l, packs); round++) {
        if (interrupted(err)) return false;
        run_round(l, round, packs, ndocs, s);
    }
    own->wish = checkpoints_wish(l->saves, (size_t)step + 1);
    if (l->comm) exec_sync(l->m->ex); /* moves count when they have landed */
    CommWork after = comm_work(l->comm);
    own->waited = after.waited - before.waited + l->waited;
    own->carried = after.carried - before.carried;
    hear_news(l, packs, s);
    l->waited = comm_work(l->comm).waited - after.waited;
    if (t->shared) s->pairs = (size_t)ndocs, s->facts = pair_facts_mean(&s->facts, ndocs);
    return true;
}

/* All ranks know it: they end together, when rank 0's save is there, with what was found where a
 * pack went bad, on all ranks where they share weights out; or everywhere, where finite losses have
 * an infinite sum. */
static bool loss_went_bad(Loop *l, const StepMetrics *s, Err *err) {
    bool ok = (!l->bad && !model_params(l->m)->ranks) || went_bad(l, s, err);
    if (!agree_all(l->comm, ok, err)) return false;
    agree_to_fail();
    return went_bad(l, s, err);
}

static bool run_step(Loop *l, int step, StepMetrics *s, Err *err) {
    const TrainSetup *t = l->t;
    double start = clock_seconds();
    *s = (StepMetrics){
        .step = step + 1, .total = t->steps, .ranks = comm_size(l->comm), .redundancy = NAN};
    if (!run_batch(l, step, s, err)) return false;
    if (!isfinite(s->loss)) return loss_went_bad(l, s, err);
    if (t->redundancy > 0) s->redundancy = redundancy_penalise(&l->redundancy, t->redundancy);
    s->grad_norm = optim_norm(&l->optim);
    if (!isfinite(s->grad_norm)) {
        agree_to_fail(); /* all ranks have this norm */
        return went_bad(l, s, err);
    }
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

/* How long a rank may be late: the first step also loads and warms up; later ones are like each
 * other. */
static void set_deadline(const Loop *l, int step, bool first) {
    enum { FIRST = 600, LEAST = 60, TIMES = 20 };
    double usual = TIMES * l->metrics.totals.mean_step;
    if (usual < (first ? FIRST : LEAST)) usual = first ? FIRST : LEAST;
    comm_phase(l->comm, "step", step + 1, usual);
}

static bool loss_of_documents(Loop *l, EvalMetrics *e, Err *err) {
    const TrainSetup *t = l->t;
    NllSum sum;
    if (!nll_sum(&sum, l->m, t->eval, t->eval_index, t->neval, t->pack_tokens, NULL, err))
        return false;
    e->loss = sum.labels ? sum.sum / (double)sum.labels : 0;
    e->labels = sum.labels;
    return true;
}

static bool loss_of_pairs(Loop *l, EvalMetrics *e, Err *err) {
    const TrainSetup *t = l->t;
    Examples pairs = train_eval_examples(t);
    double *logp = mem_array(2 * pairs.n, sizeof *logp);
    const NllHow how = {.pack_tokens = t->pack_tokens, .logits = true};
    bool ok = preference_logp(logp, &e->facts, l->m, &pairs, &how, err);
    if (ok) e->loss = preference_mean(&e->facts, &t->pair_loss, &pairs, logp, l->reference.eval);
    for (size_t i = 0; i < pairs.n; i++) e->labels += (size_t)example_size(&pairs, i).labels;
    e->pairs = pairs.n;
    free(logp);
    return ok;
}

/* The loss on other documents, when it is time. Rank 0 has it. */
static bool evaluate(Loop *l, int step, Err *err) {
    const TrainSetup *t = l->t;
    bool last = step == t->steps, due = t->eval_every > 0 && step % t->eval_every == 0;
    if (t->neval == 0 || !(last || due)) return true;
    EvalMetrics e = {.step = step, .total = t->steps};
    double start = clock_seconds();
    if (!(t->eval_shared ? loss_of_pairs : loss_of_documents)(l, &e, err)) return false;
    e.seconds = clock_seconds() - start;
    return metrics_eval(&l->metrics, &e, err);
}

static bool run_steps(Loop *l, Err *err) {
    bool ok = true;
    int first = l->optim.step;
    for (int step = first; step < l->t->steps && ok; step++) {
        StepMetrics s;
        if (!checkpoints_before_step(l->saves, &l->metrics, &l->wish, err)) return false;
        set_deadline(l, step, step == first);
        exec_range_push(l->m->ex, "step %d", step + 1);
        ok = run_step(l, step, &s, err);
        exec_range_pop(l->m->ex);
        ok = ok && evaluate(l, step + 1, err);
    }
    return ok;
}

/* Ranks that have read different documents, or started from different weights, would train what
 * nobody asked for. */
static bool same_start(const Loop *l, Err *err) {
    const TrainSetup *t = l->t;
    Examples data = train_examples(t), eval = train_eval_examples(t);
    return same_docs(l->comm, "what was read as data", &data, err) &&
           same_docs(l->comm, "what was read as eval data", &eval, err) &&
           checkpoint_agree(model_params(l->m), "what is trained", err);
}

/* Goes on from a checkpoint, if one is resumed, and measures what the steps need. */
static bool begin(Loop *l, Err *err) {
    const TrainSetup *t = l->t;
    Params *p = model_params(l->m);
    if (t->shared) reference_begin(&l->reference, l->m, t);
    bool ok =
        (!t->checkpoints || checkpoints_open(&l->saves, t->checkpoints, p, &l->metrics, err)) &&
        same_start(l, err) && (!t->shared || reference_measure(&l->reference, l->m, t, err));
    l->pairs = (PairObjective){t->pair_loss, l->reference.train};
    return ok;
}

/* What "% of peak" is of. Who starts very many short runs need not have it measured by each. */
static double peak_of(Model *m) {
    const char *given = getenv("SAILS_PEAK");
    return (given ? strtod(given, NULL) : flops_peak(m->ex)) * comm_size(m->ex->comm);
}

bool train(TrainResult *result, Model *m, const TrainSetup *t, Err *err) {
    Loop l = {.t = t, .m = m, .comm = m->ex->comm};
    double peak = peak_of(m);
    if (!metrics_open(&l.metrics, t->metrics_path, t->events_path, t->json, peak, err))
        return false;
    l.metrics.sink = t->sink, l.metrics.sink_context = t->sink_context;
    bool ok = begin(&l, err);
    if (ok) {
        loop_init(&l);
        l.optim.step = (int)l.metrics.totals.steps;
        ok = run_steps(&l, err);
    }
    comm_phase(l.comm, "after training", 0, 3 * RANKS_APART); /* rank 0 writes */
    Err late;
    bool saved = checkpoints_close(l.saves, ok ? err : &late);
    if (agree_failed()) comm_barrier(l.comm, "the last save"); /* nobody ends before it is there */
    *result = result_of(&l.metrics.totals);
    result->redundancy = ok && m->lora ? redundancy_measure(&l.redundancy) : NAN;
    loop_free(&l);
    bool closed = metrics_close(&l.metrics, ok && saved ? err : &late);
    return ok && saved && closed;
}

/* Of the rank that writes; *trained: only the writing can have failed. */
static bool train_and_save(TrainResult *result, Model *m, TrainSetup *t, const char *folder,
                           const char *base_model, bool *trained, Err *err) {
    OutFolder *out;
    if (t->checkpoints && t->checkpoints->resume) out_folder_sweep(folder);
    if (!out_folder_open(&out, folder, err)) return false;
    char *metrics = files_join(out_folder_path(out), "metrics.jsonl");
    char *events = files_join(out_folder_path(out), EVENTS_FILE);
    t->metrics_path = metrics, t->events_path = t->tensorboard ? events : NULL;
    *trained = train(result, m, t, err);
    const char *to = out_folder_path(out);
    bool ok = *trained && (m->full ? tuned_model_save(m, to, base_model, err)
                                   : lora_save(m->lora, to, base_model, err));
    t->metrics_path = t->events_path = NULL;
    free(metrics), free(events);
    return out_folder_close(out, ok, err);
}

bool train_folder(TrainResult *result, Model *m, TrainSetup *t, const char *folder,
                  const char *base_model, Err *err) {
    Comm *comm = m->ex->comm;
    bool trained = false, ok;
    if (comm_root(comm))
        ok = train_and_save(result, m, t, folder, base_model, &trained, err);
    else
        ok = trained = train(result, m, t, err);
    if (!comm_root(comm) && trained && m->full) tuned_model_help(m);
    return trained && agree_root(comm, ok, err);
}
