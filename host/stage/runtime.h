/* runtime.h - what a command that computes opens first: device, tokenizer, model, adapter. */
#ifndef SAILS_RUNTIME_H
#define SAILS_RUNTIME_H

#include "data/tokenizer.h"
#include "host/cli/settings.h"
#include "kernels/comm.h"
#include "model/gemma2.h"

typedef struct Runtime {
    Exec ex;
    Tokenizer *tokenizer;
    Model model;
    Lora lora; /* when model.lora points to it */
    Full full; /* when model.full points to it */
} Runtime;

/* Zero-initialise; open in this order; runtime_close accepts any state between. Ranks must have
 * read the same (same_input.h). */
/* comm: the other ranks, NULL: none. They must have devices of one kind; on CPUs they meet at the
 * least of their levels. */
bool runtime_device(Runtime *r, const Settings *s, Comm *comm, Err *err);

/* For what is always done on the CPU, in f32 or in double: that device alone. */
bool runtime_cpu(Exec *ex, const Settings *s, Err *err);
bool runtime_tokenizer(Runtime *r, const Settings *s, Err *err); /* model.tokenizer or model.path */
char *runtime_tokenizer_file(const Settings *s); /* where that is read from; malloc */

/* The same for data that may be token ids: without a tokenizer.json the ids of the model's config
 * alone, and text is refused (tokenizer_ids_only). */
bool runtime_ids(Runtime *r, const Settings *s, Err *err);
bool runtime_model(Runtime *r, const Settings *s, int max_positions, Err *err);
bool runtime_trained_model(Runtime *r, const Settings *s, int max_positions,
                           Err *err); /* in full */

/* False when the tokenizer has ids that the model's embedding has no rows for. */
bool runtime_ids_fit(const Tokenizer *t, const Config *c, const char *model, Err *err);
bool runtime_adapter(Runtime *r, const char *folder, bool training, Err *err);
void runtime_drop_adapter(Runtime *r);
void runtime_drop_model(Runtime *r); /* with what is on it; another may be opened */
/* Closes all. ok: the work was done, on all ranks, whose devices part first. */
void runtime_close(Runtime *r, bool ok);

#endif
