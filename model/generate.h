/* generate.h - replies to prompts: prompts run as packs that fill key/value caches, then all open
 * replies grow together, one token a step. A finished reply's place goes to the next prompt.
 *
 * A reply is a function of the model, the prompt, its document number and the options' seed and
 * sampling: which other prompts are there, and in how many slots, changes no token. */
#ifndef SAILS_GENERATE_H
#define SAILS_GENERATE_H

#include "model/gemma2.h"

typedef struct GenPrompt {
    const int32_t *token; /* (n), n >= 1 */
    int n;
    int max_new;       /* tokens of the reply; cut to what max_len leaves */
    uint64_t document; /* with the seed and the step it decides the draw */
} GenPrompt;

typedef struct GenOptions {
    int slots;        /* replies that grow together */
    int max_len;      /* tokens of prompt and reply together, <= the model's max_positions */
    int prefill_rows; /* prompt tokens that run at a time, >= the longest prompt */
    Sampling how;
    uint64_t seed;
    const int32_t *stop; /* (nstop) ids that end a reply, besides the config's eos; borrowed */
    int nstop;
    bool (*give_up)(void *); /* asked before every step; true ends gen_run early. NULL: never */
    void *give_up_context;   /* borrowed */
} GenOptions;

typedef struct GenReply {
    int index;            /* of the prompt */
    const int32_t *token; /* (n) without the stop token; valid during the call */
    int n;
    int stop; /* the id that ended it; -1: max_new tokens were made */
} GenReply;

typedef void gen_done(void *context, const GenReply *reply);

typedef struct Generator Generator;

/* All memory is taken here, for the adapters that m has now. m and what the options point to are
 * borrowed. */
Generator *gen_create(const Model *m, const GenOptions *o);
void gen_destroy(Generator *g); /* NULL is allowed */

/* Device bytes that gen_create would take; nothing is allocated. */
size_t gen_bytes(const Config *c, const Lora *lora, enum Dtype dtype, const GenOptions *o);

/* Calls done for every prompt, each as it ends. May be called again, unless the end was another
 * than GEN_DONE: then some prompts have no reply, and g is good for gen_destroy alone. */
enum GenEnd { GEN_DONE, GEN_GAVE_UP, GEN_BAD_NUMBERS /* a row of logits was not finite */ };
enum GenEnd gen_run(Generator *g, const GenPrompt *prompt, int n, gen_done *done, void *context);

/* Those of its last pass: where the numbers went bad, if they did. Borrowed. */
Acts *gen_acts(Generator *g);

#endif
