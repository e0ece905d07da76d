/* plan_start.c - the memory that an adapter's start takes, and the making of its subspace. */
#include <math.h>

#include "host/stage/adapting.h"
#include "host/stage/plan_base.h"
#include "model/inputs.h"

static bool starts(const Base *b, const Settings *s) {
    return b->full.params.n == 0 && !*s->train.init_adapter;
}

static void targets_of(bool target[PROJ_COUNT], const Base *b) {
    for (int p = 0; p < PROJ_COUNT; p++) {
        target[p] = false;
        for (int l = 0; l < b->c.L; l++)
            target[p] = target[p] || lora_at(&b->lora, l, (enum Proj)p)->R > 0;
    }
}

static int largest_rank(const Base *b) {
    int R = 1;
    for (int i = 0; i < b->c.L * PROJ_COUNT; i++)
        if (b->lora.adapter[i].R > R) R = b->lora.adapter[i].R;
    return R;
}

/* Of the start, and of what makes its subspace where that is still to come. */
static size_t start_scratch(const Base *b, const Settings *s) {
    const AdapterStart *start = &adapter_start[s->train.init];
    int D = b->c.D, R = largest_rank(b);
    if (R > D) R = D;
    size_t need = start->scratch ? start->scratch(b->ex, &b->c, R) : 0;
    if (start->subspace && !*s->train.subspace)
        need = larger(need, adapting_scratch(b->ex, s, start->subspace, D, R));
    return need;
}

/* Where a start asks the first batch: its gradients or moments are counted beside what the steps
 * have, activations are no more than a step's. Returns the workspace. */
static size_t batch_of_start(Plan *p, const Base *b, const Settings *s, int rows, int most_rows) {
    enum StartKind kind = (enum StartKind)s->train.init;
    bool target[PROJ_COUNT];
    if (!adapter_start_of_batch(kind)) return 0;
    targets_of(target, b);
    if (kind == START_LORA_GA) {
        plan_add(p, "gradients of the start", b->kind, (double)weight_grads_bytes(&b->c, target));
        return plan_weight_grads_scratch(b, rows);
    }
    InputGroups groups = inputs_groups(target);
    plan_add(p, "moments of the start", b->kind,
             (double)inputs_run_bytes(&b->c, groups, b->ex->dtype, most_rows));
    return inputs_run_scratch(b->ex, &b->c, groups, most_rows);
}

/* What the start allocates for one weight at a time. */
static StartBytes making_bytes(const Base *b, const Settings *s) {
    const AdapterStart *start = &adapter_start[s->train.init];
    bool target[PROJ_COUNT];
    targets_of(target, b);
    StartBytes n = {0};
    if (start->bytes) n = start->bytes(&b->c, target, largest_rank(b));
    if (start->subspace && !*s->train.subspace) {
        BasisBytes basis = adapting_bytes(s, start->subspace, b->c.D, largest_rank(b));
        n.host = larger(n.host, basis.host), n.device = larger(n.device, basis.device);
    }
    return n;
}

size_t plan_start(Plan *p, const Base *b, const Settings *s, int rows, int most_rows,
                  double later) {
    if (!starts(b, s)) return 0;
    StartBytes making = making_bytes(b, s);
    bool apart = b->kind == PLAN_DEVICE; /* from what the steps have */
    double host = (double)making.host, room = apart ? 0 : later;
    if (apart)
        plan_add(p, "factors of the start", b->kind, (double)making.device - later);
    else
        host += (double)making.device;
    plan_add(p, "subspace", PLAN_ANONYMOUS, b->bases - room); /* until the adapters have it */
    plan_add(p, "making of the start", PLAN_ANONYMOUS, host - fmax(0, room - b->bases));
    return larger(start_scratch(b, s), batch_of_start(p, b, s, rows, most_rows));
}
