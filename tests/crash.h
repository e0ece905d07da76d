/* crash.h - what may be on the disk after the power has failed, made from the calls of a run.
 *
 * The model is the weakest that POSIX allows (ALICE, OSDI 2014). Before call n everything was asked
 * for, and what an fsync has confirmed is there; of the rest, each in its own right:
 *   a write     is there, is lost, is cut at the first border of 4 KB, or is zeros
 *   an entry of a folder - a file or folder made, renamed or removed - is there or is lost
 * A write is confirmed by fsync of its file, an entry by fsync of the folder that it is in. */
#ifndef SAILS_TEST_CRASH_H
#define SAILS_TEST_CRASH_H

#include <dirent.h>

#include "data/buf.h"
#include "tests/disk.h"

enum { CRASH_CALLS = 600, CRASH_NODES = 300, CRASH_NAME = 64, CRASH_BLOCK = 4096 };

/* Calls, with copies of what they wrote. */
typedef struct Log {
    Call call[CRASH_CALLS];
    size_t n;
} Log;

static inline void log_add(Log *log, const Call *c) {
    CHECK(log->n < CRASH_CALLS, "more than %d calls", CRASH_CALLS);
    Call *to = &log->call[log->n++];
    *to = *c;
    if (c->n) to->data = buf_copy(c->data, c->n);
}

static inline void log_free(Log *log) {
    for (size_t i = 0; i < log->n; i++) free((char *)(uintptr_t)log->call[i].data);
    log->n = 0;
}

/* ------------------------------------------------------------------- files, folders, changes -- */

typedef struct Entry {
    int folder, node; /* node -1: there is none of that name */
    char name[CRASH_NAME];
} Entry;

typedef struct Entries {
    Entry *e;
    size_t n, capacity;
} Entries;

/* One thing that a call changes on the disk; it holds for certain from call `safe` on. */
typedef struct Change {
    size_t at, safe; /* SIZE_MAX: never */
    int node;        /* whose fsync confirms it: the file written, the folder changed */
    int value;       /* an entry's node, -1: removed */
    char name[CRASH_NAME], gone[CRASH_NAME]; /* the entry; of a rename, the one that it was */
    size_t offset, n;
    const char *data; /* of a write, else NULL */
} Change;

typedef struct Crash {
    Buf before[CRASH_NODES]; /* files' bytes before the run */
    size_t size[CRASH_NODES];
    bool folder[CRASH_NODES];
    int nodes; /* 0 is the world */
    Entries before_entry, now;
    Change change[CRASH_CALLS];
    size_t changes;
} Crash;

static inline int entry_find(const Entries *in, int folder, const char *name) {
    for (size_t i = 0; i < in->n; i++)
        if (in->e[i].folder == folder && strcmp(in->e[i].name, name) == 0) return in->e[i].node;
    return -1;
}

static inline void entry_set(Entries *in, int folder, const char *name, int node) {
    for (size_t i = 0; i < in->n; i++)
        if (in->e[i].folder == folder && strcmp(in->e[i].name, name) == 0) {
            in->e[i].node = node;
            return;
        }
    in->e = mem_grow(in->e, &in->capacity, in->n + 1, sizeof *in->e);
    Entry *e = &in->e[in->n++];
    *e = (Entry){.folder = folder, .node = node};
    CHECK(snprintf(e->name, sizeof e->name, "%s", name) < CRASH_NAME, "%s", name);
}

static inline void entries_copy(Entries *to, const Entries *from) {
    to->n = 0;
    for (size_t i = 0; i < from->n; i++) {
        to->e = mem_grow(to->e, &to->capacity, to->n + 1, sizeof *to->e);
        to->e[to->n++] = from->e[i];
    }
}

/* The node of a path as the program sees it, and where its last name is; -1: it is not there. */
static inline int node_of(const Entries *in, const char *path, int *folder, const char **last) {
    int node = 0;
    *folder = 0, *last = path;
    if (strcmp(path, ".") == 0) return 0;
    for (const char *p = path; *p;) {
        char name[CRASH_NAME];
        size_t n = strcspn(p, "/");
        CHECK(n < sizeof name, "%s", path);
        memcpy(name, p, n), name[n] = 0;
        *folder = node, *last = p;
        node = node < 0 ? -1 : entry_find(in, node, name);
        p += n + (p[n] == '/');
    }
    return node;
}

static inline int node_new(Crash *c, bool folder) {
    CHECK(c->nodes < CRASH_NODES, "more than %d files", CRASH_NODES);
    c->folder[c->nodes] = folder;
    return c->nodes++;
}

/* ------------------------------------------------------------------------------- from calls -- */

static inline void crash_load(Crash *c, int folder, const char *path) {
    DIR *d = opendir(path);
    Err err;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *below = files_join(path, e->d_name), *data;
        int node = node_new(c, e->d_type == DT_DIR);
        entry_set(&c->now, folder, e->d_name, node);
        if (c->folder[node]) {
            crash_load(c, node, below);
        } else {
            MUST(files_read(&data, &c->size[node], below, DISK_WRITE, &err), err);
            buf_add(&c->before[node], data, c->size[node]);
            free(data);
        }
        free(below);
    }
    if (d) closedir(d);
}

/* Of what is in "run" now, all of which is on the disk. */
static inline void crash_init(Crash *c) {
    *c = (Crash){0};
    node_new(c, true);
    if (files_exists("run")) {
        entry_set(&c->now, 0, "run", node_new(c, true));
        crash_load(c, 1, "run");
    }
    entries_copy(&c->before_entry, &c->now);
}

static inline void crash_free(Crash *c) {
    for (int i = 0; i < c->nodes; i++) buf_free(&c->before[i]);
    free(c->before_entry.e), free(c->now.e);
}

static inline void confirm(Crash *c, int node, size_t at) {
    for (size_t i = 0; i < c->changes; i++)
        if (c->change[i].node == node && c->change[i].safe == SIZE_MAX) c->change[i].safe = at;
}

static inline void change_entry(Crash *c, size_t at, int folder, const char *name, int value,
                                const char *gone) {
    CHECK(c->changes < CRASH_CALLS, "more than %d changes", CRASH_CALLS);
    Change *x = &c->change[c->changes++];
    *x = (Change){.at = at, .safe = SIZE_MAX, .node = folder, .value = value};
    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->gone, sizeof x->gone, "%s", gone);
    if (*gone) entry_set(&c->now, folder, gone, -1);
    entry_set(&c->now, folder, name, value);
}

static inline void change_bytes(Crash *c, size_t at, int node, const Call *call) {
    CHECK(c->changes < CRASH_CALLS && node > 0, "%s", call->path);
    c->change[c->changes++] = (Change){.at = at,
                                       .safe = SIZE_MAX,
                                       .node = node,
                                       .offset = c->size[node],
                                       .n = call->n,
                                       .data = call->data};
    c->size[node] += call->n;
}

static inline bool holds_entries(const Crash *c, int folder) {
    bool holds = false;
    for (size_t i = 0; i < c->now.n; i++)
        holds = holds || (c->now.e[i].folder == folder && c->now.e[i].node >= 0);
    return holds;
}

/* Calls that the kernel refuses, as what they would make is there or what they would remove is not,
 * or not empty, change nothing. */
static inline void crash_call(Crash *c, size_t at, const Call *call) {
    int folder, other;
    const char *name, *to;
    int node = node_of(&c->now, call->path, &folder, &name);
    switch (call->kind) {
        case CALL_MKDIR:
        case CALL_CREATE:
            if (node < 0)
                change_entry(c, at, folder, name, node_new(c, call->kind == CALL_MKDIR), "");
            break;
        case CALL_WRITE:
            change_bytes(c, at, node, call);
            break;
        case CALL_SYNC:
            confirm(c, node, at);
            break;
        case CALL_UNLINK:
        case CALL_RMDIR:
            if (node >= 0 && c->folder[node] == (call->kind == CALL_RMDIR) &&
                !holds_entries(c, node))
                change_entry(c, at, folder, name, -1, "");
            break;
        case CALL_RENAME:
            node_of(&c->now, call->to, &other, &to);
            CHECK(node >= 0 && folder == other, "%s moves to %s", call->path, call->to);
            change_entry(c, at, folder, to, node, name);
            break;
    }
}

static inline void crash_calls(Crash *c, const Log *log) {
    for (size_t i = 0; i < log->n; i++) crash_call(c, i, &log->call[i]);
}

/* ------------------------------------------------------------------------------- what is left --
 */

/* The changes of calls before `at` that nothing has confirmed by then, into which; how many. */
static inline size_t crash_open(size_t which[CRASH_CALLS], const Crash *c, size_t at) {
    size_t n = 0;
    for (size_t i = 0; i < c->changes; i++)
        if (c->change[i].at < at && c->change[i].safe >= at) which[n++] = i;
    return n;
}

enum Fate { IS_THERE, IS_LOST, IS_ZEROS, IS_CUT, FATES };

static inline size_t border_in(const Change *x) { /* bytes of a write up to its first border */
    size_t n = CRASH_BLOCK - x->offset % CRASH_BLOCK;
    return n < x->n ? n : 0;
}

static inline int crash_fates(const Change *x) {
    return !x->data ? IS_LOST + 1 : border_in(x) ? FATES : IS_CUT;
}

static inline void bytes_put(Buf *to, const Change *x, enum Fate fate) {
    size_t n = fate == IS_CUT ? border_in(x) : x->n;
    while (to->n < x->offset + n) buf_byte(to, 0); /* what lies before it may be lost */
    if (fate == IS_ZEROS)
        memset(to->p + x->offset, 0, n);
    else
        memcpy(to->p + x->offset, x->data, n);
}

/* What the disk holds: the bytes of every file, and the entries. */
typedef struct Left {
    Buf bytes[CRASH_NODES];
    Entries entry;
} Left;

/* After the calls before `at`; fate of each change, by its number. */
static inline void crash_left(Left *left, const Crash *c, size_t at, const enum Fate *fate) {
    entries_copy(&left->entry, &c->before_entry);
    for (int i = 0; i < c->nodes; i++) {
        left->bytes[i].n = 0;
        if (c->before[i].n) buf_add(&left->bytes[i], c->before[i].p, c->before[i].n);
    }
    for (size_t i = 0; i < c->changes; i++) {
        const Change *x = &c->change[i];
        if (x->at >= at || fate[i] == IS_LOST) continue;
        if (x->data) {
            bytes_put(&left->bytes[x->node], x, fate[i]);
            continue;
        }
        if (*x->gone) entry_set(&left->entry, x->node, x->gone, -1);
        entry_set(&left->entry, x->node, x->name, x->value);
    }
}

/* Calls `each` with everything that can be reached from a folder, parents first. */
typedef void left_each(void *context, const char *path, const Buf *bytes); /* NULL: a folder */

static inline void left_walk(const Left *left, const Crash *c, int folder, const char *path,
                             left_each *each, void *context) {
    for (size_t i = 0; i < left->entry.n; i++) {
        const Entry *e = &left->entry.e[i];
        if (e->folder != folder || e->node < 0) continue;
        char *below = folder ? files_join(path, e->name) : mem_string(e->name);
        each(context, below, c->folder[e->node] ? NULL : &left->bytes[e->node]);
        if (c->folder[e->node]) left_walk(left, c, e->node, below, each, context);
        free(below);
    }
}

#endif
