/* A disk that fails under a checkpoint: every call of a save fails, falls short, is the program's
 * last, or was never on the disk when the power came back. */
#include "host/cli/command.h"

#include "tests/checkpoint_run.h"
#include "tests/crash.h"

/* Does a call concern checkpoints, or the folders that they are in? */
static bool counts(const Call *c) {
    return strncmp(c->path, PLACE, sizeof PLACE - 1) == 0 || strcmp(c->path, "run") == 0 ||
           strcmp(c->path, ".") == 0;
}

static bool unfinished(const char *path) {
    return strstr(path, ".tmp.");
}

static bool of_step(const Call *c, int step) {
    char name[32];
    snprintf(name, sizeof name, "/step-%08d", step);
    return strstr(c->path, name);
}

/* ------------------------------------------------------------------------------ a sound run -- */

static Log sound;            /* the calls of a run on which nothing fails */
static size_t second, third; /* where those of its second and third save begin */

static Answer note(void *context, const Call *c) {
    if (counts(c)) log_add(context, c);
    return (Answer){.what = DISK_PASS};
}

/* Is it the first line of a run's metrics? By then signals are requests. */
static bool first_line(const Call *c) {
    static const char of_step[] = "{\"step\":1,";
    return c->kind == CALL_WRITE && strncmp(c->path, "run/tmp.", 8) == 0 && c->n > sizeof of_step &&
           memcmp(c->data, of_step, sizeof of_step - 1) == 0;
}

static Answer note_and_stop(void *context, const Call *c) {
    Answer a = note(context, c);
    if (first_line(c)) a.signal = SIGUSR1;
    return a;
}

static void begin_of(size_t *at, int step) {
    for (*at = 0; *at < sound.n && !of_step(&sound.call[*at], step);) ++*at;
    CHECK(*at < sound.n, "no call for step %d", step);
}

/* False: the kernel does not show calls to the test. */
static bool run_sound(void) {
    forget("run");
    Ended e = disk_run(SAVING "--out run", note, &sound);
    if (e.code == 126) return false;
    CHECK(e.code == 0 && !*e.err, "exit %d: %s", e.code, e.err);
    begin_of(&second, 2), begin_of(&third, 3);
    expect_result("a sound run");
    expect_newest("a sound run", SAVES);
    return true;
}

/* --------------------------------------------------------------------------- calls that fail -- */

/* What is to happen at which call that counts, and what happened. */
typedef struct Fault {
    size_t at, now;
    Answer answer;
    bool for_ever; /* at all later ones too */
    bool half;     /* first a write falls short; what fails is the rest */
    bool stop;     /* the run is asked to stop after step 2 */
    Call hit;
} Fault;

static Answer plant(void *context, const Call *c) {
    Fault *f = context;
    if (!counts(c))
        return (Answer){.what = DISK_PASS, .signal = f->stop && first_line(c) ? SIGUSR1 : 0};
    size_t now = f->now++;
    if (now < f->at || (now > f->at && !f->for_ever)) return (Answer){.what = DISK_PASS};
    if (now == f->at) f->hit = *c;
    if (f->half && c->kind == CALL_WRITE && c->n > 1) {
        f->half = false, f->at++;
        return (Answer){.what = DISK_SHORT, .n = c->n / 2};
    }
    return f->answer;
}

static Ended run_with(Fault *f, const char *line) {
    forget("run");
    return disk_run(line, plant, f);
}

/* Must a save fail with this call? To make a folder that is there, and to remove what is old, may
 * fail. */
static bool needed(const Call *c) {
    switch (c->kind) {
        case CALL_MKDIR:
        case CALL_RENAME:
            return unfinished(c->path);
        case CALL_UNLINK:
        case CALL_RMDIR:
            return false;
        default:
            return true;
    }
}

/* So many saves in a row have failed, and that was said: once; the second is the error. */
static void expect_said(const char *after, const Ended *e, int failed, int error) {
    char why[64];
    snprintf(why, sizeof why, ": %s; ", strerror(error));
    EXPECT(e->code == (failed > 1 ? EXIT_INTERNAL : 0), "%s: exit %d: %s", after, e->code, e->err);
    EXPECT(count_of(e->err, "\n") == failed, "%s: expected %d lines: %s", after, failed, e->err);
    EXPECT(count_of(e->err, why) == failed, "%s: expected \"%s\" in: %s", after, why, e->err);
    EXPECT(count_of(e->err, "sails: no checkpoint was saved: ") == (failed > 0), "%s: %s", after,
           e->err);
    EXPECT(
        count_of(e->err, "sails: the second checkpoint in a row was not saved: ") == (failed > 1),
        "%s: %s", after, e->err);
}

static const char *says(const Fault *f, const char *what) {
    static char text[512];
    snprintf(text, sizeof text, "%s at call %zu (%s %s)", what, f->at, disk_call_name(&f->hit),
             f->hit.path);
    return text;
}

/* One call of the second save fails: a warning, and the run goes on; the third one finds and leaves
 * everything in order. */
static void fail_once(size_t at, int error, bool half) {
    Fault f = {.at = at, .answer = {.what = DISK_FAIL, .error = error}, .half = half};
    Ended e = run_with(&f, SAVING "--out run");
    const char *after = says(&f, half ? "half a write, then an error" : strerror(error));
    expect_said(after, &e, needed(&f.hit), error);
    expect_result(after);
    expect_newest(after, SAVES);
    EXPECT(run_saved() == 1u << SAVES, "%s: checkpoints %x", after, run_saved());
}

static void test_fail_once(void) {
    for (size_t at = second; at < third; at++) {
        if (test_brief() && at % 4) continue;
        fail_once(at, at % 2 ? EIO : ENOSPC, false);
        if (run_long()) fail_once(at, at % 2 ? ENOSPC : EIO, false);
        if (sound.call[at].kind == CALL_WRITE) fail_once(at, ENOSPC, true);
    }
}

/* The last thing of a run: its results are in their folder, which may not have reached the disk. */
static void test_results(void) {
    size_t last = sound.n - 1;
    while (last > third &&
           !(sound.call[last].kind == CALL_SYNC && strcmp(sound.call[last].path, "run") == 0))
        last--;
    CHECK(last > third, "the results' folder is not synced");
    Fault f = {.at = last, .answer = {.what = DISK_FAIL, .error = EIO}};
    Ended e = run_with(&f, SAVING "--out run");
    EXPECT(e.code == EXIT_INTERNAL && program_one_line(e.err, "run: "), "%s: exit %d: %s",
           says(&f, "an error"), e.code, e.err);
    expect_result("results that were not synced");
}

static Answer halve(void *context, const Call *c) {
    size_t *writes = context;
    if (!counts(c) || c->kind != CALL_WRITE || c->n < 2) return (Answer){.what = DISK_PASS};
    ++*writes;
    return (Answer){.what = DISK_SHORT, .n = c->n / 2};
}

/* Writes that take half of what they get are no failure. */
static void test_short_writes(void) {
    size_t writes = 0;
    forget("run");
    Ended e = disk_run(SAVING "--out run", halve, &writes);
    expect_said("short writes", &e, 0, 0);
    expect_result("short writes");
    expect_newest("short writes", SAVES);
    EXPECT(writes > 50, "%zu short writes", writes);
}

/* One save was not made, which is no error; that the results did not reach the disk is. */
static void expect_no_results(const char *after, const Ended *e) {
    EXPECT(e->code == EXIT_INTERNAL && count_of(e->err, "\n") == 2 &&
               count_of(e->err, "sails: no checkpoint was saved: ") == 1 &&
               count_of(e->err, "sails: run: cannot write: Input/output error; ") == 1,
           "%s: exit %d: %s", after, e->code, e->err);
}

/* From one call on the disk takes nothing more: two saves fail, which ends the run; where the first
 * was at its end, one, and then the results. On a sound disk it goes on. */
static void test_fail_for_ever(void) {
    size_t stride = run_long() ? 1 : test_brief() ? 9 : 4, removal = second;
    while (sound.call[removal].kind != CALL_RENAME || unfinished(sound.call[removal].path))
        removal++;
    for (size_t at = second; at < third; at += stride) {
        Fault f = {.at = at, .answer = {.what = DISK_FAIL, .error = EIO}, .for_ever = true};
        Ended e = run_with(&f, SAVING "--out run");
        const char *after = says(&f, "a broken disk");
        bool saved = run_saved() >> 2 & 1;
        if (at < removal)
            expect_said(after, &e, 2, EIO);
        else
            expect_no_results(after, &e);
        int taken = run_resume(after);
        EXPECT(taken == (saved ? 2 : 1), "%s: goes on after step %d", after, taken);
    }
}

/* ---------------------------------------------------------------------------------- a stop -- */

#define STOPPING RUN "--checkpoint-every 1000 --out run"

/* The last call of a kind in the first save, which is that of a stop too. */
static size_t last_of(enum CallKind kind) {
    size_t at = second - 1;
    while (at > 0 && (sound.call[at].kind != kind || !needed(&sound.call[at]))) at--;
    return at;
}

/* Asked to stop, it saves, and that fails: then the state is not safe, and the code says so. */
static void test_failed_stop(void) {
    static const enum CallKind kind[] = {CALL_MKDIR, CALL_WRITE, CALL_SYNC, CALL_RENAME};
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        Fault f = {
            .at = last_of(kind[i]), .answer = {.what = DISK_FAIL, .error = EIO}, .stop = true};
        Ended e = run_with(&f, STOPPING);
        const char *after = says(&f, "a stop that fails");
        EXPECT(e.code == EXIT_INTERNAL && f.hit.kind == kind[i], "%s: exit %d: %s", after, e.code,
               e.err);
        EXPECT(strstr(e.err, "sails: stopped by SIGUSR1, and no checkpoint was saved: "), "%s: %s",
               after, e.err);
        expect_nothing_left(after);
        run_resume(after);
    }
}

/* -------------------------------------------------------------------------------- kill -9 -- */

/* At which byte of the second save's writes. */
typedef struct Death {
    size_t at, now;
} Death;

static Answer die_at(void *context, const Call *c) {
    Death *d = context;
    if (c->kind != CALL_WRITE || !counts(c) || !of_step(c, 2)) return (Answer){.what = DISK_PASS};
    size_t before = d->now;
    d->now += c->n;
    if (d->now <= d->at) return (Answer){.what = DISK_PASS};
    return (Answer){.what = DISK_KILL, .n = d->at - before};
}

static void test_killed(void) {
    size_t bytes = 0, times = run_long() ? 200 : 6;
    for (size_t i = second; i < third; i++) bytes += sound.call[i].n;
    for (size_t i = 0; i < times; i++) {
        Death d = {.at = (2 * i + 1) * bytes / (2 * times)};
        char after[64];
        snprintf(after, sizeof after, "kill -9 after byte %zu of %zu", d.at, bytes);
        forget("run");
        Ended e = disk_run(SAVING "--out run", die_at, &d);
        EXPECT(e.code == 128 + SIGKILL, "%s: exit %d: %s", after, e.code, e.err);
        int taken = run_resume(after);
        EXPECT(taken == 1, "%s: goes on after step %d", after, taken);
    }
}

/* ----------------------------------------------------------------------- the power is gone -- */

/* States of the disk that were tried, and what a run went on from. */
typedef struct Tried {
    uint64_t key;
    int taken;
} Tried;
static Tried *tried;
static size_t ntried, tried_capacity;

/* A sum over files and folders: in which order they come is nothing to a run. Neither is what is in
 * unfinished folders: it removes them unread. */
static void add_key(void *context, const char *path, const Buf *bytes) {
    const uint64_t prime = 1099511628211u; /* FNV-1a */
    uint64_t *key = context, h = 14695981039346656037u;
    const char *tmp = strstr(path, ".tmp.");
    if (tmp && strchr(tmp, '/')) return;
    size_t n = tmp ? (size_t)(tmp - path) + 1 : strlen(path);
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)path[i]) * prime;
    h = (h ^ (bytes != NULL)) * prime;
    for (size_t i = 0; bytes && i < bytes->n; i++) h = (h ^ (unsigned char)bytes->p[i]) * prime;
    *key += h;
}

static void put_on_disk(void *context, const char *path, const Buf *bytes) {
    (void)context;
    if (bytes)
        write_bytes(path, bytes);
    else
        CHECK(mkdir(path, 0777) == 0, "%s: %s", path, strerror(errno));
}

/* What a run takes of a state. Those tried before are known; new ones count down `room`, and below
 * none the answer is -1. */
static int taken_from(const char *what, const Left *left, const Crash *c, size_t *room) {
    uint64_t key = 0;
    left_walk(left, c, 0, "", add_key, &key);
    for (size_t i = 0; i < ntried; i++)
        if (tried[i].key == key) return tried[i].taken;
    if (*room == 0) return -1;
    --*room;
    forget("run");
    left_walk(left, c, 0, "", put_on_disk, NULL);
    tried = mem_grow(tried, &tried_capacity, ntried + 1, sizeof *tried);
    tried[ntried++] = (Tried){key, run_resume(what)};
    return tried[ntried - 1].taken;
}

/* Before a call, which saves were finished for certain, as later ones had begun, or older ones were
 * being removed; and which was the last that may be there. */
static void steps_at(int *surely, int *newest, const Log *log, size_t at) {
    for (size_t i = 0; i < at; i++) {
        const Call *c = &log->call[i];
        bool place = c->kind == CALL_RENAME && unfinished(c->path) && !unfinished(c->to);
        bool later = counts(c) && c->kind != CALL_SYNC && !place && !of_step(c, *newest);
        if (*newest > *surely && later) *surely = *newest;
        if (place && strstr(c->to, "/step-")) *newest = atoi(strrchr(c->to, '-') + 1);
    }
}

/* The fates of the open changes, as digits of a number; false: all have been. */
static bool next_fates(enum Fate *fate, const Crash *c, const size_t *open, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((int)++fate[open[i]] < crash_fates(&c->change[open[i]])) return true;
        fate[open[i]] = IS_THERE;
    }
    return false;
}

/* Of very many, some. */
static void some_fates(enum Fate *fate, const Crash *c, const size_t *open, size_t n, size_t i) {
    for (size_t k = 0; k < n; k++) {
        double x = 0.5 + 0.5 * test_noise(i, k);
        fate[open[k]] = (enum Fate)(x * 0.999999 * crash_fates(&c->change[open[k]]));
    }
}

/* The states that a crash before call `at` may leave: usually a few that no earlier one may. */
static void crash_at(const Log *log, const Crash *c, size_t at, int surely, int newest,
                     const char *what) {
    enum { MOST = 3000, USUAL = 2 };
    static enum Fate fate[CRASH_CALLS];
    static Left left;
    size_t open[CRASH_CALLS], n = crash_open(open, c, at), all = 1,
                              room = run_long()     ? MOST
                                     : test_brief() ? at % 4 == 0
                                                    : USUAL;
    const Call *last = &log->call[at ? at - 1 : 0];
    int failures = test_failures;
    for (size_t i = 0; i < n && all <= MOST; i++) all *= (size_t)crash_fates(&c->change[open[i]]);
    memset(fate, 0, sizeof fate);
    steps_at(&surely, &newest, log, at);
    if (at == log->n) surely = newest; /* the program has ended, and said that it was saved */
    for (size_t i = 0; i < MOST && test_failures == failures; i++) {
        char after[256];
        snprintf(after, sizeof after, "%s, a crash after call %zu of %zu (%s %.120s), state %zu",
                 what, at, log->n, disk_call_name(last), last->path, i);
        crash_left(&left, c, at, fate);
        int taken = taken_from(after, &left, c, &room);
        EXPECT(taken < 0 || (taken >= surely && taken <= newest),
               "%s: expected to go on after step %d to %d, not %d", after, surely, newest, taken);
        if (all > MOST)
            some_fates(fate, c, open, n, i + 1);
        else if (!next_fates(fate, c, open, n))
            break;
    }
}

static size_t crash_all(const Log *log, Crash *c, int surely, int newest, const char *what) {
    size_t before = ntried;
    int failures = test_failures;
    crash_calls(c, log);
    for (size_t at = 0; at <= log->n && test_failures == failures; at++)
        crash_at(log, c, at, surely, newest, what);
    crash_free(c);
    return ntried - before;
}

/* As a killed run of two steps more leaves it: the newest is torn. */
static void make_torn(int torn) {
    forget("run");
    CHECK(system("mkdir run && cp -r saved/checkpoints run") == 0, "run");
    for (int step = 1; step <= SAVES; step++) {
        RunPath path;
        snprintf(path, sizeof path, PLACE "/step-%08d/%s", step,
                 torn >> step & 1 ? "state.safetensors" : "");
        if (torn >> step & 1)
            CHECK(truncate(path, 1000) == 0, "%s", path);
        else if (step > 1)
            forget(path);
    }
}

static void test_crash(void) {
    static Crash c;
    static Log log;
    forget("run");
    crash_init(&c);
    size_t states = crash_all(&sound, &c, 0, 0, "three saves");
    EXPECT(states > 9, "%zu states", states);

    forget("run");
    crash_init(&c);
    Ended e = disk_run(STOPPING, note_and_stop, &log);
    CHECK(e.code == EXIT_STOPPED, "exit %d: %s", e.code, e.err);
    crash_all(&log, &c, 0, 0, "a stop");
    log_free(&log);

    make_torn(1 << 2);
    crash_init(&c);
    e = disk_run(SAVING "--resume --out run", note, &log);
    CHECK(e.code == 0 && step_taken(e.err) == 1, "exit %d: %s", e.code, e.err);
    crash_all(&log, &c, 1, 1, "a save over a torn one");
    log_free(&log);
}

/* A torn one is none of those to keep: what a stop saves below it stays. */
static void test_torn_kept(void) {
    static Log log;
    make_torn(1 << 2 | 1 << 3);
    Ended e = disk_run(SAVING "--resume --out run", note_and_stop, &log);
    EXPECT(e.code == EXIT_STOPPED && step_taken(e.err) == 1, "exit %d: %s", e.code, e.err);
    EXPECT(run_saved() == 1 << 2, "checkpoints %x", run_saved());
    expect_newest("a stop below a torn one", 2);
    int taken = run_resume("a stop below a torn one");
    EXPECT(taken == 2, "goes on after step %d", taken);
    log_free(&log);
}

int main(void) {
    enum { SKIPPED = 77 }; /* what ctest is told */
    run_world();
    if (!run_sound()) {
        printf(
            "NOT TESTED: this kernel, or container, does not show a program's calls (seccomp)\n");
        world_remove();
        return SKIPPED;
    }
    test_fail_once();
    test_results();
    test_short_writes();
    test_fail_for_ever();
    test_failed_stop();
    test_killed();
    test_crash();
    test_torn_kept();
    log_free(&sound);
    free(tried);
    world_remove();
    return test_done("checkpoint disk");
}
