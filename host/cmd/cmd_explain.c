/* cmd_explain.c - what features are, what of an adapter lies in their subspace, and what a model
 * does without it. */
#include <stdio.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "host/stage/cards.h"
#include "host/stage/causal.h"
#include "host/stage/dataset.h"
#include "host/stage/energy.h"
#include "host/stage/plan.h"
#include "host/stage/same_input.h"

/* What is asked for, by what was given. */
typedef struct Wanted {
    bool features, energy, causal;
} Wanted;

static bool names(const char *list, const char *word) {
    char item[SETTING_KEY];
    for (int i = 0; i < list_count(list); i++)
        if (list_item(list, i, item, sizeof item) && strcmp(item, word) == 0) return true;
    return false;
}

static Wanted wanted_of(const Settings *s) {
    const char *parts = s->explain.parts;
    bool subspace = *s->train.subspace;
    return (Wanted){
        .features = *s->subspace.scores && names(parts, "features"),
        .energy = subspace && *s->model.adapter && names(parts, "energy"),
        .causal = subspace && *s->generate.prompts && names(parts, "causal"),
    };
}

static bool check(Wanted *w, const Settings *s, Err *err) {
    *w = wanted_of(s);
    bool files = *s->score.aligned || *s->score.unaligned, data = *s->data.path || files;
    if (!w->features && !w->energy && !w->causal)
        return err_set(err, EXIT_USAGE,
                       "nothing to explain: expected --scores, or --subspace with --adapter or "
                       "--prompts, and --parts that they are for");
    if (files && !(*s->score.aligned && *s->score.unaligned))
        return err_set(err, EXIT_USAGE, "--aligned and --unaligned: expected both or neither");
    if (files && *s->data.path)
        return err_set(err, EXIT_USAGE, "expected --data with pairs, or --aligned and --unaligned");
    if (w->features && !(data && *s->score.sae))
        return err_set(err, EXIT_USAGE, "--scores: --sae and the data that were scored are needed");
    if (w->causal && !(*s->generate.benign && *s->data.text))
        return err_set(err, EXIT_USAGE,
                       "--subspace, --prompts: --benign with harmless prompts and --text with "
                       "harmless documents are needed, too");
    return settings_check_packs(s, err);
}

typedef struct Explaining {
    const Settings *s;
    Wanted wanted;
    Runtime r;
    Records records;
    Corpora corpora;
    Prompts prompts;
    Dataset text;
    Looked docs;
    Scores scores;
    Subspace subspace;
    SaeSet saes;
    json_t *features, *energy, *causal;
} Explaining;

/* --------------------------------------------------------------------------------- inputs -- */

/* The layers that were scored, as score.layers would list them. */
static char *list_layers(const Scores *scores) {
    enum { ROOM = 12 };
    size_t n = 0;
    char *list = mem_array((size_t)scores->n * ROOM + 1, 1);
    for (int i = 0; i < scores->n; i++)
        n += (size_t)snprintf(list + n, ROOM, "%s%d", i ? "," : "", scores->layer[i].layer);
    return list;
}

/* What is known before the model is opened, and whether what is to come fits. */
static bool fits(const Explaining *x, const Settings *s, Err *err) {
    Exec *ex = (Exec *)&x->r.ex;
    Plan open = {0};
    plan_measured(&open, "program, tokenizer and text");
    Plan score = open, logprob = open;
    return (!x->wanted.features ||
            (plan_score(&score, s, ex, NULL, err) && plan_fits(&score, ex, err))) &&
           (!x->wanted.causal ||
            (plan_logprob(&logprob, s, ex, &x->text, err) && plan_fits(&logprob, ex, err)));
}

static bool read_first(Explaining *x, Err *err) {
    const Settings *s = x->s;
    Comm *comm = x->r.ex.comm;
    if (x->wanted.features && !(same_file(comm, "the scores", s->subspace.scores, err) &&
                                scores_load(&x->scores, s->subspace.scores, err)))
        return false;
    if (x->wanted.causal &&
        !dataset_load_training(&x->text, x->r.tokenizer, s->data.text, SIDE_CHOSEN,
                               s->data.max_length, (size_t)s->data.limit, err))
        return false;
    Settings scored = *s;
    char *layers = list_layers(&x->scores);
    scored.score.layers = layers;
    bool ok = fits(x, &scored, err);
    free(layers);
    return ok;
}

static bool open_saes(Explaining *x, Err *err) {
    Layers layers = {.layer = mem_array((size_t)x->scores.n, sizeof *layers.layer)};
    for (; layers.n < x->scores.n; layers.n++)
        layers.layer[layers.n] = x->scores.layer[layers.n].layer;
    bool ok = saes_open(&x->saes, &x->r.ex, x->s, &layers, x->r.model.c.D, err);
    layers_free(&layers);
    return ok;
}

static bool same_prompts(const Explaining *x, Err *err) {
    for (int f = 0; f < PROMPT_FILES; f++) {
        const PromptFile *p = &x->prompts.file[f];
        const Examples e = {.doc = p->doc, .index = p->index, .n = p->n};
        if (!same_docs(x->r.ex.comm, "what was read as prompts", &e, err)) return false;
    }
    return true;
}

static bool read_inputs(Explaining *x, Err *err) {
    const Settings *s = x->s;
    bool pairs = *s->data.path, files = *s->score.aligned;
    if (pairs && !records_read(&x->records, s->data.path, (size_t)s->data.limit, err)) return false;
    if ((pairs || files) &&
        !corpora_open(&x->corpora, &x->r, s, pairs ? &x->records : NULL, NULL, x->records.n, err))
        return false;
    const Examples text = {.doc = x->text.doc, .n = x->text.n};
    return prompts_read(&x->prompts, x->r.tokenizer, s, x->r.model.c.max_positions, err) &&
           same_prompts(x, err) && same_docs(x->r.ex.comm, "what was read as text", &text, err) &&
           looked_read(&x->docs, &x->r, s, pairs || files ? &x->corpora : NULL, &x->prompts, err) &&
           (!x->wanted.features || open_saes(x, err)) &&
           (!*s->train.subspace ||
            (same_file(x->r.ex.comm, "the subspace", s->train.subspace, err) &&
             subspace_load(&x->subspace, s->train.subspace, err) &&
             energy_check(&x->subspace, &x->r.model.c, err)));
}

static void explaining_free(Explaining *x) {
    json_decref(x->features), json_decref(x->energy), json_decref(x->causal);
    saes_close(&x->saes);
    subspace_free(&x->subspace);
    scores_free(&x->scores);
    looked_free(&x->docs);
    dataset_free(&x->text);
    prompts_free(&x->prompts);
    corpora_close(&x->corpora);
    records_free(&x->records);
}

/* --------------------------------------------------------------------------------- parts -- */

static bool make_causal(Explaining *x, Err *err) {
    const Settings *s = x->s;
    Examples text;
    size_t *index = causal_text(&text, x->text.doc, NULL, x->text.n, s);
    bool adapter = *s->model.adapter;
    const CausalOf of = {.name = adapter ? "adapter" : "base",
                         .adapter = adapter ? s->model.adapter : NULL,
                         .base = !adapter,
                         .subspace = &x->subspace,
                         .docs = &x->docs,
                         .harmful = &x->prompts.file[0],
                         .text = &text};
    bool ok = causal_make(&x->causal, &x->r, &of, s, err);
    free(index);
    return ok;
}

/* Cards are of the model that was scored, the rest of it with its adapter. */
static bool make(Explaining *x, Err *err) {
    const Settings *s = x->s;
    bool root = comm_root(x->r.ex.comm);
    if (x->wanted.features &&
        !cards_make(&x->features, &x->r, &x->scores, &x->saes, &x->docs, s, err))
        return false;
    if (*s->model.adapter && !runtime_adapter(&x->r, s->model.adapter, false, err)) return false;
    if (x->wanted.energy &&
        !agree_root(x->r.ex.comm, !root || energy_make(&x->energy, &x->r.lora, &x->subspace, err),
                    err))
        return false;
    return !x->wanted.causal || make_causal(x, err);
}

static bool write_part(const char *folder, const char *name, const json_t *part, Err *err) {
    if (!part) return true;
    char *path = files_join(folder, name);
    bool ok = files_write_json(path, part, err);
    free(path);
    return ok;
}

static bool write_all(const Explaining *x, Err *err) {
    const char *out = x->s->explain.out;
    return files_mkdirs(out, err) && write_part(out, "features.json", x->features, err) &&
           write_part(out, "energy.json", x->energy, err) &&
           write_part(out, "causal.json", x->causal, err);
}

static void report(const Explaining *x) {
    if (x->s->run.json) {
        print_json(json_pack("{s:s, s:b, s:b, s:b}", "out", x->s->explain.out, "features",
                             x->features != NULL, "energy", x->energy != NULL, "causal",
                             x->causal != NULL));
        return;
    }
    if (x->features) cards_print(stdout, x->features);
    if (x->energy) energy_print(stdout, x->energy);
    if (x->causal) causal_print(stdout, x->causal);
}

static bool run(const Args *a, Err *err) {
    const Settings *s = &a->s;
    Explaining x = {.s = s};
    bool ok = check(&x.wanted, s, err) && runtime_device(&x.r, s, a->comm, err) &&
              runtime_tokenizer(&x.r, s, err) && read_first(&x, err) &&
              runtime_model(&x.r, s, 0, err) && read_inputs(&x, err) && make(&x, err);
    bool root = comm_root(x.r.ex.comm);
    ok = ok && agree_root(x.r.ex.comm, !root || write_all(&x, err), err);
    if (ok && root) report(&x);
    explaining_free(&x);
    runtime_close(&x.r, ok);
    return ok;
}

static const Use use[] = {{"explain.*", USE_OPTIONAL},
                          {"explain.out", USE_NEEDED},
                          {"model.*", USE_OPTIONAL},
                          {"model.path", USE_NEEDED},
                          ONLY("subspace.scores"),
                          ONLY("subspace.by"),
                          ONLY("subspace.top-k"),
                          ONLY("score.sae"),
                          ONLY("score.aligned"),
                          ONLY("score.unaligned"),
                          ONLY("score.tokens"),
                          ONLY("train.subspace"),
                          ONLY("generate.prompts"),
                          ONLY("generate.suite"),
                          ONLY("generate.benign"),
                          ONLY("generate.benign-suite"),
                          ONLY("data.path"),
                          ONLY("data.text"),
                          ONLY("data.limit"),
                          ONLY("data.max-length"),
                          ONLY("data.pack-tokens"),
                          ONLY("seed"),
                          ONLY("threads"),
                          ONLY("deadline"),
                          ONLY("cpu"),
                          ONLY("json"),
                          {NULL, USE_OPTIONAL}};

const Command cmd_explain = {
    .name = "explain",
    .summary = "what the features are, and what the model does without their subspace",
    .about =
        "--scores with --sae and the data that were scored: cards of the chosen features, with\n"
        "tokens in context. --subspace with --adapter: how much of what the adapter adds lies in\n"
        "the subspace. --subspace with --prompts, --benign and --text: how far the model leans\n"
        "towards refusing when the subspace is taken out of its stream, or added, beside random\n"
        "ones; and with either part of the adapter alone. Writes features.json, energy.json and\n"
        "causal.json.",
    .positional = POSITIONAL_RECIPE,
    .ranks = true,
    .use = use,
    .run = run,
};
