/* plan.c - the memory of a stage, item by item, from shapes alone. */
#include "host/stage/plan.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>

#include "host/stage/adapting.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "host/stage/machine.h"
#include "host/stage/nll.h"
#include "host/stage/plan_base.h"
#include "host/stage/planned_card.h"
#include "host/stage/reference.h"
#include "host/cli/print.h"
#include "host/stage/train.h"
#include "model/grad_tree.h"
#include "model/inputs.h"
#include "model/optim.h"
#include "model/presets.h"
#include "model/redundancy.h"
#include "model/tensors.h"

const char *const plan_kind_name[] = {"anonymous", "file", "device"};

void plan_add(Plan *p, const char *name, enum PlanKind kind, double bytes) {
    if (bytes <= 0) return;
    CHECK(p->n < PLAN_ITEMS, "%d items", p->n);
    p->item[p->n++] = (PlanItem){.name = name, .kind = kind, .bytes = bytes};
}

void plan_add_root(Plan *p, const char *name, enum PlanKind kind, double bytes) {
    int n = p->n;
    plan_add(p, name, kind, bytes);
    if (p->n > n) p->item[n].root = true;
}

void plan_measured(Plan *p, const char *name) {
    MemoryUse use = machine_memory_use();
    plan_add(p, name, PLAN_ANONYMOUS, use.anonymous + use.shared - p->seen[PLAN_ANONYMOUS]);
    plan_add(p, name, PLAN_FILE, use.file - p->seen[PLAN_FILE]);
    p->seen[PLAN_ANONYMOUS] = use.anonymous + use.shared;
    p->seen[PLAN_FILE] = use.file;
}

double plan_total(const Plan *p, enum PlanKind kind) {
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        if (p->item[i].kind == kind) sum += p->item[i].bytes;
    return sum;
}

static double of_root(const Plan *p, enum PlanKind kind) {
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        if (p->item[i].kind == kind && p->item[i].root) sum += p->item[i].bytes;
    return sum;
}

/* The refusal, unless `more` bytes of one kind fit into the `limit` that is available. */
static bool fits(const Plan *p, enum PlanKind kind, double more, double limit, Err *err) {
    if (more <= limit) return true;
    const PlanItem *largest = NULL;
    for (int i = 0; i < p->n; i++)
        if (p->item[i].kind == kind && (!largest || p->item[i].bytes > largest->bytes))
            largest = &p->item[i];
    char need[PRINT_ROOM], have[PRINT_ROOM], most[PRINT_ROOM];
    return err_set(
        err, EXIT_MEMORY,
        "does not fit: %s more %sare needed, %s are available; the largest part is %s, %s; "
        "see sails plan, %slower --pack-tokens, --max-length or --batch",
        print_bytes(need, more), kind == PLAN_DEVICE ? "of the GPU's memory " : "",
        print_bytes(have, limit), largest->name, print_bytes(most, largest->bytes),
        p->keeps_all ? "give --recompute, or " : "or ");
}

bool plan_fits(const Plan *p, Exec *ex, Err *err) {
    Machine m;
    machine_read(&m);
    MemoryUse use = machine_memory_use();
    size_t available, all;
    double limit = m.limit > 0 && m.limit < m.available ? m.limit : m.available;
    if (limit > 0 && !planned_card(ex)) { /* nor need its machine be here */
        TransportSeat seat = comm_seat(ex->comm);
        double root = of_root(p, PLAN_ANONYMOUS), here = seat.leader == 0 ? root : 0;
        double more = plan_total(p, PLAN_ANONYMOUS) - root - use.anonymous;
        double share = fmax(0, limit - here) / seat.local_size; /* rank 0's own apart */
        if (comm_root(ex->comm)) more += root, share += root;
        if (!fits(p, PLAN_ANONYMOUS, more, fmin(share, limit), err)) return false;
    }
    double device = plan_total(p, PLAN_DEVICE);
    if (!comm_root(ex->comm)) device -= of_root(p, PLAN_DEVICE);
    return !exec_memory(ex, &available, &all) ||
           fits(p, PLAN_DEVICE, device, (double)available, err);
}

/* ------------------------------------------------------------------------------- weights -- */

/* Bytes of the embedding that looking up the documents' tokens maps: the kernel maps cached file
 * pages in aligned windows around the one that is touched. */
static double embedding_windows(const StTensor *t, const Dataset *d) {
    enum { WINDOW = 1 << 16 };
    size_t row = t->bytes / t->dim[0], windows = t->bytes / WINDOW + 2, count = 0;
    bool *seen = mem_array(windows, sizeof *seen);
    for (size_t i = 0; i < d->n; i++)
        for (int j = 0; j < d->doc[i].n; j++) {
            size_t at = (size_t)d->doc[i].token[j] * row;
            for (size_t w = at / WINDOW; w <= (at + row - 1) / WINDOW && w < windows; w++) {
                count += !seen[w];
                seen[w] = true;
            }
        }
    free(seen);
    double bytes = (double)count * WINDOW;
    return bytes < (double)t->bytes ? bytes : (double)t->bytes;
}

static bool is_full(const Base *b) {
    return b->full.params.n > 0;
}

static void rope_bytes(Plan *p, const Base *b, int positions) {
    int rows = positions ? positions : b->c.max_positions;
    plan_add(p, "rope table", b->kind, (double)rows * b->c.E * sizeof(float));
}

/* Of a shape, whose tensors are nowhere yet. */
static void weights_of_shape(Plan *p, const Base *b) {
    double bytes = (double)tensors_parameters(&b->c) * (double)dtype_size(b->ex->dtype);
    if (!is_full(b)) plan_add(p, "weights", b->kind, bytes);
    rope_bytes(p, b, 0);
}

bool plan_weights(Plan *p, const Base *b, const char *folder, int positions, int layers,
                  const Dataset *d, Err *err) {
    const Config *c = &b->c;
    StSet *set;
    if (!*folder) return weights_of_shape(p, b), true;
    if (is_full(b)) return rope_bytes(p, b, positions), true;
    if (!st_open_folder(&set, folder, "model", err)) return false;
    double mapped = 0, placed = 0;
    for (size_t i = 0; i < tensors_count(c); i++) {
        const Tensor tensor = tensors_at(c, i);
        const StTensor *t = st_find(set, tensor.name);
        if (!t) continue; /* opening the model will say so */
        if (!(st_stores(t, b->ex->dtype) && exec_reads(b->ex, t->data)))
            placed += (double)t->count * (double)dtype_size(b->ex->dtype);
        else if (tensor.kind == TENSOR_EMBED && layers < c->L && d)
            mapped += embedding_windows(t, d);
        else if (tensor.layer < layers)
            mapped += (double)t->bytes;
    }
    st_close(set);
    plan_add(p, "weights, mapped", PLAN_FILE, mapped);
    plan_add(p, b->kind == PLAN_DEVICE ? "weights" : "weights, converted", b->kind, placed);
    rope_bytes(p, b, positions);
    return true;
}

/* ------------------------------------------------------------------- adapters, activations -- */

/* What a subspace that is still to come decides: directions kept, and eva's ranks. */
static void at_most(LoraShape *shape, const Config *c, const Settings *s) {
    for (int i = 0; i < c->L * PROJ_COUNT; i++) {
        enum Proj p = (enum Proj)(i % PROJ_COUNT);
        int keep = s->inputs.preserve_rank, out = proj_out(c, p);
        if (shape->rank[i] == 0) continue;
        if (s->train.init == START_SALORA) shape->keep[i] = keep < out ? keep : out;
        if (s->train.init == START_EVA)
            shape->rank[i] = eva_columns(s->train.rank, s->train.rho, proj_in(c, p));
    }
}

/* The form of the adapters; masters have memory only where they come from a folder. */
static bool adapter(Base *b, const Settings *s, bool training, Err *err) {
    Lora *lora = &b->lora;
    Exec *cpu = &b->cpu;
    const Config *c = &b->c;
    const char *folder = training ? s->train.init_adapter : s->model.adapter;
    if (*folder) return lora_load(lora, cpu, c, folder, false, err);
    if (!training) return true;
    Subspace subspace = {0};
    enum StartKind start = (enum StartKind)s->train.init;
    bool to_come = adapter_start[start].subspace && !*s->train.subspace;
    if (to_come) start = adapter_start[start].start ? START_PISSA : START_LORA; /* of this rank */
    if (adapter_start[start].subspace && !adapting_load(&subspace, s, err)) return false;
    b->bases = (double)subspace_bytes(&subspace);
    LoraShape shape;
    bool ok = adapting_shape(&shape, c, s, start, &subspace, err);
    subspace_free(&subspace);
    if (!ok) return false;
    if (to_come) at_most(&shape, c, s);
    lora_declare(lora, cpu, c, &shape);
    lora_shape_free(&shape);
    return true;
}

void plan_adapter(Plan *p, const Base *b, bool training) {
    double n = (double)b->lora.params.size;
    plan_add(p, "adapters", b->kind, n * (double)(sizeof(float) + dtype_size(b->ex->dtype)));
    if (!training) return;
    plan_add(p, "adapter gradients", b->kind, n * sizeof(float));
    plan_add(p, "optimiser", b->kind, 2 * n * sizeof(float));
    plan_add(p, "gradient norm", b->kind, (double)optim_bytes(&b->lora.params));
    plan_add(p, "kept directions", b->kind, (double)params_kept_bytes(&b->lora.params));
    plan_add(p, "redundancy of adapters", b->kind,
             (double)redundancy_bytes(&b->lora, b->ex->dtype));
}

/* All weights, as they are trained. */
static void full_bytes(Plan *p, const Base *b) {
    ParamBytes n = params_bytes_split(&b->full.params, b->ex->dtype);
    const Params *all = &b->full.params;
    size_t held = all->ranks ? all->held * dtype_size(b->ex->dtype) : n.weights;
    plan_add(p, "weights", b->kind, (double)held);
    plan_add(p, "gathered weights", b->kind, (double)(n.weights - held));
    plan_add(p, "low halves", b->kind, (double)n.lows);
    size_t sums = all->ranks ? all->held * sizeof(float) : n.grads;
    plan_add(p, "gradients", b->kind, (double)sums);
    plan_add(p, "gradients of a pack", b->kind, (double)(n.grads - sums));
    plan_add(p, "optimiser", b->kind, (double)n.moments);
    plan_add(p, "gradient norm", b->kind, (double)optim_bytes(&b->full.params));
}

static Params *trained(Base *b) {
    return is_full(b) ? &b->full.params : &b->lora.params;
}

/* A GPU's workspace was taken when it was opened: counted is what it must grow by, doubling, and
 * what a few allocations lose to whole pages of 2 MB. On the CPU what doubling adds is never
 * touched; beside it ops and their threads take what no shape decides. */
void plan_workspace(Plan *p, const Base *b, size_t need) {
    enum { FIXED = 22 << 20, PAGES = 8 << 20 };
    need = larger(need, b->ex->op->rope_table_scratch(b->ex, b->c.E));
    double bytes = (double)need + FIXED;
    if (b->kind == PLAN_DEVICE) {
        double held = (double)b->ex->scratch_bytes, room = fmax(held, SCRATCH_MIN);
        while (room < (double)need) room *= 2;
        bytes = room - held + PAGES;
    }
    plan_add(p, "workspace", b->kind, bytes);
}

AttnShape plan_attention(const Base *b) {
    AttnShape a = config_attn(&b->c, 0);
    a.window = 0;
    return a;
}

static int widest(const Config *c) {
    int sides = c->D > c->H * c->E ? c->D : c->H * c->E;
    return c->F > sides ? c->F : sides;
}

size_t plan_weight_grads_scratch(const Base *b, int rows) {
    const Config *c = &b->c;
    Exec *ex = b->ex;
    size_t need = 0;
    for (enum Proj p = 0; p < PROJ_COUNT; p++)
        need = larger(need, ex->op->gemm_grad_scratch(ex, rows, proj_out(c, p), proj_in(c, p)));
    return need;
}

/* Of the gradients of all weights, those of the head apart. */
static size_t full_scratch(const Base *b, int rows) {
    Exec *ex = b->ex;
    return larger(ex->op->rmsnorm_grad_scratch(ex, rows, b->c.D),
                  plan_weight_grads_scratch(b, rows));
}

size_t plan_products_scratch(const Base *b, int rows, bool training) {
    const Config *c = &b->c;
    Exec *ex = b->ex;
    int wide = widest(c), most = 1;
    size_t need = larger(ex->op->gemm_scratch(ex, rows, wide, GEMM_NT),
                         ex->op->gemm_scratch(ex, rows, wide, GEMM_NN));
    if (!training) return need;
    if (is_full(b)) return larger(need, full_scratch(b, rows));
    for (int l = 0; l < c->L; l++) {
        int R = 0;
        for (int p = 0; p < PROJ_COUNT; p++)
            R += adapter_columns(lora_at(&b->lora, l, (enum Proj)p));
        most = R > most ? R : most;
    }
    return larger(need, ex->op->gemm_grad_scratch(ex, rows, wide, most));
}

/* The head's: cross entropy of a chunk of logits, in training their way back through V. */
static size_t head_scratch(const Base *b, int labels, bool training) {
    Exec *ex = b->ex;
    int V = b->c.V, n = acts_chunk(&b->c, ex->dtype, labels, training ? ACTS_TRAIN : ACTS_INFER);
    size_t need =
        larger(ex->op->xent_scratch(ex, n, V), ex->op->gemm_scratch(ex, n, b->c.D, GEMM_NT));
    if (is_full(b)) need = larger(need, ex->op->gemm_grad_scratch(ex, n, V, b->c.D));
    return training ? larger(need, ex->op->gemm_scratch(ex, n, V, GEMM_NN)) : need;
}

/* The ops of a pass whose workspace depends on its size. */
static size_t pass_scratch(const Base *b, PackSize size, bool training) {
    AttnShape a = plan_attention(b);
    Exec *ex = b->ex;
    size_t need = ex->op->attn_fwd_scratch(ex, size.segs, size.rows, a);
    if (training) need = larger(need, ex->op->attn_bwd_scratch(ex, size.segs, size.rows, a));
    return larger(larger(need, plan_products_scratch(b, size.rows, training)),
                  head_scratch(b, size.labels, training));
}

/* What runs without a gradient beside training, or before it: bytes of activations of the largest
 * pack. */
static double inference_bytes(const Base *b, const Lora *lora, PackSize size) {
    return (double)acts_bytes(&b->c, lora, b->ex->dtype, size.rows, size.segs, size.labels,
                              ACTS_INFER);
}

/* Code that a GPU loads as ops are called for the first time. Some of it may be there already when
 * a process plans its second stage: then it is counted twice. */
static void code(Plan *p, const Base *b) {
    size_t kernels, libraries;
    exec_lazy(b->ex, &kernels, &libraries);
    plan_add(p, "kernels, at most", b->kind, (double)kernels);
    plan_add(p, "libraries' kernels, estimated", b->kind, (double)libraries);
}

bool plan_config(Config *c, const Settings *s, Err *err) {
    if (*s->model.path) return config_load(c, s->model.path, err);
    json_t *json = preset_config((enum Preset)(s->plan.shape - 1)); /* none stands before them */
    bool ok = config_parse(c, json, "--shape", err);
    json_decref(json);
    return ok;
}

bool plan_base_open(Plan *p, Base *b, const Settings *s, Exec *ex, bool training, Err *err) {
    size_t available, all;
    *b = (Base){.ex = ex, .kind = PLAN_ANONYMOUS};
    if (exec_memory(ex, &available, &all)) b->kind = PLAN_DEVICE;
    if (!plan_config(&b->c, s, err)) return false;
    if (!runtime_cpu(&b->cpu, s, err)) return false;
    code(p, b);
    if (!training || !settings_all_weights(s)) return adapter(b, s, training, err);
    full_declare(&b->full, &b->cpu, &b->c, plan_ranks(s, ex));
    return true;
}

void plan_base_close(Base *b) {
    full_free(&b->full);
    lora_free(&b->lora);
    exec_close(&b->cpu);
    config_free(&b->c);
}

int plan_ranks(const Settings *s, const Exec *ex) {
    return ex->comm ? comm_size(ex->comm) : s->plan.ranks;
}

/* Of the library that moves between the ranks of one machine. */
static void moves(Plan *p, const Base *b, const Settings *s) {
    const Comm *comm = b->ex->comm;
    int ranks = plan_ranks(s, b->ex), near = ranks < PLAN_MACHINE ? ranks : PLAN_MACHINE;
    if (comm) near = comm_seat(comm).local_size;
    plan_add(p, "moves between ranks, estimated", b->kind,
             (double)(near - 1) * (double)exec_lazy_peer(b->ex));
}

/* The reference is measured before the steps have their `later` bytes: what it takes more than
 * those. Returns its workspace. */
static size_t reference(Plan *p, Base *b, const TrainSetup *t, double later) {
    const Lora *worn = t->reference_is_start ? plan_lora(b) : NULL;
    PackSize size = reference_pack_size(t);
    plan_add(p, "log-probabilities of the reference", PLAN_ANONYMOUS, (double)reference_bytes(t));
    (trained(b)->ranks ? plan_add_root : plan_add)(p, "start, for the reference", PLAN_ANONYMOUS,
                                                   (double)reference_start_bytes(t, trained(b)));
    plan_add(p, "activations of the reference", b->kind, inference_bytes(b, worn, size) - later);
    return pass_scratch(b, size, false);
}

bool plan_train(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    Base b;
    bool ok = plan_base_open(p, &b, s, ex, true, err) &&
              plan_weights(p, &b, s->model.path, (int)d->longest, b.c.L, d, err);
    if (ok) {
        TrainSetup t;
        const CheckpointPlan saves = {.resume = s->train.resume};
        Examples eval = p->eval ? dataset_examples(p->eval) : (Examples){0};
        train_setup(&t, s, dataset_examples(d).n);
        t.doc = d->doc, t.shared = d->shared;
        t.eval = eval.doc, t.eval_shared = eval.shared, t.neval = eval.n;
        if (train_saves(s)) t.checkpoints = &saves;
        TrainSize most = train_size(&t);
        PackSize size = most.pack;
        if (is_full(&b))
            full_bytes(p, &b);
        else
            plan_adapter(p, &b, true);
        if (train_saves(s))
            plan_add_root(p, "copy for checkpoints", PLAN_ANONYMOUS,
                          (double)checkpoint_state_bytes(trained(&b)));
        double tree = (double)grad_tree_bytes(trained(&b), ex, plan_ranks(s, ex), most.packs);
        double acts = (double)acts_bytes(&b.c, plan_lora(&b), ex->dtype, size.rows, size.segs,
                                         size.labels, t.recompute ? ACTS_RECOMPUTE : ACTS_TRAIN);
        p->keeps_all = !t.recompute;
        double levels = is_full(&b) && b.full.params.ranks
                            ? (double)grad_tree_level_bytes(trained(&b), most.packs)
                            : tree;
        plan_add(p, "gradients of packs", b.kind, levels);
        plan_add(p, "gradients of ranks", b.kind, tree - levels);
        moves(p, &b, s);
        plan_add(p, "activations", b.kind, acts);
        size_t scratch = plan_start(p, &b, s, size.rows, t.pack_tokens, tree + acts);
        scratch = larger(scratch, pass_scratch(&b, size, true));
        if (eval.n) {
            PackSize e = nll_pack_size(&eval, t.pack_tokens);
            plan_add(p, "activations of evaluation", b.kind, inference_bytes(&b, plan_lora(&b), e));
        }
        if (t.shared) scratch = larger(scratch, reference(p, &b, &t, tree + acts));
        if (!is_full(&b)) scratch = larger(scratch, redundancy_scratch(ex, &b.lora));
        scratch = larger(scratch, params_kept_scratch(ex, trained(&b)));
        plan_workspace(p, &b, scratch);
    }
    plan_base_close(&b);
    return ok;
}

bool plan_logprob(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    Base b;
    bool ok = plan_base_open(p, &b, s, ex, false, err) &&
              plan_weights(p, &b, s->model.path, (int)d->longest, b.c.L, d, err);
    if (ok) {
        Examples all = dataset_examples(d);
        PackSize size = nll_pack_size(&all, settings_pack_tokens(s));
        int measured = size.rows - 1; /* at most: all tokens but the first of each document */
        plan_adapter(p, &b, false);
        plan_add(p, "activations", b.kind,
                 (double)acts_bytes(&b.c, plan_lora(&b), ex->dtype, size.rows, size.segs, measured,
                                    ACTS_INFER));
        size.labels = measured;
        plan_workspace(p, &b, pass_scratch(&b, size, false));
    }
    plan_base_close(&b);
    return ok;
}

bool plan_generate(Plan *p, const Settings *s, Exec *ex, const GenOptions *o, Err *err) {
    Base b;
    bool ok = plan_base_open(p, &b, s, ex, false, err) &&
              plan_weights(p, &b, s->model.path, 0, b.c.L, NULL, err);
    if (ok) {
        plan_adapter(p, &b, false);
        plan_add(p, "key/value cache and activations", b.kind,
                 (double)gen_bytes(&b.c, plan_lora(&b), ex->dtype, o));
        AttnShape a = plan_attention(&b);
        size_t need = larger(ex->op->attn_decode_scratch(ex, o->slots, o->max_len, a),
                             ex->op->attn_fwd_scratch(ex, o->slots, o->prefill_rows, a));
        need = larger(need, plan_products_scratch(&b, o->prefill_rows, false));
        need = larger(need, ex->op->gemm_scratch(ex, o->slots, widest(&b.c), GEMM_NT_FEW));
        plan_workspace(p, &b, larger(need, ex->op->sample_scratch(ex, o->slots, b.c.V, o->how)));
    }
    plan_base_close(&b);
    return ok;
}
