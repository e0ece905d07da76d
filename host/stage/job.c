/* job.c - joining and ending. */
#include "host/stage/job.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"
#include "kernels/check.h"

enum { MEET_SECONDS = 600, END_SECONDS = 60 };

void job_begin(Job *j) {
    *j = (Job){.launch = comm_launch()};
    if (j->launch.rank == 0) return;
    if (!freopen("/dev/null", "w", stdout)) fclose(stdout);
    progress_hide();
}

/* Different programs have other bits, and perhaps other calls; so have different settings. */
static bool same_everywhere(Comm *c, const Args *a, Err *err) {
    char hex[65];
    if (!files_sha256(hex, "/proc/self/exe", err) ||
        !agree_same(c, "the program itself", hex, sizeof hex, EXIT_USAGE, err) ||
        !agree_same(c, "the command", a->command->name, strlen(a->command->name), EXIT_USAGE, err))
        return false;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        char text[SETTING_KEY], key[SETTING_KEY];
        const char *value = setting_text(&settings_table[i], &a->s, text);
        setting_key(&settings_table[i], key);
        if (!agree_same(c, key, value, strlen(value), EXIT_USAGE, err)) return false;
    }
    return true;
}

/* Until there is a watchdog. MPI starts when all have come to it, and has no deadline for that: a
 * rank that has failed before leaves the others there, and not every launcher ends them. */
typedef struct Meeting {
    const CommLaunch *launch; /* borrowed from the Job */
    double deadline;
    _Atomic bool met;
    pthread_t thread;
} Meeting;

/* Counts naps, not time: a process that is suspended meanwhile is not late. */
static void *look_at_clock(void *meeting) {
    static const struct timespec nap = {0, 20000000};
    Meeting *m = meeting;
    for (double waited = 0; !atomic_load(&m->met); waited += 1e-9 * (double)nap.tv_nsec) {
        if (waited >= m->deadline) {
            if (m->launch->local_rank == 0) /* once on each machine */
                fprintf(stderr,
                        "sails: rank %d: not all of the %d ranks that %s has started have met "
                        "within %.4g s; one of them has failed before, or cannot be reached\n",
                        m->launch->rank, m->launch->size, m->launch->by, m->deadline);
            _exit(EXIT_RANK);
        }
        nanosleep(&nap, NULL);
    }
    return NULL;
}

static void meeting_begin(Meeting *m, const Job *j, double deadline) {
    *m = (Meeting){.launch = &j->launch, .deadline = deadline > 0 ? deadline : MEET_SECONDS};
    if (!j->launch.by) return;
    sigset_t all, old; /* signals are for the program's own thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    CHECK(pthread_create(&m->thread, NULL, look_at_clock, m) == 0, "no thread for the clock");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void meeting_end(Meeting *m) {
    atomic_store(&m->met, true);
    if (m->launch->by) pthread_join(m->thread, NULL);
}

bool job_join(Job *j, const Args *a, Err *err) {
    Meeting m;
    meeting_begin(&m, j, a->s.run.deadline);
    const char *why = comm_open(&j->comm);
    comm_deadline(j->comm, a->s.run.deadline);
    bool ok = why ? err_set(err, EXIT_USAGE, "%s", why)
                  : !j->comm || watchdog_open(&j->watchdog, j->comm, err);
    meeting_end(&m);
    return ok && (!j->comm || same_everywhere(j->comm, a, err));
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
        if (j->launch.rank > 0) snprintf(rank, sizeof rank, "rank %d: ", j->launch.rank);
        if (j->launch.local_rank == 0) say(rank, err); /* once on each machine */
        return err->code;
    }
    if (j->watchdog) together = watchdog_failed(j->watchdog, err, agree_failed(), &speaks);
    if (!together) snprintf(rank, sizeof rank, "rank %d: ", comm_rank(j->comm));
    if (speaks) say(rank, err);
    if (!together) comm_abort(j->comm, err->code);
    meet_to_end(j);
    return err->code;
}
