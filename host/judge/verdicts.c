/* verdicts.c - a file that is added to line by line, by one process at a time. */
#include "host/judge/verdicts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

enum { FILE_BYTES = 1 << 30, KEY = 64 };

static bool take_line(Verdicts *v, const char *line, size_t n, const char *where, Err *err) {
    json_t *value;
    if (!files_parse_json(&value, line, n, JSON_NUL_REFUSED, where, err))
        return err_remedy(err, "remove that line, or name another file by --judge-cache");
    const char *key = json_string_value(json_object_get(value, "key"));
    const char *end = json_string_value(json_object_get(value, "end"));
    const json_t *score = json_object_get(value, "score");
    double x = json_number_value(score);
    enum ReplyEnd of;
    bool ok = key && strlen(key) == KEY && end && reply_end_named(&of, end) &&
              (of == REPLY_VERDICT ? x >= 1 && x <= 5 : json_is_null(score));
    if (ok) json_object_set(v->by_key, key, value);
    json_decref(value);
    return ok || err_set(err, EXIT_INPUT,
                         "%s: expected a verdict with key, end and score; remove that line, or "
                         "name another file by --judge-cache",
                         where);
}

static bool take_lines(Verdicts *v, const char *text, size_t n, Err *err) {
    char where[600];
    size_t number = 1;
    for (const char *p = text, *end; p < text + n; p = end + 1, number++) {
        end = memchr(p, '\n', (size_t)(text + n - p));
        if (!end) {
            v->torn = (size_t)(text + n - p);
            fprintf(stderr,
                    "sails: %s: line %zu is not whole, as a process that was killed leaves it; "
                    "it does not count\n",
                    v->path, number);
            break;
        }
        snprintf(where, sizeof where, "%.500s: line %zu", v->path, number);
        if (end > p && !take_line(v, p, (size_t)(end - p), where, err)) return false;
    }
    return true;
}

bool verdicts_read(Verdicts *v, const char *path, Err *err) {
    char *text;
    size_t n;
    *v = (Verdicts){.by_key = json_object(), .path = mem_string(path), .fd = -1};
    if (!files_exists(path)) return true;
    bool ok = files_read(&text, &n, path, FILE_BYTES, err);
    if (ok) {
        ok = take_lines(v, text, n, err);
        free(text);
    }
    return ok || verdicts_close(v, false, err);
}

bool verdicts_open(Verdicts *v, const char *path, Err *err) {
    *v = (Verdicts){.fd = -1};
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return files_failed(err, path, "write");
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        return err_set(err, EXIT_USAGE,
                       "%s: another run writes there; end it, or name another file by "
                       "--judge-cache",
                       path);
    }
    if (!verdicts_read(v, path, err)) {
        close(fd);
        return false;
    }
    v->fd = fd;
    v->synced = clock_seconds();
    return true;
}

const json_t *verdicts_find(const Verdicts *v, const char *key) {
    return json_object_get(v->by_key, key);
}

enum ReplyEnd verdicts_end(const json_t *line) {
    enum ReplyEnd end = REPLY_UNREADABLE;
    reply_end_named(&end, json_string_value(json_object_get(line, "end")));
    return end;
}

/* What is torn goes before anything is put behind it. */
static bool mend(Verdicts *v, Err *err) {
    off_t n = v->torn ? lseek(v->fd, 0, SEEK_END) : 0;
    if (v->torn && ftruncate(v->fd, n - (off_t)v->torn) != 0)
        return files_failed(err, v->path, "write");
    v->torn = 0;
    return true;
}

static bool put(Verdicts *v, const char *text, size_t n, Err *err) {
    if (!mend(v, err)) return false;
    ssize_t done = write(v->fd, text, n); /* O_APPEND: at the end, in one piece */
    if (done != (ssize_t)n) {
        if (done >= 0) errno = ENOSPC;
        if (done > 0) v->torn = (size_t)done;
        return files_failed(err, v->path, "write");
    }
    double now = clock_seconds();
    if (now - v->synced < 1) return true;
    v->synced = now;
    return fsync(v->fd) == 0 || files_failed(err, v->path, "write");
}

bool verdicts_add(Verdicts *v, const char *key, const CompletionReply *r, const char *model,
                  const char *dialect, Err *err) {
    char rubric[65];
    rubric_hash(rubric);
    json_t *line =
        json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:I, s:I}", "key", key, "end",
                  reply_end_name(r->end), "score", r->score ? json_integer(r->score) : json_null(),
                  "reason", r->reason, "model", model, "rubric", rubric, "dialect", dialect, "in",
                  (json_int_t)r->tokens_in, "out", (json_int_t)r->tokens_out);
    CHECK(line, "a JSON value could not be made");
    char *text = json_dumps(line, JSON_COMPACT);
    CHECK(text, "a JSON value could not be written");
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of its NUL: n + 1 bytes are written */
    bool ok = put(v, text, n + 1, err);
    if (ok) json_object_set(v->by_key, key, line);
    free(text);
    json_decref(line);
    return ok;
}

bool verdicts_close(Verdicts *v, bool ok, Err *err) {
    if (!v->path) return ok;
    if (v->fd >= 0) {
        bool mended = mend(v, err), there = mended && fsync(v->fd) == 0;
        if (ok && mended && !there) files_failed(err, v->path, "write");
        ok = ok && there;
        close(v->fd);
    }
    json_decref(v->by_key);
    free(v->path);
    *v = (Verdicts){.fd = -1};
    return ok;
}
