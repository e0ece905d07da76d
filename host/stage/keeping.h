/* keeping.h - where long work keeps what it has done, so that a later process can go on: for those
 * that are asked to, by --resume, and for the stages of align. */
#ifndef SAILS_KEEPING_H
#define SAILS_KEEPING_H

#include <jansson.h>

#include "data/base/folder_lock.h"
#include "host/cli/args.h"
#include "kernels/exec.h"

typedef struct Keeping {
    const char *folder; /* borrowed */
    json_t *run;        /* borrowed: what the work's result depends on (result_key.h) */
    json_t *maker;      /* borrowed: what should be the same for equal bits */
    const char *again;  /* what goes on: "the same with --resume" */
    bool expected;      /* that there is something; a line says so where there is not */
} Keeping;

/* Program, plug-in, device, card and version. */
bool keeping_maker(json_t **maker, Exec *ex, Err *err);

/* Says so on stderr where another maker has made what is in `folder`. */
void keeping_compare(const char *folder, const json_t *was, const json_t *is);

/* Those of a command of its own: --resume keeps in OUT.partial, alone. Owns what *k borrows. */
typedef struct CommandKeeping {
    Keeping k;
    char *folder;
    FolderLock lock; /* of rank 0 */
} CommandKeeping;
bool keeping_open(CommandKeeping *c, const Args *a, const char *out, Exec *ex, Err *err);

/* After the result was written: nothing is kept any longer. */
void keeping_done(const Keeping *k, Exec *ex); /* NULL is allowed */
void keeping_close(CommandKeeping *c);         /* accepts a zeroed struct */

#endif
