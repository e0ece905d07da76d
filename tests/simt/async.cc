/* async.cc - cp.async. The destination is filled with NaN when the copy is started, which shows a
 * reader that has not waited and one whose data are overwritten too early; the bytes come at the
 * last legal moment, in the wait. */
#include <string.h>

#include <vector>

#include "tests/simt/race.h"
#include "tests/simt/simt.h"

namespace simt {

namespace {

struct Copy {
    void *to;
    const void *from; /* NULL: zeros */
    int bytes;
    const char *file;
    int line;
};

/* Of one thread. The vectors keep their memory from block to block. */
struct Queue {
    std::vector<Copy> copies;   /* unfinished, oldest first */
    std::vector<size_t> groups; /* copies in each committed group */
    size_t open;                /* copies since the last commit */
};
Queue queues[MAX_THREADS];

}  // namespace

void async_copy(void *to, const void *from, int bytes, bool valid, const char *file, int line) {
    if ((uintptr_t)to % (unsigned)bytes || (uintptr_t)from % (unsigned)bytes)
        fail("cp_async (%s:%d): expected multiples of %d, got %p and %p", file, line, bytes, to,
             from);
    if (!in_shared(to, (size_t)bytes))
        fail("cp_async (%s:%d): the destination %p is not in shared memory", file, line, to);
    if (valid && !live_range(from, (size_t)bytes))
        fail("cp_async (%s:%d): the source %p is not device memory", file, line, from);
    memset(to, 0xff, (size_t)bytes);
    RaceQuiet quiet; /* the queues are the device's, not the kernel's */
    Queue &q = queues[thread_index()];
    q.copies.push_back({to, valid ? from : nullptr, bytes, file, line});
    q.open++;
}

void async_commit() {
    RaceQuiet quiet;
    Queue &q = queues[thread_index()];
    q.groups.push_back(q.open);
    q.open = 0;
}

void async_wait(int pending) {
    Queue &q = queues[thread_index()];
    size_t done = 0, copies = 0;
    for (; done + (size_t)pending < q.groups.size(); done++) copies += q.groups[done];
    for (size_t i = 0; i < copies; i++) {
        const Copy &c = q.copies[i];
        if (c.from)
            memcpy(c.to, c.from, (size_t)c.bytes);
        else
            memset(c.to, 0, (size_t)c.bytes);
    }
    RaceQuiet quiet;
    q.copies.erase(q.copies.begin(), q.copies.begin() + (ptrdiff_t)copies);
    q.groups.erase(q.groups.begin(), q.groups.begin() + (ptrdiff_t)done);
}

void async_exit() {
    Queue &q = queues[thread_index()];
    if (!q.copies.empty())
        fail("exits with %zu cp_async in flight, the oldest from %s:%d", q.copies.size(),
             q.copies[0].file, q.copies[0].line);
    q.groups.clear(); /* empty groups may remain */
}

}  // namespace simt
