/* agree.c - rank 0's outcome handed to all, and what should be the same held against it. */
#include "host/stage/agree.h"

#include <string.h>

#include "data/base/mem.h"

static bool failed;

bool agree_failed(void) {
    return failed;
}
void agree_to_fail(void) {
    failed = true;
}

void agreement_begin(Agreement *a, Comm *c) {
    a->c = c;
    sha256_init(&a->s);
}

void agreement_add(Agreement *a, const void *bytes, size_t n) {
    if (!a->c) return;
    sha256_add(&a->s, &n, sizeof n);
    if (n > 0) sha256_add(&a->s, bytes, n);
}

bool agreement_end(Agreement *a, const char *what, enum ExitCode code, Err *err) {
    enum { DIGEST = 32 };
    int ranks = comm_size(a->c), r = 1;
    if (!a->c) return true;
    unsigned char *digest = mem_array((size_t)ranks, DIGEST);
    sha256_done(&a->s, digest + comm_rank(a->c) * DIGEST);
    comm_share(a->c, "digests", digest, DIGEST);
    while (r < ranks && memcmp(digest, digest + r * DIGEST, DIGEST) == 0) r++;
    free(digest);
    if (r < ranks) failed = true;
    return r == ranks || err_set(err, code, "%s differs between ranks 0 and %d", what, r);
}

bool agree_same(Comm *c, const char *what, const void *bytes, size_t n, enum ExitCode code,
                Err *err) {
    Agreement a;
    agreement_begin(&a, c);
    agreement_add(&a, bytes, n);
    return agreement_end(&a, what, code, err);
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

bool agree_all(Comm *c, bool ok, Err *err) {
    typedef struct Word {
        bool ok;
        Err err;
    } Word;
    int ranks = comm_size(c), first = -1, failures = 0;
    if (!c) return ok;
    Word *word = mem_array((size_t)ranks, sizeof *word);
    word[comm_rank(c)].ok = ok;
    if (!ok) word[comm_rank(c)].err = *err;
    comm_share(c, "outcomes", word, sizeof *word);
    for (int r = ranks - 1; r >= 0; r--)
        if (!word[r].ok) first = r, failures++;
    if (failures) *err = word[first].err, failed = true;
    if (failures && failures < ranks) err_prefix(err, "rank %d", first);
    free(word);
    return failures == 0;
}
