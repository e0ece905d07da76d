/* job.c - joining and ending. */
#include "host/stage/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

enum { END_SECONDS = 60 };

void job_begin(Job *j) {
    *j = (Job){.launch = comm_launch()};
    if (j->launch.rank == 0) return;
    if (!freopen("/dev/null", "w", stdout)) fclose(stdout);
    progress_hide();
}

/* Different programs have other bits, and perhaps other calls. */
static bool same_program(Comm *c, Err *err) {
    enum { HEX = 65 };
    int rank = comm_rank(c);
    char *hex = mem_array((size_t)comm_size(c), HEX);
    Err mine; /* a rank that cannot read its own file is of no program */
    if (!files_sha256(hex + rank * HEX, "/proc/self/exe", &mine)) hex[rank * HEX] = 0;
    comm_share(c, "hashes of the program", hex, HEX);
    bool ok = strcmp(hex, hex + rank * HEX) == 0;
    free(hex);
    return ok || err_set(err, EXIT_USAGE, "rank %d runs another sails than rank 0", rank);
}

bool job_join(Job *j, Err *err) {
    const char *why = comm_open(&j->comm);
    j->refused = why;
    if (why) return err_set(err, EXIT_USAGE, "%s", why);
    return !j->comm || (watchdog_open(&j->watchdog, j->comm, err) && same_program(j->comm, err));
}

/* One process of each machine speaks where the ranks could not meet, rank 0 where they never
 * tried. */
static bool alone_speaks(const Job *j) {
    return j->refused ? j->launch.local_rank == 0 : j->launch.rank == 0;
}

static void say(const char *rank, const Err *err) {
    if (!interrupt_unread()) fprintf(stderr, "sails: %s%s\n", rank, err->text);
}

static void meet_to_end(Job *j) {
    comm_phase(j->comm, "end", 0, END_SECONDS);
    if (j->watchdog) watchdog_done(j->watchdog);
    comm_close(j->comm);
    watchdog_close(j->watchdog);
}

int job_end(Job *j, bool ok, const Err *err) {
    char rank[32] = "";
    bool speaks = true, together = false;
    if (ok) return meet_to_end(j), EXIT_DONE;
    if (!j->comm) {
        if (alone_speaks(j)) say("", err);
        return err->code;
    }
    if (j->watchdog) together = watchdog_failed(j->watchdog, err, &speaks);
    if (!together) snprintf(rank, sizeof rank, "rank %d: ", comm_rank(j->comm));
    if (speaks) say(rank, err);
    if (!together) comm_abort(j->comm, err->code);
    meet_to_end(j);
    return err->code;
}
