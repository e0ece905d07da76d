/* agree.h - outcomes that all ranks of a job share, so that they go on together or end alike. */
#ifndef SAILS_AGREE_H
#define SAILS_AGREE_H

#include "data/base/err.h"
#include "data/base/sha256.h"
#include "kernels/comm.h"

/* How long a rank may show no life in work that is shared out: seconds, for comm_phase. */
enum { RANKS_APART = 600 };

/* Have all ranks the same n bytes? If not, err is set on all: "WHAT differs between ranks 0 and R".
 */
bool agree_same(Comm *c, const char *what, const void *bytes, size_t n, enum ExitCode code,
                Err *err);

/* The same of blocks that come one after another; their lengths count. */
typedef struct Agreement {
    Comm *c;
    Sha256 s;
} Agreement;
void agreement_begin(Agreement *a, Comm *c);
void agreement_add(Agreement *a, const void *bytes, size_t n);
bool agreement_end(Agreement *a, const char *what, enum ExitCode code, Err *err);

/* Was a failure all ranks'? True once one of the calls here, or wish_stop, has failed. */
bool agree_failed(void);
void agree_to_fail(void);

/* What rank 0 alone has tried to do: its outcome, and its err on failure, become every rank's. The
 * others pass true. */
bool agree_root(Comm *c, bool ok, Err *err);

/* What each rank has tried to do: if one has failed, all have, with the first one's err, which
 * names that rank unless all have failed by themselves. */
bool agree_all(Comm *c, bool ok, Err *err);

#endif
