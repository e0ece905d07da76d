/* stream.cc - streams and events. Work is queued; when it runs is the policy's choice within what
 * CUDA allows: lazy runs it only when something waits for it, so that a missing wait shows every
 * time; eager at once; random in between. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    std::function<void()> run; /* or one of the two below */
    Event *record = nullptr;   /* sets reached to `tick` */
    Event *wait = nullptr;     /* until reached is `tick` at least */
    uint64_t tick = 0;
};

struct Stream {
    std::deque<Work> queue;
};

Stream default_stream;
std::set<Stream *> streams{&default_stream};

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

void run_until(Event *e, uint64_t tick);

/* Runs the oldest work of a stream, and before that what it waits for. */
void step(Stream *s) {
    if (s->queue.front().wait) run_until(s->queue.front().wait, s->queue.front().tick);
    Work w = std::move(s->queue.front());
    s->queue.pop_front();
    if (w.run) {
        Door door;
        w.run();
    }
    if (w.record) w.record->reached = w.tick, w.record->seconds = seconds_now();
}

/* A record stands in its stream before any wait for it can be queued, so this ends. */
void run_until(Event *e, uint64_t tick) {
    while (e->reached < tick) step(e->stream);
}

void push(Stream *s, Work w) {
    static const Policy p = policy();
    s->queue.push_back(std::move(w));
    if (p == EAGER)
        while (!s->queue.empty()) step(s);
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
    push(stream_of(stream), std::move(w));
}

void drain(cudaStream_t stream) {
    Stream *s = stream_of(stream);
    while (!s->queue.empty()) step(s);
}

void drain_all() {
    for (Stream *s : streams)
        while (!s->queue.empty()) step(s);
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
    e->stream = stream_of(stream);
    w.record = e;
    w.tick = ++e->recorded;
    push(e->stream, std::move(w));
}

void event_wait(cudaStream_t stream, cudaEvent_t event) {
    Work w;
    w.wait = (Event *)event;
    w.tick = w.wait->recorded;
    push(stream_of(stream), std::move(w));
}

void event_synchronize(cudaEvent_t event) {
    Event *e = (Event *)event;
    run_until(e, e->recorded);
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
