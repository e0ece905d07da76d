/* ranks.h - several ranks of the real program, or of a test itself, under mpirun. */
#ifndef SAILS_TEST_RANKS_H
#define SAILS_TEST_RANKS_H

#include "tests/program.h"

/* For a test that runs as root, on fewer processors than ranks. Leaks are MPI's own. */
static inline void ranks_environment(void) {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
    setenv("OMPI_MCA_orte_base_help_aggregate", "1", 1);
    setenv("PRTE_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    setenv("OMP_NUM_THREADS", "1", 0);
}

/* n ranks of one line of words, of which SAILS stands for the program. */
static inline Program ranks_start(int n, const char *line) {
    char text[8192];
    ranks_environment();
    CHECK(
        snprintf(text, sizeof text, "mpirun --oversubscribe -np %d %s", n, line) < (int)sizeof text,
        "%s", line);
    return program_start_line(text, NULL);
}

static inline Ended ranks_run(int n, const char *line) {
    Program p = ranks_start(n, line);
    return program_end(&p);
}

/* For a rank that ends MPI alone. Open MPI 4.1 has the others meet it there: should the job be
 * ended before they come, its mpirun may wait for itself for ever, or that rank crash. */
static inline void ranks_end_mpi_alone(bool alone) {
    setenv("OMPI_MCA_async_mpi_finalize", alone ? "1" : "0", 1);
}

/* The lines of ours among those of mpirun: how many, and the first. */
static inline int ranks_lines(const char *err, char *first, size_t room) {
    int n = 0;
    *first = 0;
    for (const char *at = err; (at = strstr(at, "sails: ")); at++) {
        if (at > err && at[-1] != '\n') continue;
        if (n++ == 0) snprintf(first, room, "%.*s", (int)strcspn(at, "\n"), at);
    }
    return n;
}

/* Runs this very test as n ranks, with an argument that says what they do. */
static inline Ended ranks_self(int n, const char *what) {
    char line[512], self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(len > 0, "/proc/self/exe");
    snprintf(line, sizeof line, "%.*s %s", (int)len, self, what);
    return ranks_run(n, line);
}

#endif
