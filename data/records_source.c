/* records_source.c - the bytes of a data file, plain or gzip, cut into records. Nothing is held but
 * one buffer and the record being read, however large the file or its unpacked text is. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <zlib.h>

#include "data/records_impl.h"
#include "data/base/files.h"
#include "data/base/interrupt.h"

enum {
    BUFFER = 1 << 16,
    /* No text packs better than this; beyond it, and past the first records, a small file was
     * made to fill the memory. */
    MAX_EXPANSION = 200
};

bool source_fail(Source *s, size_t line, const char *fmt, ...) {
    char text[sizeof s->err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    s->failed = true;
    return err_set(s->err, EXIT_INPUT, "%s:%zu: %s", s->path, line, text);
}

bool source_lone_cr(Source *s, size_t line) {
    return source_fail(s, line,
                       "expected lines that end in LF, found CR alone; convert the file: tr "
                       "'\\r' '\\n' < FILE > NEW");
}

/* Files that hold records, but not as text. */
static const struct {
    const char *magic, *what, *convert;
    size_t n, at;
} other_kinds[] = {
    {"PAR1", "Parquet",
     "python3 -c \"import pandas; pandas.read_parquet('FILE').to_json('NEW.jsonl', "
     "orient='records', lines=True)\"",
     4, 0},
    {"ARROW1", "Arrow", "its to_json of datasets or pandas writes JSONL", 6, 0},
    {"\xff\xff\xff\xff", "an Arrow stream", "datasets' Dataset.from_file('FILE').to_json('NEW')", 4,
     0},
    {"\x28\xb5\x2f\xfd", "zstd", "zstd -d FILE", 4, 0},
    {"\xfd"
     "7zXZ",
     "xz", "xz -d FILE", 5, 0},
    {"BZh", "bzip2", "bunzip2 FILE", 3, 0},
    {"PK\3\4", "a zip archive", "unzip FILE", 4, 0},
    {"ustar", "a tar archive", "tar -xf FILE", 5, 257},
    {"SQLite format 3", "SQLite", "sqlite3 -json FILE 'select * from TABLE'", 15, 0},
    {"\xff\xfe", "UTF-16", "iconv -f utf-16 -t utf-8 FILE > NEW", 2, 0},
    {"\xfe\xff", "UTF-16", "iconv -f utf-16 -t utf-8 FILE > NEW", 2, 0},
};

static bool check_kind(Source *s) {
    for (size_t i = 0; i < sizeof other_kinds / sizeof *other_kinds; i++) {
        size_t n = other_kinds[i].n, at = other_kinds[i].at;
        if (s->n >= at + n && memcmp(s->bytes + at, other_kinds[i].magic, n) == 0)
            return source_fail(
                s, 1, "expected JSONL, JSON or CSV in valid UTF-8, this is %s; convert it: %s",
                other_kinds[i].what, other_kinds[i].convert);
    }
    return true;
}

bool source_open(Source *s, const char *path, Err *err) {
    struct stat st;
    *s = (Source){.path = path, .line = 1, .err = err};
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return err_set(err, EXIT_INPUT, "%s: expected a file, this is a folder; name a file in it",
                       path);
    s->gz = gzopen(path, "rbe");
    if (!s->gz) return files_failed(err, path, "open");
    gzbuffer(s->gz, BUFFER);
    s->bytes = mem_array(BUFFER, 1);
    int c = source_peek(s);
    if (c == 0xef) { /* a byte order mark, which some editors put in front of UTF-8 */
        if (s->n >= 3 && s->bytes[1] == 0xbb && s->bytes[2] == 0xbf) s->at = 3;
    }
    if (!s->failed) check_kind(s);
    if (s->failed) source_close(s);
    return !s->failed;
}

void source_close(Source *s) {
    if (s->gz) gzclose(s->gz);
    free(s->bytes);
    s->gz = NULL, s->bytes = NULL;
}

static bool refill(Source *s) {
    if (s->failed || (s->failed = interrupted(s->err))) return false;
    int got = gzread(s->gz, s->bytes, BUFFER);
    s->at = 0, s->n = got > 0 ? (size_t)got : 0;
    s->total += s->n;
    int code = Z_OK;
    const char *why = gzerror(s->gz, &code);
    if (got < 0 || (got == 0 && code != Z_OK))
        return source_fail(s, s->line, "cannot read: %s; fetch the file again",
                           code == Z_ERRNO       ? strerror(errno)
                           : code == Z_BUF_ERROR ? "the gzip file ends too early"
                                                 : why);
    z_off_t packed = gzoffset(s->gz);
    if (s->total > RECORD_MAX_BYTES && packed >= 0 && s->total / MAX_EXPANSION > (size_t)packed)
        return source_fail(
            s, s->line,
            "expected text, the file unpacks to over %d times its size; unpack it yourself",
            MAX_EXPANSION);
    return s->n > 0;
}

int source_peek(Source *s) {
    if (s->at == s->n && !refill(s)) return -1;
    return s->bytes[s->at];
}

int source_next(Source *s) {
    if (s->at == s->n && !refill(s)) return -1;
    int c = s->bytes[s->at++];
    s->line += c == '\n';
    return c;
}

static bool too_large(Source *s, size_t line) {
    return source_fail(s, line, "expected a record of at most %d MB; split it",
                       RECORD_MAX_BYTES >> 20);
}

bool source_keep(Source *s, Buf *text, char c, size_t line) {
    if (text->n >= RECORD_MAX_BYTES) return too_large(s, line);
    buf_byte(text, c);
    return true;
}

static bool blank(const Buf *text) {
    for (size_t i = 0; i < text->n; i++)
        if (!strchr(" \t\r", text->p[i]) || !text->p[i]) return false;
    return true;
}

bool source_line(Source *s, Buf *text, size_t *line) {
    do {
        text->n = 0;
        *line = s->line;
        if (source_peek(s) < 0) return false;
        bool ended = false;
        while (!ended && source_peek(s) >= 0) {
            const unsigned char *from = s->bytes + s->at;
            const unsigned char *end = memchr(from, '\n', s->n - s->at);
            size_t n = end ? (size_t)(end - from) : s->n - s->at;
            if (text->n + n > RECORD_MAX_BYTES) return too_large(s, *line);
            buf_add(text, (const char *)from, n);
            s->at += n + (end != NULL);
            s->line += end != NULL;
            ended = end != NULL;
        }
        if (s->failed) return false;
        if (text->n > 0 && text->p[text->n - 1] == '\r') text->n--;
    } while (blank(text));
    return true;
}

static int next_token(Source *s) { /* the next byte that is no white space, not taken */
    int c;
    while ((c = source_peek(s)) == ' ' || c == '\t' || c == '\n' || c == '\r') source_next(s);
    return c;
}

/* Copies one JSON value by its brackets and quotes alone; the parser judges the rest. */
static bool copy_value(Source *s, Buf *text, size_t line) {
    int depth = 0;
    bool quoted = false, escaped = false;
    for (int c; (c = source_peek(s)) >= 0;) {
        if (!quoted && depth == 0 && text->n > 0 && (c == ',' || c == ']')) return true;
        source_next(s);
        if (!source_keep(s, text, (char)c, line)) return false;
        if (escaped)
            escaped = false;
        else if (c == '\\')
            escaped = quoted;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (!quoted && depth < 0) break; /* "]" where a value should be */
    }
    if (s->failed) return false;
    return source_fail(s, line, "expected a JSON list that ends in ']'; is the file complete?");
}

static bool list_ends(Source *s) {
    source_next(s);
    if (next_token(s) >= 0)
        source_fail(s, s->line, "expected nothing behind the JSON list; remove it");
    return false;
}

bool source_element(Source *s, Buf *text, size_t *line) {
    int c = next_token(s); /* '[' at first, then what copy_value stopped at */
    if (s->in_list && c == ']') return list_ends(s);
    source_next(s);
    c = next_token(s);
    if (!s->in_list && c == ']') return list_ends(s);
    s->in_list = true;
    text->n = 0;
    *line = s->line;
    return copy_value(s, text, *line);
}
