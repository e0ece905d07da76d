/* checkpoints.c - saves beside training, one at a time. */
#include "host/stage/checkpoints.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/base/files.h"
#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"
#include "host/stage/agree.h"

struct Checkpoints {
    CheckpointPlan plan;
    Comm *comm;
    Checkpoint now; /* of the save in flight; its copy's memory serves all */
    pthread_t thread;
    bool writing; /* a save is in flight */
    bool ok;      /* what became of the last one */
    Err err;
    int failed;   /* saves, in a row */
    size_t whole; /* of the newest checkpoint that is whole; 0: none is */
    double last;  /* clock then */
};

static void *write_now(void *context) {
    Checkpoints *c = context;
    c->ok = checkpoint_write(&c->now, c->plan.kept.folder, &c->err);
    if (!c->ok) return NULL;
    snapshot_prune(c->plan.kept.folder, c->plan.keep, c->whole, c->now.totals.steps);
    c->whole = c->now.totals.steps;
    return NULL;
}

static void settle(Checkpoints *c) {
    c->failed = c->ok ? 0 : c->failed + 1;
    if (c->failed == 1) fprintf(stderr, "sails: no checkpoint was saved: %s\n", c->err.text);
}

/* Seconds that a save may take: by its bytes, on a slow disk. */
static double patience(const Checkpoints *c) {
    enum { LEAST = 600, BYTES_A_SECOND = 10000000 };
    return LEAST + (double)checkpoint_state_bytes(c->now.params) / BYTES_A_SECOND;
}

/* The other ranks wait meanwhile. */
static void join_thread(Checkpoints *c) {
    double start = clock_seconds();
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        if (pthread_timedjoin_np(c->thread, NULL, &until) == 0) return;
        if (clock_seconds() - start < patience(c)) comm_beat(c->comm);
    }
}

/* Waits for the save in flight. */
static bool finish(Checkpoints *c, Err *err) {
    if (c->writing) {
        join_thread(c);
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
    if (checkpoint_copy_state(&c->now)) {
        start(c);
    } else if (c->now.params->ranks) {
        c->ok = err_set(&c->err, EXIT_MEMORY, "no memory for %zu bytes of a copy of the state",
                        checkpoint_state_bytes(c->now.params));
        settle(c);
    } else {
        fprintf(stderr, "sails: no memory for a copy of the state: training waits for the disk\n");
        start(c);
    }
    return true;
}

/* The other ranks' part in it. */
static void help(Checkpoints *c) {
    if (c->now.params->ranks) checkpoint_copy_state(&c->now);
}

static bool due(const Checkpoints *c, size_t steps) {
    return (c->plan.steps > 0 && steps % (size_t)c->plan.steps == 0) ||
           (c->plan.minutes > 0 && comm_root(c->comm) &&
            clock_seconds() - c->last >= 60 * c->plan.minutes);
}

Wish checkpoints_wish(const Checkpoints *c, size_t steps) {
    return c ? (Wish){interrupt_requested(), due(c, steps)} : (Wish){0};
}

/* What was saved last is on disk, or the stop is no stop that can be resumed from. */
static bool safe_to_stop(Checkpoints *c, const char *signal_name, Err *err) {
    if (!finish(c, err)) return false;
    if (!c->failed) return true;
    *err = c->err;
    return err_prefix(err, "stopped by %s, and no checkpoint was saved", signal_name);
}

bool checkpoints_before_step(Checkpoints *c, const Metrics *m, const Wish *wish, Err *err) {
    if (!c) return true;
    size_t steps = m->totals.steps;
    bool root = comm_root(c->comm);
    if (wish->signal || wish->save) { /* of the step before, so no state is saved twice */
        if (!checkpoint_agree(c->now.params, "what is trained", err)) return false;
        if (!root)
            help(c);
        else if (!save(c, m, err))
            return false;
        c->last = clock_seconds();
    }
    if (!wish->signal) return true;
    char name[16], after[48];
    snprintf(name, sizeof name, "SIG%s", sigabbrev_np(wish->signal));
    snprintf(after, sizeof after, "after step %zu", steps);
    comm_phase(c->comm, "checkpoint", (int)steps, patience(c));
    bool ok = !root || safe_to_stop(c, name, err);
    return agree_root(c->comm, ok, err) && wish_stop(wish, after, c->plan.kept.again, err);
}

/* Rank 0's tensors to all, a piece at a time: its own, or of shared ones the state that it has
 * read.
 */
static void hand_out(Comm *comm, Params *p, const float *state) {
    enum { PIECE = 1 << 20 };
    float *piece = mem_array(PIECE, sizeof *piece);
    for (enum ParamKind kind = 0; kind < PARAM_KINDS; kind++)
        for (size_t i = 0; i < p->size; i += PIECE) {
            size_t n = p->size - i < PIECE ? p->size - i : PIECE;
            if (comm_root(comm) && !p->ranks) params_get(p, kind, i, n, piece);
            if (state) memcpy(piece, state + (size_t)kind * p->size + i, n * sizeof *piece);
            comm_broadcast(comm, "a checkpoint's tensors", piece, n * sizeof *piece);
            if (!comm_root(comm) || p->ranks) params_set(p, kind, i, n, piece);
        }
    free(piece);
}

bool checkpoints_missing(const char *result, Err *err) {
    static const char *const name[] = {"adapter_model.safetensors", "model.safetensors",
                                       "model.safetensors.index.json"};
    bool ok = true;
    for (int i = 0; i < 3 && result && ok; i++) {
        char *path = files_join(result, name[i]);
        if (files_exists(path))
            ok = err_set(err, EXIT_USAGE,
                         "%s: a finished result, with no checkpoint to go on from; remove it to "
                         "begin anew, or choose another --out",
                         path);
        free(path);
    }
    return ok;
}

static bool find(Checkpoints *c, bool *found, Err *err) {
    if (!checkpoint_read(&c->now, found, c->plan.kept.folder, err)) return false;
    if (!*found && !checkpoints_missing(c->plan.result, err)) return false;
    if (*found)
        fprintf(stderr, "sails: %s: going on after step %zu\n", c->plan.kept.folder,
                c->now.totals.steps);
    else if (c->plan.kept.expected)
        fprintf(stderr, "sails: %s: nothing to resume; beginning at step 1\n", c->plan.kept.folder);
    return true;
}

static bool resume(Checkpoints *c, Metrics *m, Err *err) {
    bool found = false, root = comm_root(c->comm);
    comm_phase(c->comm, "resume", 0, patience(c));
    if (!agree_root(c->comm, !root || find(c, &found, err), err)) return false;
    comm_broadcast(c->comm, "is there a checkpoint", &found, sizeof found);
    if (!found) return true;
    comm_broadcast(c->comm, "totals", &c->now.totals, sizeof c->now.totals);
    if (c->comm) hand_out(c->comm, c->now.params, c->now.params->ranks ? c->now.state : NULL);
    if (!root) params_sync(c->now.params);
    params_renew(c->now.params);
    c->whole = c->now.totals.steps;
    return metrics_resume(m, &c->now.totals, c->now.lines, c->now.nlines, err);
}

/* Would a new run mix with an old one? */
static bool is_free(const CheckpointPlan *plan, Err *err) {
    return plan->resume || snapshot_count(plan->kept.folder) == 0 ||
           err_set(err, EXIT_USAGE,
                   "%s: has checkpoints of an earlier run; --resume goes on from them, removing "
                   "the folder begins anew",
                   plan->kept.folder);
}

static void release(Checkpoints *c) {
    checkpoint_free(&c->now);
    free(c);
}

bool checkpoints_open(Checkpoints **to, const CheckpointPlan *plan, Params *p, Metrics *m,
                      Err *err) {
    Comm *comm = p->ex->comm;
    Checkpoints *c = mem_array(1, sizeof *c);
    c->plan = *plan;
    c->comm = comm;
    c->now = (Checkpoint){.run = plan->kept.run, .maker = plan->kept.maker, .params = p};
    c->last = clock_seconds();
    if (agree_root(comm, !comm_root(comm) || is_free(plan, err), err) &&
        (!plan->resume || resume(c, m, err))) {
        if (comm_root(comm)) snapshot_sweep(plan->kept.folder);
        *to = c;
        return true;
    }
    release(c);
    return false;
}

bool checkpoints_close(Checkpoints *c, Err *err) {
    if (!c) return true;
    bool ok = finish(c, err);
    release(c);
    return ok;
}
