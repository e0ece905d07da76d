/* agree.c - rank 0's outcome handed to all, and what should be the same held against it. */
#include "host/stage/agree.h"

#include <string.h>

#include "data/base/mem.h"
#include "data/base/sha256.h"

static bool failed;

bool agree_failed(void) {
    return failed;
}
void agree_to_fail(void) {
    failed = true;
}

bool agree_same(Comm *c, const char *what, const void *bytes, size_t n, enum ExitCode code,
                Err *err) {
    enum { DIGEST = 32 };
    int ranks = comm_size(c), r = 1;
    if (!c) return true;
    unsigned char *digest = mem_array((size_t)ranks, DIGEST);
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, bytes, n);
    sha256_done(&s, digest + comm_rank(c) * DIGEST);
    comm_share(c, "digests", digest, DIGEST);
    while (r < ranks && memcmp(digest, digest + r * DIGEST, DIGEST) == 0) r++;
    free(digest);
    if (r < ranks) failed = true;
    return r == ranks || err_set(err, code, "%s differs between ranks 0 and %d", what, r);
}

bool agree_root(Comm *c, bool ok, Err *err) {
    struct {
        bool ok;
        Err err;
    } word = {.ok = ok};
    if (!c) return ok;
    if (!ok) word.err = *err;
    comm_broadcast(c, "outcome of rank 0", &word, sizeof word);
    if (!word.ok) *err = word.err, failed = true;
    return word.ok;
}
