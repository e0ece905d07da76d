/* generating.h - the generate stage: prompt files to a JSONL file of responses. */
#ifndef SAILS_GENERATING_H
#define SAILS_GENERATING_H

#include "host/stage/keeping.h"
#include "host/stage/prompts.h"
#include "host/stage/runtime.h"
#include "model/generate.h"

typedef struct GeneratingWork {
    double seconds;
    size_t prompts, prompt_tokens, tokens; /* tokens: made */
    size_t cut;                            /* replies that reached max-new-tokens */
} GeneratingWork;

/* Slots, lengths and sampling for these prompts; stops are left to the run. */
GenOptions generating_options(const Settings *s, const Prompts *p);

/* Answers the prompts with r's model and adapter, greedily or as the sampling options say, and
 * writes {"id","prompt","response","category","tokens","stop"} in the order of the files. Prompts
 * of the benign file have category "benign" or "benign/theirs" and ids "benign/theirs". The file
 * appears whole or not at all. All ranks share the prompts; rank 0 writes, and has the work. keep
 * (NULL: nowhere): every finished reply is kept there, by the rank that made it, and none of those
 * that are there as they were written is made again, but for another program's where the key names
 * it (snapshot.h); signals stop the work (EXIT_STOPPED). */
bool generating_run(GeneratingWork *work, Runtime *r, const Settings *s, const Prompts *prompts,
                    const char *out, const Keeping *keep, Err *err);

#endif
