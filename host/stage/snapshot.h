/* snapshot.h - long work at one moment, as a folder that appears whole.
 *
 *   PARENT/step-00000120/
 *     (files of the work's own)
 *     manifest.json       written last: the run's key (result_key.h), where the work stands, who
 *                         made it, the other files with their sizes and SHA-256, and its own
 * SHA-256
 *
 * It is written beside its place, PARENT/step-00000120.tmp.PID, and moved there by one rename when
 * all of it has reached the disk; the parent is synced then. A crash at any moment leaves it whole
 * or not there. */
#ifndef SAILS_SNAPSHOT_H
#define SAILS_SNAPSHOT_H

#include <jansson.h>

#include "data/base/err.h"

typedef struct Snapshot {
    size_t step;   /* how much is done; it names the folder */
    json_t *state; /* what the work must know again; from snapshot_read the caller's */
    json_t *run;   /* borrowed: what a run that goes on must have in common with it */
    json_t *maker; /* borrowed: program, device ..: what should be the same, for equal bits */
    const char *const *file; /* names of the work's own files, NULL-terminated */
} Snapshot;

/* Writes or reads the work's own files in a folder. */
typedef bool snapshot_work(void *context, const char *folder, Err *err);

/* A failure leaves nothing unfinished behind; when only the last fsync has failed, the folder is
 * there. */
bool snapshot_write(const Snapshot *s, const char *parent, snapshot_work *fill, void *context,
                    Err *err);

/* Takes the newest one of `parent` that is whole, into step and state; `found` false where there is
 * none. One that is not whole is passed over, with a line on stderr; one that cannot be read, for
 * want of a permission or by the disk's fault, fails. One of another run is refused by what differs
 * (EXIT_USAGE); another maker's is taken, with a line, but removed, with a line, where the key
 * names program and plug-in and they are others. */
bool snapshot_read(Snapshot *s, bool *found, const char *parent, snapshot_work *take, void *context,
                   Err *err);

/* How many are there. */
size_t snapshot_count(const char *parent);

/* Removes what was not finished, or not wholly removed. */
void snapshot_sweep(const char *parent);

/* After a save of step `saved`: leaves the newest `keep`, and sweeps. Step `before` is the last
 * that was known to be whole: what is newer was passed over, or failed, and is none to keep. */
void snapshot_prune(const char *parent, int keep, size_t before, size_t saved);

#endif
