/* prompts.h - the files of prompts as token documents that end where the reply begins. */
#ifndef SAILS_PROMPTS_H
#define SAILS_PROMPTS_H

#include "data/chat.h"
#include "host/cli/settings.h"

#define PROMPTS_BENIGN "benign" /* marks what comes of generate.benign */
enum { PROMPT_FILES = 2 };      /* generate.prompts, then generate.benign, which may be absent */

typedef struct PromptFile {
    const char *path; /* borrowed from the settings; "": absent, no records */
    const char *mark; /* of its responses' ids and categories: "" or PROMPTS_BENIGN */
    Records records;
    Doc *doc; /* one per record */
} PromptFile;

typedef struct Prompts {
    PromptFile file[PROMPT_FILES];
    size_t n;      /* of all files */
    int longest;   /* tokens */
    int positions; /* that the model has for prompt and reply */
} Prompts;

/* A file without a usable record is refused, as is a prompt that leaves no room for a reply.
 * Messages name file and line. */
bool prompts_read(Prompts *p, Tokenizer *t, const Settings *s, int positions, Err *err);
void prompts_free(Prompts *p); /* accepts a zeroed struct */

#endif
