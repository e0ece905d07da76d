/* inputs.c - documents through the model in blocks, the sums of what its projections read, and
 * bases of that or of what they write. */
#include "host/stage/inputs.h"

#include <limits.h>
#include <stdio.h>

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/same_input.h"
#include "host/stage/wish.h"
#include "model/adapter_start.h"
#include "model/salora.h"

/* As scoring does it: sums are added up by blocks of documents, in their order, each from packs of
 * its own. Few enough that moving sums costs little, large enough for full packs; both follow from
 * the data alone. */
static size_t block_documents(size_t n) {
    enum { BLOCKS = 64, LEAST = 16 };
    size_t each = (n + BLOCKS - 1) / BLOCKS;
    return each > LEAST ? each : LEAST;
}

static void read_targets(bool target[PROJ_COUNT], const Settings *s) {
    for (int p = 0; p < PROJ_COUNT; p++) target[p] = false;
    for (int i = 0; i < list_count(s->train.targets); i++) {
        char item[8];
        list_item(s->train.targets, i, item, sizeof item);
        target[setting_choice(CHOICES(PROJECTIONS), item, strlen(item))] = true;
    }
}

InputGroups inputs_of(const Settings *s) {
    bool target[PROJ_COUNT];
    read_targets(target, s);
    return inputs_groups(target);
}

bool inputs_check(const Settings *s, const Config *c, const char *what, Err *err) {
    InputGroups groups = inputs_of(s);
    bool any = false;
    if (!adapter_start_check_rank(&adapter_start[START_EVA], s->train.rank, what, err))
        return false;
    for (int g = 0; g < GROUP_COUNT; g++) {
        if (groups.has[g] && s->train.rank > inputs_width(c, (enum Group)g))
            return err_set(err, EXIT_USAGE,
                           "--rank %d: expected at most %d, the width that %s reads", s->train.rank,
                           inputs_width(c, (enum Group)g), group_name[g]);
        any = any || groups.has[g];
    }
    return any || err_set(err, EXIT_USAGE, "--targets: expected at least one with %s", what);
}

bool inputs_check_outputs(const Settings *s, const Config *c, const char *what, Err *err) {
    bool target[PROJ_COUNT], any = false;
    read_targets(target, s);
    for (enum Proj p = 0; p < PROJ_COUNT; p++) {
        if (target[p] && s->inputs.preserve_rank >= proj_out(c, p))
            return err_set(err, EXIT_USAGE,
                           "--preserve-rank %d: expected less than %d, the width that %s writes",
                           s->inputs.preserve_rank, proj_out(c, p), proj_name[p]);
        any = any || target[p];
    }
    return any || err_set(err, EXIT_USAGE, "--targets: expected at least one with %s", what);
}

/* The largest sums of a layer and group, from here and on their way from elsewhere. */
static size_t most_numbers(const Config *c, InputGroups groups) {
    size_t most = 0;
    for (int g = 0; g < GROUP_COUNT; g++) {
        size_t n = groups.has[g] ? inputs_numbers(c, (enum Group)g) : 0;
        most = n > most ? n : most;
    }
    return most;
}

size_t inputs_part_bytes(const Config *c, InputGroups groups) {
    return most_numbers(c, groups) * sizeof(float);
}

/* Of each input, where it is so wide. */
static int components(const Settings *s) {
    return eva_columns(s->train.rank, s->train.rho, INT_MAX);
}

BasisBytes inputs_making_bytes(const Settings *s, const Config *c, enum Dtype dtype) {
    bool target[PROJ_COUNT];
    read_targets(target, s);
    return *s->inputs.preserve ? salora_bases_bytes(c, dtype, target, s->inputs.preserve_rank)
                               : inputs_bases_bytes(c, inputs_groups(target), components(s));
}

size_t inputs_making_scratch(Exec *ex, const Settings *s, const Config *c) {
    bool target[PROJ_COUNT];
    read_targets(target, s);
    return *s->inputs.preserve ? salora_scratch(ex, c, target, s->inputs.preserve_rank)
                               : inputs_bases_scratch(ex, c, inputs_groups(target), components(s));
}

typedef struct Reading {
    Runtime *r;
    InputsRun *run;
    Inputs sums; /* rank 0's */
    InputGroups groups;
    int pack_tokens;
    bool json;
    float *one; /* (most_numbers) */
    Progress bar;
    const Doc *doc;
    const size_t *index;
    size_t n;
} Reading;

static bool run_block(Reading *w, size_t first, size_t end, int64_t *rows, Err *err) {
    for (size_t i = first; i < end; i++) {
        const Doc *d = &w->doc[w->index ? w->index[i] : i];
        if (interrupted(err)) return false;
        inputs_run_add(w->run, d->token, d->label, d->n);
        comm_beat(w->r->ex.comm);
        progress_at(&w->bar, (double)i, (double)w->n);
    }
    *rows = inputs_run_finish(w->run);
    return true;
}

/* A layer's sums of a group of all ranks to rank 0, which adds them in the order of ranks. */
static void collect(Reading *w, int layer, enum Group g) {
    Comm *comm = w->r->ex.comm;
    size_t ranks = (size_t)comm_size(comm), *n = mem_array(ranks, sizeof *n);
    void **part = mem_array(ranks, sizeof *part);
    inputs_run_take(w->run, layer, g, w->one);
    comm_collect(comm, "sums of inputs", w->one, inputs_numbers(&w->r->model.c, g) * sizeof *w->one,
                 part, n);
    for (size_t r = 0; comm_root(comm) && r < ranks; r++) {
        inputs_add(&w->sums, layer, g, part[r]);
        free(part[r]);
    }
    free(part), free(n);
}

/* Rows of all ranks' blocks. */
static int64_t all_rows(Comm *comm, int64_t own) {
    int64_t *each = mem_array((size_t)comm_size(comm), sizeof *each), sum = 0;
    each[comm_rank(comm)] = own;
    comm_share(comm, "rows of inputs", each, sizeof *each);
    for (int r = 0; r < comm_size(comm); r++) sum += each[r];
    free(each);
    return sum;
}

/* Each round has a block for each rank, the last one perhaps fewer: the others' sums are zero. */
static bool run_rounds(Reading *w, Err *err) {
    Comm *comm = w->r->ex.comm;
    size_t each = block_documents(w->n), ranks = (size_t)comm_size(comm);
    for (size_t done = 0; done < w->n; done += ranks * each) {
        size_t first = done + (size_t)comm_rank(comm) * each, end = first + each;
        int64_t rows;
        Wish wish = wish_share(comm, (Wish){.signal = interrupt_requested()});
        if (wish.signal)
            return wish_stop(&wish, "before the sums were whole", "the same command", err);
        if (!run_block(w, first < w->n ? first : w->n, end < w->n ? end : w->n, &rows, err))
            return false;
        w->sums.rows += all_rows(comm, rows);
        for (int i = 0; i < w->r->model.c.L * GROUP_COUNT; i++)
            if (w->groups.has[i % GROUP_COUNT])
                collect(w, i / GROUP_COUNT, (enum Group)(i % GROUP_COUNT));
        if (inputs_run_bad(w->run))
            return bad_tensor_find(&w->r->model, inputs_run_acts(w->run),
                                   "what the projections read is not finite", err);
    }
    return true;
}

/* All documents' sums, on rank 0. */
static bool read_all(Reading *w, const char *what, Err *err) {
    const Config *c = &w->r->model.c;
    Comm *comm = w->r->ex.comm;
    w->one = mem_array(most_numbers(c, w->groups), sizeof *w->one);
    w->run = inputs_run_open(&w->r->model, w->groups, w->pack_tokens);
    if (comm_root(comm)) inputs_init(&w->sums, c, w->groups);
    comm_phase(comm, "inputs", 0, RANKS_APART);
    progress_begin(&w->bar, "inputs", w->json);
    const Examples read = {.doc = w->doc, .index = w->index, .n = w->n};
    bool ok = same_docs(comm, what, &read, err) && run_rounds(w, err);
    progress_end(&w->bar);
    inputs_run_close(w->run); /* bases take memory of the device, too */
    comm_phase(comm, "components of inputs", 0, 3 * RANKS_APART);
    return ok;
}

static Reading reading(Runtime *r, const Settings *s, const Examples *data) {
    return (Reading){.r = r,
                     .groups = inputs_of(s),
                     .pack_tokens = settings_pack_tokens(s),
                     .json = s->run.json,
                     .doc = data->doc,
                     .index = data->index,
                     .n = data->n};
}

static bool make_bases(Subspace *to, Reading *w, const Settings *s, Err *err) {
    char made[200], rho[32] = "";
    if (!inputs_bases(to, &w->r->ex, &w->sums, components(s), (uint64_t)s->run.seed, err))
        return false;
    if (s->train.rho > 1) snprintf(rho, sizeof rho, ", rho %g", s->train.rho);
    snprintf(made, sizeof made, "eva: of %lld tokens of %zu documents, rank %d%s, seed %d",
             (long long)w->sums.rows, w->n, s->train.rank, rho, s->run.seed);
    to->init = mem_string(adapter_start[START_EVA].name);
    to->made = mem_string(made);
    return true;
}

bool inputs_run(Subspace *to, int64_t *rows, Runtime *r, const Settings *s, const Doc *doc,
                const size_t *index, size_t n, Err *err) {
    Comm *comm = r->ex.comm;
    const Examples data = {.doc = doc, .index = index, .n = n};
    Reading w = reading(r, s, &data);
    *to = (Subspace){0};
    bool ok = read_all(&w, "what was read as data", err);
    ok = ok && agree_root(comm, !comm_root(comm) || make_bases(to, &w, s, err), err);
    if (ok) *rows = w.sums.rows;
    inputs_free(&w.sums);
    free(w.one);
    return ok;
}

static bool output_bases(Subspace *to, int64_t *rows, Runtime *r, const Settings *s,
                         const Examples *data, enum OutputSide side, Err *err) {
    static const char *const what[] = {"what was read to be preserved", "what was read as data"};
    Comm *comm = r->ex.comm;
    bool target[PROJ_COUNT];
    Reading w = reading(r, s, data);
    read_targets(target, s);
    if (s->inputs.samples && (size_t)s->inputs.samples < w.n) w.n = (size_t)s->inputs.samples;
    bool ok = read_all(&w, what[side], err);
    ok = ok && agree_root(comm,
                          !comm_root(comm) || salora_bases(to, &r->model, &w.sums, target, side,
                                                           s->inputs.preserve_rank, err),
                          err);
    if (ok) *rows = w.sums.rows;
    inputs_free(&w.sums);
    free(w.one);
    return ok;
}

bool inputs_run_outputs(Subspace *to, int64_t rows[2], Runtime *r, const Settings *s,
                        const Examples *kept, const Examples *task, Err *err) {
    char made[160];
    bool target[PROJ_COUNT];
    read_targets(target, s);
    *to = (Subspace){0};
    if (comm_root(r->ex.comm)) salora_places(to, &r->model.c, target);
    if (!output_bases(to, &rows[OUTPUT_KEPT], r, s, kept, OUTPUT_KEPT, err) ||
        !output_bases(to, &rows[OUTPUT_TASK], r, s, task, OUTPUT_TASK, err)) {
        subspace_free(to);
        return false;
    }
    snprintf(made, sizeof made, "salora: of %lld tokens that are kept and %lld, %d directions",
             (long long)rows[OUTPUT_KEPT], (long long)rows[OUTPUT_TASK], s->inputs.preserve_rank);
    to->init = mem_string(adapter_start[START_SALORA].name);
    to->made = mem_string(made);
    return true;
}
