/* job.c - joining and ending. */
#include "host/stage/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "host/cli/command.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"

enum { END_SECONDS = 60 };

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

bool job_join(Job *j, const Args *a, Err *err) {
    const char *why = comm_open(&j->comm);
    if (why) return err_set(err, EXIT_USAGE, "%s", why);
    comm_deadline(j->comm, a->s.run.deadline);
    return !j->comm ||
           (watchdog_open(&j->watchdog, j->comm, err) && same_everywhere(j->comm, a, err));
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
