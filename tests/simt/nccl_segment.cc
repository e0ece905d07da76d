/* nccl_segment.cc - the segment that the ranks of a communicator share, and reading each other's
 * device memory: straight from the process, or, where that is forbidden, from a copy in the
 * segment.
 *
 * The segment's name goes when all ranks have joined: an id that is used again finds nothing, and
 * nothing stays behind whatever becomes of the ranks. */
#include "tests/simt/nccl_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include <set>

#include "tests/simt/simt.h"

namespace simt {

namespace {

const char MAGIC[] = "simt-nccl";
struct Id {
    char magic[16];
    uint64_t number;
};
static_assert(sizeof(Id) <= sizeof(ncclUniqueId), "the id holds it");

/* Mail lies in the file behind the struct, far apart: what is not written takes no room. */
const uint64_t ROOM = (uint64_t)1 << 40;
const uint64_t FIRST_ROOM = (uint64_t)1 << 30;
static_assert(sizeof(Shared) < FIRST_ROOM, "the struct lies before the mail");

std::string name_of(uint64_t number) {
    char text[64];
    snprintf(text, sizeof text, "/simt-nccl-%016llx", (unsigned long long)number);
    return text;
}

/* Names of ids that this process has made; whoever never joins must not leave them. */
struct Made {
    int pid = 0;
    std::set<std::string> names;
    ~Made() {
        for (const std::string &n : names)
            if (pid == getpid()) shm_unlink(n.c_str());
    }
} made;

}  // namespace

ncclUniqueId Segment::create() {
    ncclUniqueId id;
    Id mine = {};
    memcpy(mine.magic, MAGIC, sizeof MAGIC);
    if (getrandom(&mine.number, sizeof mine.number, 0) != sizeof mine.number) fail("getrandom");
    std::string name = name_of(mine.number);
    int file = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, (off_t)(FIRST_ROOM + MAX_RANKS * ROOM)) != 0)
        fail("ncclGetUniqueId: no shared memory: %s", strerror(errno));
    close(file);
    made.pid = getpid(), made.names.insert(name);
    memset(&id, 0, sizeof id);
    memcpy(&id, &mine, sizeof mine);
    return id;
}

Segment::Segment(const ncclUniqueId &id) {
    Id given;
    memcpy(&given, &id, sizeof given);
    if (memcmp(given.magic, MAGIC, sizeof MAGIC) != 0)
        fail("ncclCommInitRankConfig: the id is not one of ncclGetUniqueId");
    number = given.number, name = name_of(number);
    file = shm_open(name.c_str(), O_RDWR, 0600);
    if (file < 0) fail("ncclCommInitRankConfig: the id has been used before");
    void *p = mmap(nullptr, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (p == MAP_FAILED) fail("ncclCommInitRankConfig: mmap: %s", strerror(errno));
    shared = (Shared *)p;
}

Segment::~Segment() {
    munmap(shared, sizeof *shared);
    close(file);
}

void Segment::join(int rank, int size) {
    int said = 0, before = 0;
    bool same = shared->size.compare_exchange_strong(said, size) || said == size;
    bool once = shared->member[rank].pid.compare_exchange_strong(before, getpid());
    if (!same || !once) shared->fault = 1 + rank;
    if (!same)
        fail("ncclCommInitRankConfig: rank %d says %d ranks, another one %d", rank, size, said);
    if (!once) fail("ncclCommInitRankConfig: rank %d has joined with this id before", rank);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0,
          0); /* else some systems let only parents read */
    const char *copies = getenv("SIMT_NCCL_COPY");
    if (copies && strcmp(copies, "1") == 0) shared->copies = 1;
    shared->joined++;
}

bool Segment::complete() {
    if (shared->joined < shared->size) return false;
    shm_unlink(name.c_str());
    return true;
}

bool Segment::read(int rank, const Side &side, size_t offset, void *to, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        char *rest = (char *)to + done;
        ssize_t n;
        if (shared->copies) {
            uint64_t at = side.mail;
            if (at == 0) return false;
            n = pread(file, rest, bytes - done, (off_t)(at - 1 + offset + done));
        } else {
            struct iovec here = {rest, bytes - done};
            struct iovec there = {(void *)(uintptr_t)(side.source + offset + done), bytes - done};
            n = process_vm_readv(shared->member[rank].pid, &here, 1, &there, 1, 0);
        }
        if (n > 0) {
            done += (size_t)n;
        } else if (!shared->copies && (errno == EPERM || errno == ENOSYS)) {
            shared->copies = 1;
            return false;
        } else if (shared->member[rank].aborted || errno == ESRCH) { /* it is gone: for ever */
            return false;
        } else {
            fail("the memory that rank %d sends from cannot be read: %s", rank, strerror(errno));
        }
    }
    return true;
}

uint64_t Segment::mail(int rank, uint64_t at, const void *from, size_t bytes) {
    uint64_t start = FIRST_ROOM + (uint64_t)rank * ROOM + at;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(file, (const char *)from + done, bytes - done, (off_t)(start + done));
        if (n <= 0) fail("no room in shared memory for a copy: %s", strerror(errno));
        done += (size_t)n;
    }
    return start + 1;
}

void Segment::clear_mail(int rank, uint64_t bytes) {
    fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              (off_t)(FIRST_ROOM + (uint64_t)rank * ROOM), (off_t)bytes);
}

}  // namespace simt
