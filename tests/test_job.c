/* The end of a job whose ranks no longer meet: for each cause the launcher's code, one line that
 * names the rank, within the deadline and five seconds, and nothing left running. */
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "data/base/interrupt.h"
#include "data/base/temporary.h"
#include "host/cli/print.h"
#include "host/stage/board.h"
#include "host/stage/job.h"
#include "kernels/comm_impl.h"
#include "tests/ranks.h"

static const double DEADLINE = 1;

/* ------------------------------------------------------------------------- what a rank does -- */

static void nap(double seconds) {
    usleep((useconds_t)(1e6 * seconds));
}

/* This process's disk, once it `stalls`: what is asked of it does not return. The calls are those
 * of the program's own code alone. */
static bool stalls;
int fsync(int fd) {
    while (stalls) pause();
    return (int)syscall(SYS_fsync, fd);
}
int remove(const char *path) {
    while (stalls) pause();
    return unlink(path);
}

/* .. in the middle of a file. */
static void stall(void) {
    char path[256];
    snprintf(path, sizeof path, "%s/unfinished.%d", getenv("SAILS_DUMPS"), (int)getpid());
    FILE *f = fopen(path, "w");
    CHECK(f && fclose(f) == 0, "%s", path);
    temporary_note(path);
    stalls = true;
}

/* Our connections to rank 0 (others name no protocol) that hold next to nothing: as many ranks
 * would fill them in no time. */
static bool narrow;
int socket(int domain, int type, int protocol) {
    int fd = (int)syscall(SYS_socket, domain, type, protocol), least = 1;
    if (fd >= 0 && narrow && protocol == IPPROTO_TCP)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
    return fd;
}

/* A machine whose shared memory is full, for us alone. */
static bool full;
int ftruncate(int fd, off_t bytes) {
    char entry[64], name[256] = "";
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    if (full && readlink(entry, name, sizeof name - 1) > 0 && strstr(name, "/dev/shm/sails-")) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_ftruncate, fd, bytes);
}

/* For four seconds. */
static void suspend(void) {
    char command[64];
    snprintf(command, sizeof command, "(sleep 4; kill -CONT %d) &", (int)getpid());
    CHECK(system(command) == 0, "%s", command);
    raise(SIGSTOP);
}

/* The memory that this machine's ranks share; only the watchdog knows where. */
static Board *board(void) {
    char line[512];
    void *p = NULL;
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f, "/proc/self/maps");
    while (!p && fgets(line, sizeof line, f))
        if (strstr(line, "/dev/shm/sails-") && sscanf(line, "%p", &p) != 1) p = NULL;
    fclose(f);
    CHECK(p, "no shared memory");
    return p;
}

/* A call as the others make it, but for the type of what it moves, which no caller of a Comm can
 * mistake so far. */
static void begin_other_type(Comm *c) {
    CommCall call = {.number = c->work.calls,
                     .op = COMM_SHARE,
                     .type = COMM_F32,
                     .what = "numbers",
                     .bytes = 4,
                     .phase = "test",
                     .deadline = DEADLINE};
    c->watch.begin(c->watch.context, &call);
    nap(60);
}

/* Rank 1's fault, or "root-..": rank 0's, at the tenth of twenty rounds. False: with err. */
static bool fault(const char *what, Comm *c, Err *err) {
    int x[4] = {0};
    if (strcmp(what, "killed") == 0) raise(SIGKILL);
    if (strcmp(what, "stopped") == 0 || strcmp(what, "stalled") == 0) raise(SIGSTOP);
    if (strcmp(what, "root-stopped") == 0) raise(SIGSTOP);
    if (strcmp(what, "root-suspended") == 0) suspend();
    if (strcmp(what, "crashed") == 0) CHECK(false, "a planted crash");
    if (strcmp(what, "exited") == 0) exit(0);
    if (strcmp(what, "left") == 0) c->via->close(), exit(0);
    if (strcmp(what, "unfinished") == 0) atomic_store(&board()->taken, 1 + comm_rank(c));
    if (strcmp(what, "late") == 0 || strcmp(what, "unfinished") == 0) nap(60);
    if (strcmp(what, "branch") == 0) comm_barrier(c, "another branch");
    if (strcmp(what, "size") == 0) comm_share(c, "numbers", x, 2);
    if (strcmp(what, "type") == 0) begin_other_type(c);
    if (strcmp(what, "slow") == 0) nap(0.7 * DEADLINE);
    for (int i = 0; strcmp(what, "busy") == 0 && i < 25; i++) comm_beat(c), nap(0.1 * DEADLINE);
    return strcmp(what, "failed") != 0 ||
           err_set(err, EXIT_NUMBERS, "step 3: loss nan, a planted failure");
}

static bool rounds(const char *what, Comm *c, Err *err) {
    int bad = strncmp(what, "root-", 5) == 0 ? 0 : 1;
    comm_phase(c, "test", 0, strcmp(what, "root-suspended") == 0 ? 20 * DEADLINE : DEADLINE);
    if (strcmp(what, "stalled") == 0) stall();
    if (strcmp(what, "all") == 0) return err_set(err, EXIT_INPUT, "a failure of all ranks");
    for (int i = 0; i < 20; i++) {
        int x[16] = {0};
        if (i == 10 && comm_rank(c) == bad && !fault(what, c, err)) return false;
        comm_share(c, "numbers", x, 4);
    }
    return true;
}

static int rank_body(const char *what) {
    static const Command command = {.name = "test"};
    Args a;
    Job job;
    Err err = {0};
    alarm(60); /* a job that does not end fails, too */
    narrow = strcmp(what, "root-suspended") == 0;
    full = strcmp(what, "full") == 0;
    args_defaults(&a);
    a.command = &command;
    job_begin(&job);
    interrupt_catch();
    bool ok = job_join(&job, &a, &err) && rounds(what, job.comm, &err);
    args_free(&a);
    return job_end(&job, ok, &err);
}

/* ------------------------------------------------------------------------------ what comes -- */

/* Processes of this test that still run as ranks. */
static int running(const char *what) {
    char command[128], text[32] = "";
    snprintf(command, sizeof command, "pgrep -fc 'test_job [r]ank-%s'", what);
    FILE *p = popen(command, "r");
    CHECK(p && fgets(text, sizeof text, p), "%s", command);
    pclose(p);
    return atoi(text);
}

/* What a job takes that ends by itself: a busy machine is slower to start one. */
static double usual;

static void test_cause(int n, const char *what, int code, const char *words) {
    char argument[64], line[1024];
    snprintf(argument, sizeof argument, "rank-%s", what);
    double start = clock_seconds();
    Ended e = ranks_self(n, argument);
    double took = clock_seconds() - start;
    int lines = ranks_lines(e.err, line, sizeof line);
    EXPECT(e.code == code, "%s: exit %d, expected %d: %s", what, e.code, code, e.err);
    EXPECT((*words ? lines == 1 && strstr(line, words) : lines == 0), "%s: %d lines of ours: %s",
           what, lines, e.err);
    if (usual == 0) usual = took;
    EXPECT(took <= usual + DEADLINE + 5, "%s: %.1f s, usually %.1f", what, took, usual);
    EXPECT(running(what) == 0, "%s: %d processes are left", what, running(what));
}

/* It says where it fell, then the others say who has gone. */
static void test_crash(void) {
    Ended e = ranks_self(3, "rank-crashed");
    EXPECT(e.code == 128 + SIGABRT && strstr(e.err, "a planted crash"), "crashed: exit %d: %s",
           e.code, e.err);
    EXPECT(running("crashed") == 0, "crashed: processes are left");
}

/* Before there is a watchdog: the ranks that come to say so do, in the same words. */
static void test_full(void) {
    Ended e = ranks_self(2, "rank-full");
    char line[1024];
    EXPECT(e.code == EXIT_INTERNAL && ranks_lines(e.err, line, sizeof line) >= 1 &&
               strstr(line, "shared memory") && strstr(line, "No space left on device"),
           "full: exit %d: %s", e.code, e.err);
    EXPECT(running("full") == 0, "full: processes are left");
}

/* What a verdict leaves behind: rank 1 has stopped at call k, which the others have begun. */
static void test_dump(void) {
    Ended e = ranks_self(3, "rank-stopped");
    char path[128] = "", line[256];
    const char *at = strstr(e.err, "--dumps ");
    EXPECT(at && sscanf(at, "--dumps %127s", path) == 1, "no file: %s", e.err);
    snprintf(line, sizeof line, "doctor --dumps %s", path);
    e = program_run(line);
    EXPECT(e.code == 0 && strstr(e.out, "stopped: rank 1 (") && strstr(e.out, "; without rank 1\n"),
           "doctor --dumps: exit %d: %s%s", e.code, e.out, e.err);
    remove(path);
    e = program_run("doctor --dumps tests/CMakeLists.txt");
    EXPECT(e.code == EXIT_INPUT && program_one_line(e.err, "tests/CMakeLists.txt"), "%s", e.err);
}

static void test_causes(void) {
    test_cause(3, "all", EXIT_INPUT, "sails: a failure of all ranks"); /* the usual one */
    test_cause(3, "busy", EXIT_DONE, "");
    test_cause(3, "failed", EXIT_NUMBERS, "sails: rank 1: step 3: loss nan, a planted failure");
    test_cause(3, "killed", 128 + SIGKILL, "sails: gone: rank 1 (");
    test_cause(3, "stopped", EXIT_RANK, "sails: stopped: rank 1 (");
    test_cause(3, "branch", EXIT_RANK, "sails: mismatched: rank 1 (");
    if (test_brief()) return;
    test_cause(2, "none", EXIT_DONE, "");
    test_cause(2, "slow", EXIT_DONE, "");
    test_cause(3, "exited", EXIT_INTERNAL, "sails: left: rank 1 (");
    ranks_end_mpi_alone(true);
    test_cause(3, "left", EXIT_RANK, "sails: left: rank 1 (");
    ranks_end_mpi_alone(false);
    test_cause(3, "late", EXIT_RANK, "sails: missing: rank 1 (");
    test_cause(3, "size", EXIT_RANK, "sails: mismatched: rank 1 (");
    test_cause(3, "type", EXIT_RANK, "(4 bytes of f32), where rank 0 (");
    test_cause(3, "stalled", EXIT_RANK, "sails: stopped: rank 1 (");
    test_cause(3, "unfinished", EXIT_RANK, "was about to say why the job has to end");
}

/* Each rank as if on a machine of its own. */
static void test_machines(void) {
    setenv("SAILS_MACHINE_RANKS", "1", 1); /* rank 0 hears of the others through its link */
    test_cause(3, "all", EXIT_INPUT, "sails: a failure of all ranks");
    test_cause(3, "busy", EXIT_DONE, "");
    test_cause(3, "failed", EXIT_NUMBERS, "sails: rank 1: step 3: loss nan");
    test_cause(3, "stopped", EXIT_RANK, "rank 1 (");
    test_cause(3, "late", EXIT_RANK, "sails: missing: rank 1 (");
    test_cause(3, "branch", EXIT_RANK, "sails: mismatched: rank ");
    test_cause(3, "killed", 128 + SIGKILL, "sails: gone: the machine of rank 1 (");
    test_cause(3, "root-stopped", EXIT_RANK, "sails: missing: the machine of rank 0 has said ");
    test_cause(3, "root-suspended", EXIT_DONE, "");
    setenv("SAILS_MACHINE_RANKS", "-2", 1); /* two machines, ranks 0 and 2 on the first */
    test_cause(4, "busy", EXIT_DONE, "");
    test_cause(4, "all", EXIT_INPUT, "sails: a failure of all ranks");
    test_cause(4, "late", EXIT_RANK, "sails: missing: rank 1 (");
    unsetenv("SAILS_MACHINE_RANKS");
}

int main(int argc, char **argv) {
    char folder[] =
        "/tmp/sails-test-job-whose-name-is-longer-than-anything-that-is-kept-for-a-word-XXXXXX";
    if (argc > 1 && strncmp(argv[1], "rank-", 5) == 0) return rank_body(argv[1] + 5);
    CHECK(mkdtemp(folder), "no temporary folder");
    setenv("SAILS_DUMPS", folder, 1);
    test_causes();
    if (!test_brief()) test_machines();
    test_crash();
    test_full();
    test_dump();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(system(command) == 0, "%s", command);
    return test_done("job");
}
