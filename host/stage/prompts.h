/* prompts.h - the files of prompts as token documents that end where the reply begins. */
#ifndef SAILS_PROMPTS_H
#define SAILS_PROMPTS_H

#include "data/chat.h"
#include "data/suites.h"
#include "host/cli/settings.h"

#define PROMPTS_BENIGN SUITE_BENIGN /* marks what comes of generate.benign */
enum { PROMPT_FILES = 2 }; /* generate.prompts, then generate.benign, which may be absent */

typedef struct PromptFile {
    const char *path; /* borrowed from the settings; "": absent, no records */
    const char *mark; /* of its responses' ids and categories: "" or PROMPTS_BENIGN */
    bool marked;      /* a suite's: its records' categories have the mark */
    Records records;
    Doc *doc;      /* one per record */
    size_t *index; /* (n) those of the records that are asked, in order */
    size_t n;
} PromptFile;

typedef struct Prompts {
    PromptFile file[PROMPT_FILES];
    size_t n;      /* that are asked, of all files */
    int longest;   /* tokens */
    int positions; /* that the model has for prompt and reply */
} Prompts;

/* A file without a usable record is refused, as is a prompt that leaves no room for a reply.
 * Messages name file and line. */
bool prompts_read(Prompts *p, Tokenizer *t, const Settings *s, int positions, Err *err);
void prompts_free(Prompts *p); /* accepts a zeroed struct */

/* A share of each file's prompts, as by split_mark, and the others; which, say their tokens and the
 * seed, so that equal prompts stay together. Refused: a file, but for an absent one, of which a
 * part would be empty. Both borrow from `all`; prompts_part_free frees them. */
bool prompts_split(Prompts *part, Prompts *rest, const Prompts *all, double share, uint64_t seed,
                   Err *err);
void prompts_part_free(Prompts *part); /* accepts a zeroed struct */

#endif
