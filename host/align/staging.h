/* staging.h - what every stage of align does: its key, whether it is done, what it keeps; private
 * to align*.c. */
#ifndef SAILS_STAGING_H
#define SAILS_STAGING_H

#include "host/align/align_stages.h"
#include "host/stage/agree.h"
#include "host/stage/keeping.h"

#define KEYS(...)           \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }
#define OUTPUTS(...)        \
    (const char *const[]) { \
        __VA_ARGS__, NULL   \
    }

/* What rank 0 alone does: its outcome is that of all. */
#define ALONE(w, what, err) agree_root((w)->r.ex.comm, !comm_root((w)->r.ex.comm) || (what), err)

/* Within the run folder, of a method or a run. */
#define SUBSPACE_FILE "subspaces/%s.safetensors"

/* A path within the run folder for one run: "adapters/%s". */
const char *staging_named(char path[160], const char *format, const char *run);

/* Opens a key with what all stages depend on: device and storage type. run NULL: of none. */
void staging_open(Align *w, Stage *st, const char *name, const char *run);

/* Adds to a key: the model and its tokenizer; the training data, and how they are split; a file of
 * the run folder; the seed of a run, where the recipe's own is that of the first. */
bool staging_model(Align *w, Stage *st, Err *err);
bool staging_data(Align *w, Stage *st, Err *err);
bool staging_output(Align *w, Stage *st, const char *name, Err *err);
void staging_seed(Stage *st, const char *key, int seed);

/* And the kernels of svd and qr, of a subspace and of a start that is taken off: on a CPU they are
 * OpenBLAS's, and it chooses them by the processor, whatever the level. */
void staging_factorisations(Stage *st);

/* Is the stage done? Rank 0 knows. If not, what its work needs is opened and the run folder begun.
 */
enum Needs { NEEDS_NOTHING, NEEDS_MODEL };
bool staging_begin(Align *w, Stage *st, const char *const *outputs, enum Needs needs, bool *kept,
                   Err *err);

/* Ends a stage: stamp, line, and what was opened. */
bool staging_finish(Align *w, Stage *st, const char *const *outputs, json_t *result, Err *err);

/* Where a stage keeps what it has done, until it is done. Frees with staging_keep_end. */
bool staging_keep_begin(Keeping *k, Align *w, const Stage *st, Err *err);
void staging_keep_end(Keeping *k, Align *w, bool done);

#endif
