/* align_stages.h - the state of an align run and its stages; private to align*.c.
 *
 * A stage function makes its outputs or finds them kept, and leaves what later stages and the
 * summary need: files in the run folder, and its result object. */
#ifndef SAILS_ALIGN_STAGES_H
#define SAILS_ALIGN_STAGES_H

#include "host/stage/dataset.h"
#include "host/stage/generating.h"
#include "host/stage/layers.h"
#include "host/align/run_folder.h"
#include "host/stage/runtime.h"
#include "model/adapter_start.h"

/* A row of the table: the base model, or an adapter that starts in this way. */
typedef struct Method {
    const char *name;
    const AdapterStart *start; /* NULL: nothing is trained */
} Method;

/* The rows that the recipe asks for, each once. */
typedef struct Methods {
    Method row[1 + START_COUNT];
    int n;
    bool scores, moments, inputs; /* is there a row that needs these */
    bool trained;
} Methods;

/* Which prompts: of the table, or those that a rate is chosen on. */
enum PromptPart { PART_TEST, PART_VALIDATION };

/* Learning rates and seeds (grid.h). */
typedef struct Grid {
    double *rate; /* (nrate) */
    int nrate, first_seed, seeds;
} Grid;

/* One run of a row: what is trained, and on which prompts it is judged. */
typedef struct Cell {
    char name[64], replies[80]; /* the adapter's, the replies' and the judgement's */
    char subspace[64];          /* the name of the one that it starts in, if it needs one */
    enum PromptPart part;
    const AdapterStart *start; /* NULL: nothing is trained */
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
    Layers layers;
    Dataset data; /* s->data.path */
    Dataset text; /* s->data.text */
    Split split;
    Prompts prompts;
    Prompts validation, test; /* of them, where a rate is to be chosen */
} Align;

/* Reads all inputs, checks that every stage to come fits (EXIT_MEMORY), and opens the model. Done
 * already: fine. */
bool align_need_model(Align *w, Err *err);

const Prompts *align_prompts(const Align *w, enum PromptPart part);

/* Puts the finished adapter of a run on the open model, if there is one. */
bool align_wear(Align *w, const Cell *c, Err *err);

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

/* Makes the run folder, before the first output. */
bool align_begin_run(Align *w, Err *err);

#endif
