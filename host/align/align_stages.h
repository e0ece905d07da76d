/* align_stages.h - the state of an align run and its stages; private to align*.c.
 *
 * A stage function makes its outputs or finds them kept, and leaves what later stages and the
 * summary need: files in the run folder, and its result object. */
#ifndef SAILS_ALIGN_STAGES_H
#define SAILS_ALIGN_STAGES_H

#include "host/stage/dataset.h"
#include "host/stage/generating.h"
#include "host/stage/layers.h"
#include "host/stage/plan.h"
#include "host/align/run_folder.h"
#include "host/stage/runtime.h"
#include "host/stage/train.h"
#include "model/adapter_start.h"

/* A row of the table: the base model, or what is trained from it. */
typedef struct Method {
    const char *name;
    enum TrainMethod how;      /* METHOD_FULL: all weights */
    const AdapterStart *start; /* of an adapter; NULL: there is none */
    double rate;               /* its learning rate, where no list of them is given */
} Method;

/* False of the base model. */
static inline bool method_trains(const Method *m) {
    return m->start || m->how == METHOD_FULL;
}

/* The rows that the recipe asks for, each once. */
typedef struct Methods {
    Method row[3 + START_COUNT];
    int n;
    bool scores, moments, inputs, outputs; /* is there a row that needs these */
    bool pairs, models;                    /* that learns from pairs; that writes whole models */
} Methods;

/* Which prompts: of the table, or those that a rate is chosen on. */
enum PromptPart { PART_TEST, PART_VALIDATION };

/* Learning rates and seeds (grid.h). */
typedef struct Grid {
    double *rate; /* (nrate); none: each method's own */
    int nrate, first_seed, seeds;
} Grid;

/* One run of a row: what is trained, and on which prompts it is judged. */
typedef struct Cell {
    char name[64], replies[80]; /* the adapter's, the replies' and the judgement's */
    char subspace[64];          /* the name of the one that it starts in, if it needs one */
    enum PromptPart part;
    const Method *method; /* borrowed */
    double lr;
    int seed, subspace_seed;
} Cell;

typedef struct Align {
    const Args *args;
    const Settings *s;
    Run run;
    Methods methods;
    Grid grid;
    Runtime r; /* the device is open from the start, the rest from the first stage that needs it */
    char tuned[64]; /* the run whose model is open in place of the base model; "": none */
    Layers layers;
    Dataset data; /* s->data.path */
    Dataset kept; /* s->inputs.preserve, where a row needs it */
    Dataset text; /* s->data.text */
    Split split;
    Dataset pairs, held_pairs; /* the split's records as pairs, where a row learns from them */
    Prompts prompts;
    Prompts validation, test; /* of them, where a rate is to be chosen */
} Align;

/* Reads all inputs, checks that every stage to come fits (EXIT_MEMORY), and opens the model. Done
 * already: fine. */
bool align_need_model(Align *w, Err *err);

/* The first part of that: tokenizer, data and prompts. */
bool align_read_inputs(Align *w, Err *err);

const Prompts *align_prompts(const Align *w, enum PromptPart part);

/* The memory of each stage that the methods ask for, in order: "score", "moments", "inputs",
 * "outputs", "train" of each row that is trained, "generate", "perplexity". Stops where `use` gives
 * false. Inputs are read. row: of "train" alone. */
typedef bool align_plan_use(void *context, Align *w, const char *stage, const Method *row,
                            const Plan *p, Err *err);
bool align_each_plan(Align *w, align_plan_use *use, void *context, Err *err);

/* Refuses what does not fit (EXIT_MEMORY): it would be a pity to find out after hours of scoring
 * that the training does not. */
bool align_fits(Align *w, Err *err);

/* In place of the stages: what they need and take (align_check.c). Flags that are for this alone
 * are refused without --check. */
bool align_check_flags(const Args *a, Err *err);
bool align_check(Align *w, Err *err);

/* The settings by which a method trains, and what it trains on. */
Settings align_settings(const Align *w, const Method *m);
void align_train_setup(TrainSetup *t, const Align *w, const Settings *s);

/* Opens the base model, if it is not open, without an adapter. */
bool align_base(Align *w, Err *err);

/* Opens what a run has left: the base model with its finished adapter, if there is one, or a model
 * of its own (align_models.c), which is trained again where it is no longer there. */
bool align_wear(Align *w, const Cell *c, Err *err);

/* What a trained run leaves, within the run folder: "adapters/lora", "models/full". */
const char *align_left(char path[160], const Cell *c);

/* Of a run that trains all weights: its model is on disk as it was written; says so on all ranks.
 * Notes what was written, of rank 0. Removes its weights, of rank 0, and not what else the folder
 * holds. */
bool align_model_there(Align *w, const Cell *c);

/* EXIT_MEMORY where whole models of so many bytes have no room on the run folder's disk, what
 * earlier ones take counted as room. Rank 0. */
bool align_models_room(const Align *w, double bytes, Err *err);
bool align_model_note(Align *w, const Cell *c, Err *err);
void align_model_drop(Align *w, const Cell *c);
#define MODEL_NOTE "models/%s.json"

bool align_score(Align *w, Err *err);

/* The result's reference goes to the caller: moments_describe's. */
bool align_moments(Align *w, json_t **result, Err *err);

/* Of a run that needs one; the result's reference goes to the caller. */
bool align_subspace(Align *w, const Cell *c, json_t **result, Err *err);

/* Of one run; the result's reference goes to the caller. */
bool align_train(Align *w, const Cell *c, json_t **result, Err *err);
bool align_generate(Align *w, const Cell *c, Err *err);
bool align_eval(Align *w, const Cell *c, json_t **result, Err *err);
bool align_perplexity(Align *w, const Cell *c, json_t **result, Err *err);

/* What is wrong with the judges of the recipe, before hours of work. */
bool align_check_judges(const Align *w, Err *err);
/* Explains what the stages have made (align_explain.c), as far as explain.parts asks. cell (n): the
 * runs of the table's rows, of each the first seed's. */
bool align_explain(Align *w, const Cell *cell, int n, Err *err);

/* Adds to a key: what a run has trained; which prompts it is judged on; what was scored. */
bool align_key_trained(Align *w, Stage *st, const Cell *c, Err *err);
void align_key_part(const Align *w, Stage *st, enum PromptPart part);
bool align_key_scored(Align *w, Stage *st, Err *err);

/* Makes the run folder, before the first output. */
bool align_begin_run(Align *w, Err *err);

#endif
