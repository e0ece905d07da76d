/* board.c - the memory that a machine's ranks share, and what can be read from it. */
#include "host/stage/board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <jansson.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

static size_t board_bytes(int size) {
    return sizeof(Board) + (size_t)size * sizeof(BoardSeat);
}

/* State and start of a process. 0: there is none with this number; UNKNOWN: it cannot be asked now,
 * because this process or the machine has run out of files or memory. So nothing is allocated here.
 */
enum { UNKNOWN = '?' };
static char process(int pid, uint64_t *started) {
    char path[64], line[1024], state;
    unsigned long long ticks;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT || errno == ESRCH ? 0 : UNKNOWN;
    ssize_t n = read(fd, line, sizeof line - 1);
    int why = errno;
    close(fd);
    if (n < 0) return why == ESRCH ? 0 : UNKNOWN;
    line[n] = 0;
    char *end = strrchr(line, ')'); /* "12 (sails) R ..." */
    if (!end || sscanf(end + 1,
                       " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
                       "%*d %*d %*d %llu",
                       &state, &ticks) != 2)
        return UNKNOWN;
    *started = ticks;
    return state;
}

char board_process(const BoardSeat *s) {
    uint64_t started;
    char state = process(s->pid, &started);
    if (state == UNKNOWN) return state;
    if (!state || started != s->started || state == 'Z' || state == 'X') return 0;
    return state;
}

static void take_seat(Board *b, int rank) {
    BoardSeat *s = &b->seat[rank];
    s->pid = (int)getpid();
    process(s->pid, &s->started);
    gethostname(s->host, sizeof s->host - 1);
    atomic_store(&s->beat, clock_seconds());
    atomic_store(&s->state, SEAT_WORKING);
}

/* The file of a machine's ranks. */
typedef struct File {
    char name[64];
    int why; /* errno, should it not be there; else 0 */
} File;

static int make(File *f, size_t bytes) {
    snprintf(f->name, sizeof f->name, "/sails-%ld-%ld", (long)getuid(), (long)getpid());
    shm_unlink(f->name); /* a process of the same number that was killed */
    int fd = shm_open(f->name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) f->why = errno;
    return fd;
}

static int find(File *f) {
    int fd = f->why ? -1 : shm_open(f->name, O_RDWR, 0);
    if (fd < 0 && !f->why) f->why = errno;
    return fd;
}

/* NULL, with the reason in f->why. */
static Board *map(int fd, size_t bytes, File *f) {
    if (f->why) return NULL;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) return p;
    f->why = errno;
    return NULL;
}

/* Rank `leader` makes the file, the others of its machine open it; then it loses its name. */
bool board_open(Board **to, Comm *c, Err *err) {
    TransportSeat seat = comm_seat(c);
    size_t bytes = board_bytes(seat.size);
    File *files = mem_array((size_t)seat.size, sizeof *files), *f = files + seat.leader;
    bool leads = seat.rank == seat.leader;
    int fd = leads ? make(f, bytes) : -1;
    comm_share(c, "names of shared memory", files, sizeof *files);
    if (!leads) fd = find(f);
    Board *b = *to = map(fd, bytes, f);
    if (fd >= 0) close(fd);
    if (b) {
        b->size = seat.size;
        take_seat(b, seat.rank);
    }
    comm_barrier(c, "shared memory");
    if (leads) shm_unlink(f->name);
    if (!b)
        err_set(err, EXIT_INTERNAL, "shared memory for the ranks of this machine: %s: %s", f->name,
                strerror(f->why));
    free(files);
    return b != NULL;
}

void board_close(Board *b) {
    if (b) munmap(b, board_bytes(b->size));
}

bool board_call(BoardCall *to, const BoardSeat *s, uint64_t k) {
    uint64_t begun = atomic_load(&s->begun);
    if (begun <= k || begun - k >= BOARD_CALLS) return false;
    memcpy(to, &s->call[k % BOARD_CALLS], sizeof *to);
    return to->number == k && atomic_load(&s->begun) - k < BOARD_CALLS;
}

const char *board_call_text(char text[BOARD_CALL_ROOM], const BoardCall *call) {
    static const char *const op[] = {COMM_OPS(CHOICE_TEXT)};
    static const char *const type[] = {COMM_TYPES(CHOICE_TEXT)};
    char bytes[PRINT_ROOM];
    int n = snprintf(text, BOARD_CALL_ROOM, "call %llu, %s", (unsigned long long)call->number,
                     op[call->op]);
    if (*call->what) n += snprintf(text + n, BOARD_CALL_ROOM - (size_t)n, " of %s", call->what);
    if (call->bytes)
        n += snprintf(text + n, BOARD_CALL_ROOM - (size_t)n, " (%s %s)",
                      print_count(bytes, (double)call->bytes), type[call->type]);
    if (call->step) snprintf(text + n, BOARD_CALL_ROOM - (size_t)n, ", step %d", call->step);
    return text;
}

static json_t *call_json(const BoardCall *call) {
    static const char *const op[] = {COMM_OPS(CHOICE_TEXT)};
    static const char *const type[] = {COMM_TYPES(CHOICE_TEXT)};
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:i, s:I, s:f, s:f}", "call",
                     (json_int_t)call->number, "op", op[call->op], "type", type[call->type], "what",
                     call->what, "phase", call->phase, "step", call->step, "bytes",
                     (json_int_t)call->bytes, "begun", call->begun, "ended", call->ended);
}

static json_t *seat_json(const BoardSeat *s, int rank) {
    static const char *const state[] = {SEAT_STATES(CHOICE_TEXT)};
    json_t *calls = json_array();
    BoardCall call;
    uint64_t begun = atomic_load(&s->begun);
    for (uint64_t k = begun < BOARD_CALLS ? 0 : begun - BOARD_CALLS + 1; k < begun; k++)
        if (board_call(&call, s, k)) json_array_append_new(calls, call_json(&call));
    return json_pack("{s:i, s:s, s:i, s:s, s:f, s:I, s:I, s:o}", "rank", rank, "host", s->host,
                     "pid", s->pid, "state", state[atomic_load(&s->state)], "beat",
                     atomic_load(&s->beat), "begun", (json_int_t)begun, "ended",
                     (json_int_t)atomic_load(&s->ended), "calls", calls);
}

bool board_dump(const Board *b, const char *path, Err *err) {
    json_t *seats = json_array();
    for (int r = 0; r < b->size; r++)
        if (atomic_load(&b->seat[r].state) != SEAT_EMPTY)
            json_array_append_new(seats, seat_json(&b->seat[r], r));
    json_t *dump =
        json_pack("{s:s, s:i, s:s, s:f, s:o}", "format", "sails ranks 1", "size", b->size,
                  "verdict", b->verdict, "now", clock_seconds(), "seats", seats);
    CHECK(dump, "a JSON value could not be made");
    bool ok = files_write_json(path, dump, err);
    json_decref(dump);
    return ok;
}
