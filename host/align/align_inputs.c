/* align_inputs.c - what the stages of align work on, and whether that fits into this machine. */
#include <string.h>

#include "host/stage/adapting.h"
#include "host/align/align_stages.h"
#include "host/stage/plan.h"

static bool read_data(Align *w, Err *err) {
    const Settings *s = w->s;
    if (!dataset_load_training(&w->data, w->r.tokenizer, s->data.path, SIDE_CHOSEN,
                               s->data.max_length, (size_t)s->data.limit, err))
        return false;
    if (!s->run.json) dataset_print_notes(stdout, "", &w->data);
    bool text = *s->data.text;
    if (text && !dataset_load(&w->text, w->r.tokenizer, s->data.text, SIDE_CHOSEN,
                              s->data.max_length, (size_t)s->data.limit, err))
        return false;
    split_make(&w->split, w->data.n, text ? 0 : s->data.heldout, (uint64_t)s->run.seed);
    return w->split.ntrain > 0 ||
           err_set(err, EXIT_INPUT, "%s: nothing is left to train on", s->data.path);
}

static bool read_prompts(Align *w, Err *err) {
    Config c;
    if (!config_load(&c, w->s->model.path, err)) return false;
    int positions = c.max_positions;
    config_free(&c);
    return prompts_read(&w->prompts, w->r.tokenizer, w->s, positions, err) &&
           (w->grid.nrate == 1 ||
            prompts_split(&w->validation, &w->test, &w->prompts, w->s->train.validation,
                          (uint64_t)w->s->run.seed, err));
}

const Prompts *align_prompts(const Align *w, enum PromptPart part) {
    if (part == PART_VALIDATION) return &w->validation;
    return w->grid.nrate == 1 ? &w->prompts : &w->test;
}

/* ------------------------------------------------------------------------------ the plan -- */

enum { SCORE, MOMENTS, INPUTS, TRAIN, GENERATE, PERPLEXITY, PLANS };

/* start: of what is trained. */
static bool plan(Plan *p, Align *w, int which, enum StartKind start, Err *err) {
    Exec *ex = &w->r.ex;
    Settings s = *w->s;
    GenOptions o = generating_options(w->s, &w->prompts);
    switch (which) {
        case SCORE:
            return plan_score(p, w->s, ex, *s.score.aligned ? NULL : &w->data, err);
        case MOMENTS:
            return plan_moments(p, w->s, ex, *s.score.aligned ? NULL : &w->data, err);
        case INPUTS:
            return plan_inputs(p, w->s, ex, &w->data, err);
        case TRAIN: /* there is no subspace yet to read a shape from: the most that it may ask */
            s.train.init = (int)start;
            s.train.only_scored = false;
            if (s.train.rank == 0) s.train.rank = s.subspace.top_k;
            if (s.subspace.top_k < s.train.rank) s.subspace.top_k = s.train.rank;
            if (s.train.eval_every) p->eval = &w->data;
            return plan_train(p, &s, ex, &w->data, err);
        case GENERATE:
            return plan_generate(p, w->s, ex, &o, err);
        default:
            return plan_logprob(p, w->s, ex, *s.data.text ? &w->text : &w->data, err);
    }
}

/* Every stage that the methods ask for, before the first of them: it would be a pity to find out
 * after hours of scoring that the training does not fit. */
static bool fits(Align *w, Err *err) {
    static const char *const name[PLANS] = {"score", "moments",  "inputs",
                                            "train", "generate", "perplexity"};
    const Methods *m = &w->methods;
    const bool asked[PLANS] = {m->scores, m->moments, m->inputs, m->trained, true, true};
    Plan open = {0};
    plan_measured(&open, "program, tokenizer, data and prompts");
    for (int i = 0; i < PLANS; i++)
        for (int k = 0; k < (i == TRAIN ? w->methods.n : 1); k++) {
            const AdapterStart *start = w->methods.row[k].start;
            enum StartKind kind = start ? adapter_start_kind(start) : START_LORA;
            Plan p = open;
            if (asked[i] && (i != TRAIN || start) &&
                !(plan(&p, w, i, kind, err) && plan_fits(&p, &w->r.ex, err)))
                return err_prefix(err, "%s", name[i]);
        }
    return true;
}

bool align_need_model(Align *w, Err *err) {
    if (w->r.model.ex) return true;
    return runtime_tokenizer(&w->r, w->s, err) && read_data(w, err) && read_prompts(w, err) &&
           fits(w, err) && runtime_model(&w->r, w->s, 0, err);
}

bool align_wear(Align *w, const Cell *c, Err *err) {
    char name[128];
    runtime_drop_adapter(&w->r);
    if (!c->start) return true;
    snprintf(name, sizeof name, "adapters/%s", c->name);
    char *folder = run_path(&w->run, name);
    bool ok = runtime_adapter(&w->r, folder, false, err);
    free(folder);
    return ok;
}
