/* stream.cc - streams and events. Work is queued; when it runs is the policy's choice within what
 * CUDA allows: lazy runs it only when something waits for it, so that a missing wait shows every
 * time; eager at once; random in between.
 *
 * Work that needs other processes may not be able to run yet. Whoever waits for it then sleeps and
 * looks again; what has waited for long lets the other streams run too, as a GPU would. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <deque>
#include <set>

#include "tests/simt/simt.h"

namespace simt {

namespace {

struct Stream;

struct Event {
    Stream *stream = nullptr; /* of the last record; NULL: never recorded */
    uint64_t recorded = 0, reached = 0;
    bool timed;         /* made to tell times */
    double seconds = 0; /* of the host's clock, when it was last reached */
};

struct Work {
    std::function<void()> run;     /* or one of the three below */
    std::function<bool()> attempt; /* false: not yet */
    Event *record = nullptr;       /* sets reached to `tick` */
    Event *wait = nullptr;         /* until reached is `tick` at least */
    uint64_t tick = 0;
    bool early = false; /* runs as soon as all before it has, whatever the policy */
};

struct Stream {
    std::deque<Work> queue;
    const char *shut = nullptr; /* why nobody may use it now */
    double stuck_since = 0;     /* its oldest work cannot run yet; 0: it can */
};

const double PATIENCE = 0.1; /* seconds that a stream is stuck until the others go on */
enum { NAP = 100 };          /* microseconds between two looks: other processes need the core */

Stream default_stream;
std::set<Stream *> streams{&default_stream};
int waits; /* of the host, one inside the other */

enum Policy { LAZY, EAGER, RANDOM };

double seconds_now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Policy policy() {
    const char *text = getenv("SIMT_STREAMS");
    if (!text || strcmp(text, "lazy") == 0) return LAZY;
    if (strcmp(text, "eager") == 0) return EAGER;
    if (strcmp(text, "random") == 0) return RANDOM;
    fail("SIMT_STREAMS: expected lazy, eager or random, got %s", text);
}

Stream *stream_of(cudaStream_t handle) {
    Stream *s = handle ? (Stream *)handle : &default_stream;
    if (!streams.count(s)) fail("expected a stream, got %p", (void *)handle);
    return s;
}

/* As stream_of, for a call that works on it. */
Stream *usable(cudaStream_t handle) {
    Stream *s = stream_of(handle);
    if (s->shut) fail("%s", s->shut);
    return s;
}

void perform(const std::function<void()> &run) {
    Door door;
    run();
}

/* Early work that is next in its stream, and waits that are over. */
void settle() {
    for (Stream *s : streams)
        while (!s->queue.empty()) {
            const Work &next = s->queue.front();
            if (!next.early && !(next.wait && next.wait->reached >= next.tick)) break;
            Work w = std::move(s->queue.front());
            s->queue.pop_front();
            if (w.run) perform(w.run);
        }
}

bool run_until(Event *e, uint64_t tick);

/* Runs the oldest work of a stream, and before that what it waits for. False: it cannot yet. */
bool step(Stream *s) {
    Work &next = s->queue.front();
    if (next.wait) {
        if (!run_until(next.wait, next.tick)) return false;
        settle(); /* takes it away, if nothing has before */
        return true;
    }
    if (next.attempt) {
        Door door;
        if (!next.attempt()) return false;
    }
    Work w = std::move(next);
    s->queue.pop_front();
    if (w.run) perform(w.run);
    if (w.record) w.record->reached = w.tick, w.record->seconds = seconds_now();
    settle();
    return true;
}

/* A record stands in its stream before any wait for it can be queued, so this ends. */
bool run_until(Event *e, uint64_t tick) {
    while (e->reached < tick)
        if (!step(e->stream)) return false;
    return true;
}

/* step() for one who waits for the stream. */
bool look(Stream *s) {
    if (step(s)) {
        s->stuck_since = 0;
        return true;
    }
    double now = seconds_now();
    if (s->stuck_since == 0) s->stuck_since = now;
    if (now - s->stuck_since > PATIENCE)
        for (Stream *other : streams)
            if (other != s && !other->queue.empty()) step(other);
    return false;
}

void finish(Stream *s) {
    waits++;
    while (!s->queue.empty())
        if (!look(s)) usleep(NAP);
    waits--;
}

void push(Stream *s, Work w) {
    static const Policy p = policy();
    s->queue.push_back(std::move(w));
    settle();
    if (p == EAGER)
        while (!s->queue.empty() && step(s)) {
        }
    for (unsigned n = p == RANDOM ? random_below(4) : 0; n > 0; n--) {
        auto it = streams.begin();
        std::advance(it, random_below((unsigned)streams.size()));
        if (!(*it)->queue.empty()) step(*it);
    }
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<void()> work) {
    Work w;
    w.run = std::move(work);
    push(usable(stream), std::move(w));
}

void enqueue_early(cudaStream_t stream, std::function<void()> work) {
    Work w;
    w.run = std::move(work);
    w.early = true;
    push(usable(stream), std::move(w));
}

void enqueue_attempt(cudaStream_t stream, std::function<bool()> attempt) {
    Work w;
    w.attempt = std::move(attempt);
    push(usable(stream), std::move(w));
}

bool host_waits() {
    return waits > 0;
}

void stream_shut(cudaStream_t stream, const char *why) {
    stream_of(stream)->shut = why;
}

bool stream_query(cudaStream_t stream) {
    Stream *s = usable(stream);
    bool done = s->queue.empty();
    while (!s->queue.empty() && look(s)) {
    }
    return done;
}

bool event_query(cudaEvent_t event) {
    Event *e = (Event *)event;
    bool done = e->reached >= e->recorded;
    while (e->reached < e->recorded && look(e->stream)) {
    }
    return done;
}

void advance_all() {
    for (Stream *s : streams)
        while (!s->queue.empty() && step(s)) {
        }
}

void drain(cudaStream_t stream) {
    finish(usable(stream));
}

void drain_all() {
    for (Stream *s : streams) finish(s);
}

cudaStream_t stream_create() {
    Stream *s = new Stream;
    streams.insert(s);
    return (cudaStream_t)s;
}

void stream_destroy(cudaStream_t stream) {
    drain(stream);
    streams.erase((Stream *)stream);
    delete (Stream *)stream;
}

cudaEvent_t event_create(bool timed) {
    Event *e = new Event;
    e->timed = timed;
    return (cudaEvent_t)e;
}

void event_destroy(cudaEvent_t event) {
    drain_all(); /* queued work may name it */
    delete (Event *)event;
}

void event_record(cudaEvent_t event, cudaStream_t stream) {
    Event *e = (Event *)event;
    Work w;
    e->stream = usable(stream);
    w.record = e;
    w.tick = ++e->recorded;
    push(e->stream, std::move(w));
}

void event_wait(cudaStream_t stream, cudaEvent_t event) {
    Work w;
    w.wait = (Event *)event;
    w.tick = w.wait->recorded;
    push(usable(stream), std::move(w));
}

void event_synchronize(cudaEvent_t event) {
    Event *e = (Event *)event;
    waits++;
    while (e->reached < e->recorded)
        if (!look(e->stream)) usleep(NAP);
    waits--;
}

cudaError_t event_elapsed(float *milliseconds, cudaEvent_t first, cudaEvent_t last) {
    const Event *a = (Event *)first, *b = (Event *)last;
    if (!a->timed || !b->timed || !a->recorded || !b->recorded)
        return cudaErrorInvalidResourceHandle;
    if (a->reached < a->recorded || b->reached < b->recorded) return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (b->seconds - a->seconds));
    return cudaSuccess;
}

}  // namespace simt
