/* align_inputs.c - what the stages of align work on, and whether that fits into this machine. */
#include <string.h>

#include "host/stage/adapting.h"
#include "host/align/grid.h"
#include "host/stage/agree.h"
#include "host/cli/print.h"
#include "host/stage/plan.h"
#include "host/stage/preference.h"
#include "model/tensors.h"

/* Of the records that the other rows learn from, and of those that are held out. */
static bool read_pairs(Align *w, Err *err) {
    const char *path = w->s->data.path;
    int most = w->s->data.max_length;
    const Split *split = &w->split;
    if (!preference_of(&w->pairs, w->r.tokenizer, &w->data, split->train, split->ntrain, path, most,
                       err) ||
        !preference_of(&w->held_pairs, w->r.tokenizer, &w->data, split->held, split->nheld, path,
                       most, err))
        return err_prefix(err, "the method dpo needs pairs");
    if (!w->s->run.json) dataset_print_notes(stdout, "pairs: ", &w->pairs);
    return w->pairs.n > 0 ||
           err_set(err, EXIT_INPUT, "%s: no pair is left for the method dpo; raise --max-length",
                   path);
}

static bool read_data(Align *w, Err *err) {
    const Settings *s = w->s;
    if (!dataset_load_training(&w->data, w->r.tokenizer, s->data.path, SIDE_CHOSEN,
                               s->data.max_length, (size_t)s->data.limit, err))
        return false;
    if (!s->run.json) dataset_print_notes(stdout, "", &w->data);
    if (w->methods.outputs &&
        !dataset_load_training(&w->kept, w->r.tokenizer, s->inputs.preserve, SIDE_CHOSEN,
                               s->data.max_length, (size_t)s->inputs.samples, err))
        return false;
    bool text = *s->data.text;
    if (text && !dataset_load(&w->text, w->r.tokenizer, s->data.text, SIDE_CHOSEN,
                              s->data.max_length, (size_t)s->data.limit, err))
        return false;
    split_make(&w->split, w->data.n, text ? 0 : s->data.heldout, (uint64_t)s->run.seed);
    if (w->split.ntrain == 0)
        return err_set(err, EXIT_INPUT, "%s: nothing is left to train on", s->data.path);
    return !w->methods.pairs || read_pairs(w, err);
}

static bool read_prompts(Align *w, Err *err) {
    Config c;
    if (!config_load(&c, w->s->model.path, err)) return false;
    int positions = c.max_positions;
    config_free(&c);
    return prompts_read(&w->prompts, w->r.tokenizer, w->s, positions, err) &&
           (!grid_chooses(&w->grid) ||
            prompts_split(&w->validation, &w->test, &w->prompts, w->s->train.validation,
                          (uint64_t)w->s->run.seed, err));
}

const Prompts *align_prompts(const Align *w, enum PromptPart part) {
    if (part == PART_VALIDATION) return &w->validation;
    return grid_chooses(&w->grid) ? &w->test : &w->prompts;
}

/* ------------------------------------------------------------------------------ the plan -- */

enum { SCORE, MOMENTS, INPUTS, OUTPUTS, TRAIN, GENERATE, PERPLEXITY, PLANS };

/* There is no subspace yet to read a shape from: the most that it may ask. */
static bool plan_method(Plan *p, Align *w, const Method *m, Err *err) {
    Settings s = align_settings(w, m);
    bool pairs = m->how == METHOD_DPO;
    s.train.only_scored = false;
    if (s.train.rank == 0) s.train.rank = s.subspace.top_k;
    if (s.subspace.top_k < s.train.rank) s.subspace.top_k = s.train.rank;
    if (s.train.eval_every) p->eval = pairs ? &w->held_pairs : &w->data;
    return plan_train(p, &s, &w->r.ex, pairs ? &w->pairs : &w->data, err);
}

static const Dataset *longer(const Dataset *a, const Dataset *b) {
    return a->longest > b->longest ? a : b;
}

/* m: of what is trained. */
static bool plan(Plan *p, Align *w, int which, const Method *m, Err *err) {
    Exec *ex = &w->r.ex;
    Settings s = *w->s;
    GenOptions o = generating_options(&s, &w->prompts);
    switch (which) {
        case SCORE:
            return plan_score(p, &s, ex, *s.score.aligned ? NULL : &w->data, err);
        case MOMENTS:
            return plan_moments(p, &s, ex, *s.score.aligned ? NULL : &w->data, err);
        case INPUTS:
            s.inputs.preserve = "";
            return plan_inputs(p, &s, ex, &w->data, err);
        case OUTPUTS:
            return plan_inputs(p, &s, ex, longer(&w->kept, &w->data), err);
        case TRAIN:
            return plan_method(p, w, m, err);
        case GENERATE:
            return plan_generate(p, &s, ex, &o, err);
        default:
            return plan_logprob(p, &s, ex, *s.data.text ? &w->text : &w->data, err);
    }
}

/* What whole models take on disk, while the grid runs and for good; it must be there, but for a
 * card that is not here, whose disk is not here either. */
static bool announce_models(Align *w, Err *err) {
    Config c;
    char one[PRINT_ROOM], most[PRINT_ROOM], stay[PRINT_ROOM];
    int seeds = w->grid.seeds, sets = grid_chooses(&w->grid) ? 2 : 1;
    bool root = comm_root(w->r.ex.comm);
    if (!config_load(&c, w->s->model.path, err)) return false;
    double bytes = (double)tensors_parameters(&c) * (double)dtype_size(w->r.ex.dtype);
    config_free(&c);
    if (root && !w->s->run.json)
        printf(
            "the method full writes whole models, %s each: %s on disk at most, of which %s "
            "stay\n",
            print_bytes(one, bytes), print_bytes(most, bytes * seeds * sets),
            print_bytes(stay, bytes * seeds));
    fflush(stdout);
    bool ok = !root || w->s->plan.gpu_memory > 0 || align_models_room(w, bytes * seeds * sets, err);
    return agree_root(w->r.ex.comm, ok, err);
}

bool align_each_plan(Align *w, align_plan_use *use, void *context, Err *err) {
    static const char *const name[PLANS] = {"score", "moments",  "inputs",    "outputs",
                                            "train", "generate", "perplexity"};
    const Methods *m = &w->methods;
    const bool asked[PLANS] = {m->scores, m->moments, m->inputs, m->outputs, true, true, true};
    Plan open = {0};
    plan_measured(&open, "program, tokenizer, data and prompts");
    for (int i = 0; i < PLANS; i++)
        for (int k = 0; k < (i == TRAIN ? m->n : 1); k++) {
            const Method *row = &m->row[k];
            Plan p = open;
            if (asked[i] && (i != TRAIN || method_trains(row)) &&
                !(plan(&p, w, i, row, err) &&
                  use(context, w, name[i], i == TRAIN ? row : NULL, &p, err)))
                return err_prefix(err, "%s%s%s", name[i], i == TRAIN ? " " : "",
                                  i == TRAIN ? row->name : "");
        }
    return true;
}

static bool fits(void *context, Align *w, const char *stage, const Method *row, const Plan *p,
                 Err *err) {
    (void)context, (void)stage, (void)row;
    return plan_fits(p, &w->r.ex, err);
}

bool align_fits(Align *w, Err *err) {
    return align_each_plan(w, fits, NULL, err) && (!w->methods.models || announce_models(w, err));
}

bool align_read_inputs(Align *w, Err *err) {
    return runtime_tokenizer(&w->r, w->s, err) && read_data(w, err) && read_prompts(w, err);
}

bool align_need_model(Align *w, Err *err) {
    if (w->r.tokenizer) return true;
    return align_read_inputs(w, err) && align_fits(w, err) && align_base(w, err);
}
