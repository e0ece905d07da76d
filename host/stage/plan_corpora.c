/* plan_corpora.c - the memory of stages that add something up over corpora. */
#include <math.h>

#include "host/stage/inputs.h"
#include "host/stage/moments.h"
#include "host/stage/plan_base.h"
#include "host/stage/scoring.h"
#include "model/score_run.h"

/* Of one SAE: its sums, the exact activations of a sample beside fast ones, and its best features.
 */
static size_t sae_scratch(Exec *ex, const SaeEncoder *sae, int rows) {
    size_t stats = ex->op->sae_stats_scratch(ex, sae, rows);
    if (sae->products == SAE_FAST) stats = larger(stats, ex->op->sae_encode_scratch(ex, sae, rows));
    return larger(stats, ex->op->top_k_scratch(ex, sae->S));
}

static bool score_sums(Plan *p, const Base *b, const Settings *s, const Layers *layers, Err *err) {
    SaeSet saes;
    if (!saes_open(&saes, NULL, s, layers, b->c.D, err)) return false;
    double encoders = 0, results = 0, part = 0;
    int rows = settings_pack_tokens(s); /* and as many documents, at most */
    Exec *ex = b->ex;
    size_t need = larger(ex->op->attn_fwd_scratch(ex, rows, rows, plan_attention(b)),
                         plan_products_scratch(b, rows, false));
    for (int i = 0; i < saes.n; i++) {
        encoders += ((double)b->c.D + 2) * saes.sae[i].enc.S * sizeof(float);
        results += (double)score_layer_bytes(saes.sae[i].enc.S);
        part = fmax(part, (double)scores_part_bytes(saes.sae[i].enc.S));
        need = larger(need, sae_scratch(ex, &saes.sae[i].enc, rows));
    }
    plan_add(p, "SAE encoders", b->kind, encoders);
    plan_add(p, "results of a block", PLAN_ANONYMOUS, results);
    plan_add_root(p, "results", PLAN_ANONYMOUS, results);
    plan_add_root(p, "parts of results of all ranks", PLAN_ANONYMOUS, plan_ranks(s, ex) * part);
    plan_add(p, "statistics and activations", b->kind,
             (double)score_run_bytes(&b->c, plan_lora(b), ex->dtype, saes.sae, saes.n, rows));
    plan_workspace(p, b, need);
    saes_close(&saes);
    return true;
}

bool plan_score(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    Base b;
    Layers layers = {0};
    bool ok = plan_base_open(p, &b, s, ex, false, err) &&
              layers_parse(&layers, s->score.layers, b.c.L, err);
    int top = ok ? layers.layer[layers.n - 1] + 1 : 0;
    ok = ok && plan_weights(p, &b, s->model.path, s->data.max_length, top, d, err) &&
         score_sums(p, &b, s, &layers, err);
    if (ok) plan_adapter(p, &b, false);
    layers_free(&layers);
    plan_base_close(&b);
    return ok;
}

/* Both what is added up and what blocks bring; of a pass nothing else depends on its size. */
static void moments_sums(Plan *p, const Base *b, const Settings *s, const Layers *layers) {
    int rows = settings_pack_tokens(s); /* and as many documents, at most */
    Exec *ex = b->ex;
    size_t need = larger(ex->op->attn_fwd_scratch(ex, rows, rows, plan_attention(b)),
                         plan_products_scratch(b, rows, false));
    need = larger(need, stream_run_scratch(ex, &b->c, rows));
    double block = (double)moments_block_bytes(b->c.D, layers->n);
    plan_add(p, "a block of documents", PLAN_ANONYMOUS, block);
    plan_add_root(p, "moments", PLAN_ANONYMOUS, (double)stream_bytes(b->c.D, layers->n));
    plan_add_root(p, "blocks of all ranks", PLAN_ANONYMOUS, plan_ranks(s, ex) * block);
    plan_add(p, "vectors and activations", b->kind,
             (double)stream_run_bytes(&b->c, plan_lora(b), ex->dtype, rows));
    plan_workspace(p, b, need);
}

bool plan_moments(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    Base b;
    Layers layers = {0};
    bool ok = plan_base_open(p, &b, s, ex, false, err) &&
              layers_parse(&layers, s->score.layers, b.c.L, err);
    int top = ok ? layers.layer[layers.n - 1] + 1 : 0;
    ok = ok && plan_weights(p, &b, s->model.path, s->data.max_length, top, d, err);
    if (ok) {
        moments_sums(p, &b, s, &layers);
        plan_adapter(p, &b, false);
    }
    layers_free(&layers);
    plan_base_close(&b);
    return ok;
}

static void inputs_sums(Plan *p, const Base *b, const Settings *s) {
    int rows = settings_pack_tokens(s); /* and as many documents, at most */
    InputGroups groups = inputs_of(s);
    Exec *ex = b->ex;
    size_t need = larger(ex->op->attn_fwd_scratch(ex, rows, rows, plan_attention(b)),
                         plan_products_scratch(b, rows, false));
    need = larger(need, inputs_run_scratch(ex, &b->c, groups, rows));
    double part = (double)inputs_part_bytes(&b->c, groups);
    plan_add(p, "sums of a group", PLAN_ANONYMOUS, part);
    plan_add_root(p, "moments of inputs", PLAN_ANONYMOUS, (double)inputs_bytes(&b->c, groups));
    plan_add_root(p, "sums of all ranks", PLAN_ANONYMOUS, plan_ranks(s, ex) * part);
    double run = (double)inputs_run_bytes(&b->c, groups, ex->dtype, rows);
    plan_add(p, "sums and activations", b->kind, run);
    /* Bases are made when the pass has let go of its memory. */
    BasisBytes bases = inputs_making_bytes(s, &b->c, ex->dtype);
    plan_add_root(p, "bases", PLAN_ANONYMOUS, (double)bases.basis);
    plan_add_root(p, "making of bases", PLAN_ANONYMOUS,
                  (double)bases.host - plan_ranks(s, ex) * part);
    plan_add_root(p, "factors of bases", b->kind, (double)bases.device - run);
    plan_workspace(p, b, larger(need, inputs_making_scratch(ex, s, &b->c)));
}

bool plan_inputs(Plan *p, const Settings *s, Exec *ex, const Dataset *d, Err *err) {
    Base b;
    bool ok = plan_base_open(p, &b, s, ex, false, err) &&
              plan_weights(p, &b, s->model.path, (int)d->longest, b.c.L, d, err);
    if (ok) {
        inputs_sums(p, &b, s);
        plan_adapter(p, &b, false);
    }
    plan_base_close(&b);
    return ok;
}
