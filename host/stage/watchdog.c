/* watchdog.c - the thread that reads the board, and its verdicts. */
#include "host/stage/watchdog.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/base/mem.h"
#include "data/base/temporary.h"
#include "host/cli/print.h"
#include "host/stage/board_link.h"
#include "host/stage/wish.h"

static const double PERIOD = 0.02;        /* between two looks */
static const double HEARING = 1;          /* for other ranks to fail as well */
static const double AGREED = 30;          /* .. where all have agreed to, and some clean up */
static const double FRESH = 0.5;          /* what another machine has told is of now */
static const double FIRST_DEADLINE = 600; /* until a call brings its own */
static const double LAST_CALL = 3;        /* for the program's own thread to end the job */
static const double WRITING = 1;          /* of it for the verdict, which the disk may not take */
static const double CLEARING = 0.5;       /* for a process to remove what it has not finished */

struct Watchdog {
    Comm *comm;
    Board *board;
    BoardSeat *own;
    BoardLink *link; /* to other machines; NULL: none of this rank's business */
    bool several;    /* machines */
    int rank, leader;
    pthread_t thread;
    _Atomic bool closing;
    _Atomic double failed;     /* when a rank that had failed was first seen, by either thread */
    double unfinished;         /* .. and a verdict that was taken and not given */
    _Atomic double deadline;   /* of the call under way */
    _Atomic uint64_t compared; /* own calls that were held against the leader's */
    bool *visible;             /* (ranks) their processes, when all were there */
    int next;                  /* the rank after this one of which that holds; -1: there is none */
    bool told_together;
    double base;    /* when this process last woke from a long sleep */
    uint64_t *told; /* (ranks) rank 0's: those of other machines' leaders, against its own */
};

static void rest(double seconds) {
    struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&t, NULL);
}

static void wait_for(const _Atomic bool *done, double seconds) {
    for (double until = clock_seconds() + seconds; !atomic_load(done) && clock_seconds() < until;)
        rest(PERIOD);
}

/* A rank that has failed by itself is the cause: it says so and ends the job. -1: none has. */
static int failed_rank(Watchdog *w) {
    for (int r = 0; r < w->board->size; r++) {
        if (atomic_load(&w->board->seat[r].state) != SEAT_FAILED) continue;
        double never = 0;
        atomic_compare_exchange_strong(&w->failed, &never, clock_seconds());
        return r;
    }
    return -1;
}

/* Its code, which is not ours to act on before the rank has had its time; 0: there is none. */
static int own_code(Watchdog *w) {
    int r = failed_rank(w);
    return r < 0 ? 0 : w->board->seat[r].code;
}

/* ---------------------------------------------------------------- the program's own thread -- */

static void fill(BoardCall *to, const CommCall *from) {
    *to = (BoardCall){.number = from->number,
                      .op = from->op,
                      .type = from->type,
                      .bytes = from->bytes,
                      .step = from->step,
                      .begun = clock_seconds()};
    snprintf(to->what, sizeof to->what, "%s", from->what);
    snprintf(to->phase, sizeof to->phase, "%s", from->phase);
}

/* No entry is written over before it was compared. */
static void on_begin(void *context, const CommCall *call) {
    Watchdog *w = context;
    while (call->number - atomic_load(&w->compared) >= BOARD_CALLS / 2) rest(PERIOD / 20);
    CHECK(call->number - atomic_load(&w->own->ended) < BOARD_CALLS / 2, "%d calls are under way",
          BOARD_CALLS / 2);
    fill(&w->own->call[call->number % BOARD_CALLS], call);
    atomic_store(&w->deadline, call->deadline);
    atomic_store(&w->own->beat, clock_seconds());
    atomic_store(&w->own->begun, call->number + 1);
}

static void on_wait(void *context) {
    Watchdog *w = context;
    int code = atomic_load(&w->board->code), failed = failed_rank(w);
    const BoardSeat *s = failed < 0 ? NULL : &w->board->seat[failed];
    if (code) wait_for(&w->board->said, WRITING);
    if (code || s) temporary_remove_all(); /* in either case the job ends now */
    if (s && s->code == EXIT_STOPPED) wish_hear_of_stop(failed, s->why);
    if (code) rest(5 * PERIOD); /* other machines hear of it first */
    if (code) comm_abort(w->comm, code);
    atomic_store(&w->own->beat, clock_seconds());
}

/* `ended` counts those before the first that has not. */
static void on_end(void *context, uint64_t number) {
    Watchdog *w = context;
    uint64_t k = atomic_load(&w->own->ended), begun = atomic_load(&w->own->begun);
    double now = clock_seconds();
    w->own->call[number % BOARD_CALLS].ended = now;
    while (k < begun && w->own->call[k % BOARD_CALLS].ended > 0) k++;
    atomic_store(&w->own->beat, now);
    atomic_store(&w->own->ended, k);
}

/* ----------------------------------------------------------------------------- verdicts -- */

static const char *seat_name(char text[96], const Watchdog *w, int rank) {
    if (!*w->board->seat[rank].host) return snprintf(text, 96, "rank %d", rank), text;
    snprintf(text, 96, "rank %d (%.64s, process %d)", rank, w->board->seat[rank].host,
             w->board->seat[rank].pid);
    return text;
}

/* What a rank has done last. */
static void last_call(char *text, size_t room, const BoardSeat *s) {
    BoardCall call;
    char name[BOARD_CALL_ROOM];
    uint64_t begun = atomic_load(&s->begun);
    if (begun == 0 || !board_call(&call, s, begun - 1))
        snprintf(text, room, "it has made no call");
    else
        snprintf(text, room, "its last call was %s, %.1f s ago", board_call_text(name, &call),
                 clock_seconds() - call.begun);
}

/* The surest first: a disk that takes nothing more may be why the job cannot go on. */
static void pronounce(Watchdog *w, int code) {
    Board *b = w->board;
    char path[PATH_MAX + 64]; /* one that is too long is refused by the system, which says so */
    Err err;
    const char *folder = getenv("SAILS_DUMPS");
    atomic_store(&b->code, code);
    board_link_tell(w->link, code);
    if (*b->verdict) {
        snprintf(path, sizeof path, "%s/sails-ranks.%d.json", folder ? folder : ".",
                 b->seat[w->leader].pid);
        fprintf(stderr, "sails: %s; sails doctor --dumps %s shows what each rank did\n", b->verdict,
                path);
        fflush(stderr);
        if (!board_dump(b, path, &err)) fprintf(stderr, "sails: %s\n", err.text);
    }
    atomic_store(&b->said, true);
}

__attribute__((format(printf, 2, 3))) static void condemn(Watchdog *w, const char *format, ...) {
    Board *b = w->board;
    va_list args;
    int code = own_code(w), nobody = 0;
    if (code && clock_seconds() - atomic_load(&w->failed) < HEARING + LAST_CALL) return;
    if (!atomic_compare_exchange_strong(&b->taken, &nobody, 1 + w->rank)) return;
    if (!code) {
        va_start(args, format);
        vsnprintf(b->verdict, sizeof b->verdict, format, args);
        va_end(args);
    }
    pronounce(w, code ? code : EXIT_RANK);
}

/* Who has taken the verdict may be killed or stopped before it is given. */
static void look_for_unfinished(Watchdog *w) {
    Board *b = w->board;
    int taken = atomic_load(&b->taken);
    char name[96];
    if (taken <= 0 || atomic_load(&b->code)) return;
    if (w->unfinished == 0) w->unfinished = clock_seconds();
    if (clock_seconds() - w->unfinished < LAST_CALL) return;
    if (!atomic_compare_exchange_strong(&b->taken, &taken, -1 - w->rank)) return;
    snprintf(b->verdict, sizeof b->verdict, "missing: %s was about to say why the job has to end",
             seat_name(name, w, taken - 1));
    pronounce(w, EXIT_RANK);
}

/* -------------------------------------------------------------------------------- looks -- */

static bool same_call(const BoardCall *a, const BoardCall *b) {
    return a->op == b->op && a->bytes == b->bytes && a->type == b->type && a->step == b->step &&
           strcmp(a->what, b->what) == 0 && strcmp(a->phase, b->phase) == 0;
}

/* Holds the calls of one rank against another's, from *k on, as far as both have come. */
static void compare_with(Watchdog *w, int rank, int other, uint64_t *k) {
    const BoardSeat *a = &w->board->seat[rank], *b = &w->board->seat[other];
    BoardCall mine, theirs;
    for (; board_call(&mine, a, *k) && board_call(&theirs, b, *k); ++*k) {
        char text[2][BOARD_CALL_ROOM], name[2][96];
        if (same_call(&mine, &theirs)) continue;
        condemn(w, "mismatched: %s is in %s, where %s is in %s", seat_name(name[0], w, rank),
                board_call_text(text[0], &mine), seat_name(name[1], w, other),
                board_call_text(text[1], &theirs));
        return;
    }
}

/* This rank's against its machine's first, whose against rank 0's, by rank 0. */
static void compare_calls(Watchdog *w) {
    uint64_t k = atomic_load(&w->compared);
    if (w->rank == w->leader)
        k = atomic_load(&w->own->begun);
    else
        compare_with(w, w->rank, w->leader, &k);
    atomic_store(&w->compared, k);
    for (int r = 1; w->rank == 0 && w->several && r < w->board->size; r++) {
        uint64_t begun = atomic_load(&w->board->seat[r].begun);
        if (!w->board->seat[r].remote) continue;
        if (begun > BOARD_TOLD && w->told[r] < begun - BOARD_TOLD)
            w->told[r] = begun - BOARD_TOLD; /* what went before may not have been told */
        compare_with(w, r, 0, &w->told[r]);
    }
}

static void look_at_machines(Watchdog *w) {
    int gone = board_link_look(w->link);
    char name[96];
    if (gone >= 0)
        condemn(w, "gone: the machine of %s does not answer any more", seat_name(name, w, gone));
    double now = clock_seconds(), deadline = atomic_load(&w->deadline);
    double most = deadline + HEARING + LAST_CALL * board_link_turn(w->link);
    double silent = now - fmax(board_link_heard(w->link), w->base);
    BoardCall call;
    if (silent > most && board_call(&call, w->own, atomic_load(&w->own->ended)) &&
        now - fmax(call.begun, w->base) > most)
        condemn(w, "missing: the machine of %s has said nothing for %.1f s (deadline %.4g s)",
                seat_name(name, w, 0), silent, deadline);
}

/* In a ring, so that each process is looked at; were it by all others, 64 ranks would open 200,000
 * files a second. The leader, whose memory all share, by all. */
static bool is_there(const Watchdog *w, int rank) {
    bool ours = rank == w->next || (rank == w->leader && w->visible[rank]);
    return !ours || board_process(&w->board->seat[rank]);
}

static void look_for_gone(Watchdog *w) {
    for (int r = 0; r < w->board->size; r++) {
        const BoardSeat *s = &w->board->seat[r];
        char name[96], last[256];
        int state = atomic_load(&s->state);
        if (r == w->rank || (state != SEAT_WORKING && state != SEAT_LEFT)) continue;
        if (state != SEAT_LEFT && is_there(w, r)) continue;
        last_call(last, sizeof last, s);
        condemn(w, "%s: %s %s; %s", state == SEAT_LEFT ? "left" : "gone", seat_name(name, w, r),
                state == SEAT_LEFT ? "has ended before the others" : "was killed or has crashed",
                last);
        return;
    }
}

/* The rank that has shown no life for the longest, of those that have not come to call k, or have
 * not ended it; -1: there is none. */
enum Among { NOT_COME, NOT_ENDED };
static int quietest(const Watchdog *w, uint64_t k, enum Among among) {
    int worst = -1;
    for (int r = 0; r < w->board->size; r++) {
        const BoardSeat *s = &w->board->seat[r];
        if (atomic_load(&s->state) == SEAT_EMPTY) continue;
        if (atomic_load(among == NOT_COME ? &s->begun : &s->ended) > k) continue;
        if (worst < 0 || atomic_load(&s->beat) < atomic_load(&w->board->seat[worst].beat))
            worst = r;
    }
    return worst;
}

/* When the last one came to call k. */
static double last_came(const Watchdog *w, uint64_t k) {
    double last = 0;
    BoardCall call;
    for (int r = 0; r < w->board->size; r++)
        if (board_call(&call, &w->board->seat[r], k) && call.begun > last) last = call.begun;
    return last;
}

/* Are all ranks on this board, in person or told? */
static bool sees_all(const Watchdog *w) {
    for (int r = 0; r < w->board->size; r++)
        if (atomic_load(&w->board->seat[r].state) == SEAT_EMPTY) return false;
    return true;
}

static const char *how_it_is(const Watchdog *w, int rank) {
    char state = w->visible[rank] ? board_process(&w->board->seat[rank]) : 0;
    return state == 'T' || state == 't' ? "stopped" : "missing";
}

/* A call that has waited too long. Where not all ranks are in sight, those of this machine are
 * judged here, and the rest is left to rank 0. */
static void look_at_wait(Watchdog *w, int waiting) {
    const BoardSeat *own = &w->board->seat[waiting];
    uint64_t ended = atomic_load(&own->ended);
    BoardCall call;
    char name[96], text[BOARD_CALL_ROOM], last[256];
    double now = clock_seconds(), most = atomic_load(&w->deadline);
    if (!sees_all(w)) most += HEARING; /* rank 0 speaks first */
    if (!board_call(&call, own, ended) || now - fmax(call.begun, w->base) <= most) return;
    int r = quietest(w, ended, NOT_COME);
    bool come = r < 0; /* all have; one of them may be stuck on the way */
    if (come) r = quietest(w, ended, NOT_ENDED);
    if (r < 0) return; /* the call has ended meanwhile */
    board_call_text(text, &call);
    const BoardSeat *s = &w->board->seat[r];
    double silent = now - fmax(atomic_load(&s->beat), w->base);
    if (silent <= most && (!come || !sees_all(w))) return; /* it is at work, or rank 0 knows more */
    if (come && now - fmax(last_came(w, ended), w->base) <= most) return;
    if (silent <= most && silent > FRESH) return; /* it may be about to have been silent too long */
    if (silent <= most) {
        condemn(w, "slow: all ranks have come to %s, and for %.1f s nothing has moved", text,
                now - call.begun);
        return;
    }
    const char *how = how_it_is(w, r);
    last_call(last, sizeof last, s);
    condemn(w, "%s: %s has %s %s, for %.1f s (deadline %.4g s)%s; %s", how, seat_name(name, w, r),
            come ? "got stuck in" : "not come to", text, silent, most,
            strcmp(how, "stopped") == 0 ? ": a signal has stopped it" : "", last);
}

/* Is the program's own thread within the library's last call, which asks nobody any more? */
static bool leaving(const Watchdog *w) {
    BoardCall last;
    uint64_t begun = atomic_load(&w->own->begun);
    return begun > 0 && board_call(&last, w->own, begun - 1) && last.op == COMM_CLOSE;
}

static void *remove_all(void *removed) {
    temporary_remove_all();
    atomic_store((_Atomic bool *)removed, true);
    return NULL;
}

/* Whatever has become of the disk, the process ends. */
static void end_soon(Watchdog *w, int code) {
    static _Atomic bool removed;
    pthread_t thread;
    double until = clock_seconds() + (leaving(w) ? 5 * PERIOD : WRITING + HEARING);
    board_link_tell(w->link, code);
    wait_for(&w->board->said, WRITING);
    rest(fmax(0, until - clock_seconds()));
    if (pthread_create(&thread, NULL, remove_all, &removed) == 0)
        wait_for(&removed, CLEARING);
    else
        temporary_remove_all();
    _exit(code);
}

/* A process that was suspended finds everybody's last sign of life long ago: it counts anew. */
static void notice_sleep(Watchdog *w, double *before) {
    static const double LONG = 5;
    double now = clock_seconds();
    if (now - *before > LONG) w->base = now;
    *before = now;
}

static void *watch(void *context) {
    Watchdog *w = context;
    double before = clock_seconds();
    while (!atomic_load(&w->closing)) {
        int code = atomic_load(&w->board->code);
        if (code) end_soon(w, code);
        notice_sleep(w, &before);
        if (atomic_load(&w->board->together) && !w->told_together && w->rank == 0) {
            board_link_together(w->link);
            w->told_together = true;
        }
        look_for_unfinished(w);
        look_at_machines(w);
        compare_calls(w);
        look_for_gone(w);
        look_at_wait(w, w->rank);
        for (int r = 1; w->rank == 0 && w->several && r < w->board->size; r++)
            if (w->board->seat[r].remote && clock_seconds() - w->board->seat[r].heard < FRESH)
                look_at_wait(w, r);
        rest(PERIOD);
    }
    board_link_last(w->link);
    return NULL;
}

/* ------------------------------------------------------------------------- start and end -- */

static void on_fail(void *context, const char *why) {
    Watchdog *w = context;
    char name[96];
    rest(5 * PERIOD); /* should calls not have matched, that is the cause */
    condemn(w, "transport: %s: %s", seat_name(name, w, w->rank), why);
    int code = atomic_load(&w->board->code);
    for (; code == 0; code = atomic_load(&w->board->code)) rest(PERIOD);
    comm_abort(w->comm, code);
}

static Watchdog *at_exit; /* exit() within a library or by mistake leaves the others waiting */
static void on_exit_early(void) {
    if (at_exit && atomic_load(&at_exit->own->state) == SEAT_WORKING)
        atomic_store(&at_exit->own->state, SEAT_LEFT);
}

bool watchdog_open(Watchdog **to, Comm *c, Err *err) {
    Watchdog *w = mem_array(1, sizeof *w);
    TransportSeat seat = comm_seat(c);
    *w = (Watchdog){.comm = c, .rank = seat.rank, .leader = seat.leader, .next = -1};
    if (!board_open(&w->board, c, err)) {
        free(w);
        return false;
    }
    w->own = &w->board->seat[w->rank];
    atomic_store(&w->deadline, FIRST_DEADLINE);
    w->link = board_link_open(w->board, c);
    w->several = w->link != NULL; /* of rank 0 */
    w->told = mem_array((size_t)seat.size, sizeof *w->told);
    uint64_t calls = comm_work(c).calls; /* those before there was a board */
    w->visible = mem_array((size_t)seat.size, sizeof *w->visible);
    for (int r = 0; r < seat.size; r++) {
        w->told[r] = calls;
        w->visible[r] = atomic_load(&w->board->seat[r].state) != SEAT_EMPTY &&
                        board_process(&w->board->seat[r]) != 0;
    }
    for (int r = w->rank + seat.size - 1; r > w->rank; r--)
        if (w->visible[r % seat.size]) w->next = r % seat.size;
    atomic_store(&w->own->begun, calls), atomic_store(&w->own->ended, calls);
    atomic_store(&w->compared, calls);
    comm_watch(c, &(CommWatch){on_begin, on_wait, on_end, on_fail, w});
    sigset_t all, old; /* signals are for the program's own thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    CHECK(pthread_create(&w->thread, NULL, watch, w) == 0, "no thread for the watchdog");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    at_exit = w;
    atexit(on_exit_early);
    *to = w;
    return true;
}

void watchdog_done(Watchdog *w) {
    atomic_store(&w->own->state, SEAT_DONE);
}

void watchdog_close(Watchdog *w) {
    if (!w) return;
    atomic_store(&w->closing, true);
    pthread_join(w->thread, NULL);
    at_exit = NULL;
    board_link_close(w->link);
    board_close(w->board);
    free(w->visible);
    free(w->told);
    free(w);
}

/* How many have failed, and whether all of them with the same code; the first one's rank. One that
 * is done may have, and has seen before this rank that all did. */
static int count_failed(const Board *b, int *first, bool *alike) {
    int n = 0;
    *alike = true;
    for (int r = b->size - 1; r >= 0; r--) {
        int state = atomic_load(&b->seat[r].state);
        if (state != SEAT_FAILED && !(state == SEAT_DONE && b->seat[r].code)) continue;
        if (n++) *alike = *alike && b->seat[r].code == b->seat[*first].code;
        *first = r;
    }
    return n;
}

bool watchdog_failed(Watchdog *w, const Err *err, bool agreed, bool *speaks) {
    Board *b = w->board;
    int first = w->rank;
    bool alike = false, together = false, all = sees_all(w);
    double patience = agreed ? AGREED : all ? HEARING : HEARING + LAST_CALL;
    w->own->code = err->code;
    snprintf(w->own->why, sizeof w->own->why, "%s", err->text);
    atomic_store(&w->own->state, SEAT_FAILED);
    for (double until = clock_seconds() + patience; !together && clock_seconds() < until;) {
        bool every = count_failed(b, &first, &alike) == b->size;
        if (all && every && !alike) break;
        if (w->rank == 0 && every && alike) atomic_store(&b->together, true);
        together = atomic_load(&b->together);
        if (!together) rest(PERIOD);
    }
    *speaks = together ? w->rank == 0 : first == w->rank;
    if (!together && !*speaks) rest(LAST_CALL); /* the first one's code is the job's */
    return together;
}
