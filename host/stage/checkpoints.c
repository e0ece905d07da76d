/* checkpoints.c - saves beside training, one at a time. */
#include "host/stage/checkpoints.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

struct Checkpoints {
    CheckpointPlan plan;
    Checkpoint now; /* of the save in flight; its copy's memory serves all */
    pthread_t thread;
    bool writing; /* a save is in flight */
    bool ok;      /* what became of the last one */
    Err err;
    int failed;   /* saves, in a row */
    size_t saved; /* steps at the last save or at the start */
    double last;  /* clock then */
};

static void *write_now(void *context) {
    Checkpoints *c = context;
    c->ok = checkpoint_write(&c->now, c->plan.folder, &c->err);
    if (c->ok) checkpoint_prune(c->plan.folder, c->plan.keep);
    return NULL;
}

static void settle(Checkpoints *c) {
    c->failed = c->ok ? 0 : c->failed + 1;
    if (c->failed == 1) fprintf(stderr, "sails: no checkpoint was saved: %s\n", c->err.text);
}

/* Waits for the save in flight. */
static bool finish(Checkpoints *c, Err *err) {
    if (c->writing) {
        pthread_join(c->thread, NULL);
        c->writing = false;
        settle(c);
    }
    if (c->failed < 2) return true;
    *err = c->err;
    return err_prefix(err, "the second checkpoint in a row was not saved");
}

/* Beside training, or here where no thread can be had. Signals are for the threads that train. */
static void start(Checkpoints *c) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool beside = c->now.state && pthread_create(&c->thread, NULL, write_now, c) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    c->writing = beside;
    if (beside) return;
    write_now(c);
    settle(c);
}

/* The lines of metrics.jsonl that are there by now. */
static bool read_lines(Checkpoint *now, const Metrics *m, Err *err) {
    free(now->lines);
    now->lines = NULL, now->nlines = 0;
    return !m->path || files_read(&now->lines, &now->nlines, m->path, SIZE_MAX / 2, err);
}

static bool save(Checkpoints *c, const Metrics *m, Err *err) {
    if (!finish(c, err) || !read_lines(&c->now, m, err)) return false;
    c->now.totals = m->totals;
    if (!checkpoint_copy_state(&c->now))
        fprintf(stderr, "sails: no memory for a copy of the state: training waits for the disk\n");
    c->saved = m->totals.steps;
    c->last = clock_seconds();
    start(c);
    return true;
}

static bool due(const Checkpoints *c, size_t steps) {
    return (c->plan.steps > 0 && steps % (size_t)c->plan.steps == 0) ||
           (c->plan.minutes > 0 && clock_seconds() - c->last >= 60 * c->plan.minutes);
}

bool checkpoints_before_step(Checkpoints *c, const Metrics *m, Err *err) {
    const char *signal_name = interrupt_requested();
    size_t steps = m->totals.steps;
    if ((signal_name || due(c, steps)) && steps > c->saved && !save(c, m, err)) return false;
    if (!signal_name) return true;
    if (!finish(c, err)) return false;
    if (c->failed) {
        *err = c->err;
        return err_prefix(err, "stopped by %s, and no checkpoint was saved", signal_name);
    }
    return err_set(err, EXIT_STOPPED,
                   "stopped by %s after step %zu; the same with --resume goes on", signal_name,
                   steps);
}

static bool resume(Checkpoints *c, Metrics *m, Err *err) {
    bool found;
    if (!checkpoint_read(&c->now, &found, c->plan.folder, err)) return false;
    if (!found) {
        fprintf(stderr, "sails: %s: nothing to resume; beginning at step 1\n", c->plan.folder);
        return true;
    }
    fprintf(stderr, "sails: %s: going on after step %zu\n", c->plan.folder, c->now.totals.steps);
    c->saved = c->now.totals.steps;
    return metrics_resume(m, &c->now.totals, c->now.lines, c->now.nlines, err);
}

bool checkpoints_open(Checkpoints **to, const CheckpointPlan *plan, Params *p, Metrics *m,
                      Err *err) {
    size_t there = checkpoint_count(plan->folder);
    if (there && !plan->resume)
        return err_set(
            err, EXIT_USAGE,
            "%s: has checkpoints of an earlier run; --resume goes on from them, removing "
            "the folder begins anew",
            plan->folder);
    Checkpoints *c = mem_array(1, sizeof *c);
    c->plan = *plan;
    c->now = (Checkpoint){.run = plan->run, .maker = plan->maker, .params = p};
    c->last = clock_seconds();
    interrupt_as_request();
    if (!plan->resume || resume(c, m, err)) {
        checkpoint_sweep(plan->folder);
        *to = c;
        return true;
    }
    checkpoint_free(&c->now);
    free(c);
    return false;
}

bool checkpoints_close(Checkpoints *c, Err *err) {
    if (!c) return true;
    bool ok = finish(c, err);
    checkpoint_free(&c->now);
    free(c);
    return ok;
}
