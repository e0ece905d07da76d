/* records_hh.c - conversations as Anthropic's HH-RLHF writes them.
 *
 * A few conversations have two turns of one role in a row. They are joined, since the template
 * wants roles that alternate; so the pairs of harmless-base in which one side answers in two turns
 * share their prompt, although the texts differ before the last "Assistant:". Empty turns stay. */
#include "data/records_impl.h"

typedef struct Marker {
    const char *text;
    size_t len;
    enum Role role;
} Marker;

static const Marker markers[] = {{"\n\nHuman:", 8, ROLE_USER}, {"\n\nAssistant:", 12, ROLE_MODEL}};

/* The marker at s, with the space behind it counted in *len. A colon that runs into a word is
 * text; at the end of the file's text an empty turn may have lost its space. */
static const Marker *marker_at(const char *s, size_t n, size_t *len) {
    for (int i = 0; i < 2; i++) {
        const Marker *m = &markers[i];
        if (n < m->len || memcmp(s, m->text, m->len) != 0) continue;
        if (n > m->len && s[m->len] != ' ' && s[m->len] != '\n') continue;
        *len = m->len + (n > m->len && s[m->len] == ' ');
        return m;
    }
    return NULL;
}

/* Offset of the next marker from `from` on, n: none. */
static size_t next_marker(const char *s, size_t n, size_t from) {
    size_t len;
    while (from < n) {
        const char *hit = memchr(s + from, '\n', n - from);
        if (!hit) break;
        from = (size_t)(hit - s);
        if (marker_at(hit, n - from, &len)) return from;
        from++;
    }
    return n;
}

static size_t spaces(const char *s, size_t n) {
    size_t at = 0;
    while (at < n && strchr(" \t\r\n", s[at]) && s[at]) at++;
    return at;
}

/* The marker at the text's start, whatever white space is in front of it or is missing there. */
static const Marker *leading(const char *s, size_t n, size_t *len) {
    size_t at = spaces(s, n);
    for (int i = 0; i < 2; i++) {
        const Marker *m = &markers[i];
        size_t word = m->len - 2, end = at + word; /* without its empty line */
        if (n < end || memcmp(s + at, m->text + 2, word) != 0) continue;
        if (n > end && s[end] != ' ' && s[end] != '\n') continue;
        *len = end + (n > end && s[end] == ' ');
        return m;
    }
    return NULL;
}

const char *hh_leading(const char *text, size_t len) {
    size_t skip;
    const Marker *m = leading(text, len, &skip);
    return m ? m->text + 2 : NULL;
}

bool hh_inside(const char *text, size_t len) {
    return next_marker(text, len, 0) < len;
}

bool hh_whole(const char *text, size_t len) {
    size_t skip;
    const Marker *first = leading(text, len, &skip);
    if (!first || first->role != ROLE_USER) return false;
    if (marker_at(text, len, &skip) == first) return true;
    for (size_t at = 0; (at = next_marker(text, len, at)) < len; at++)
        if (marker_at(text + at, len - at, &skip)->role == ROLE_MODEL) return true;
    return false;
}

int hh_parse(Chat *chat, const char *text, size_t len) {
    int joined = 0;
    size_t skip = 0;
    const Marker *turn = leading(text, len, &skip);
    if (!turn || turn->role != ROLE_USER) return -1;
    Buf content = {0};
    for (size_t at = 0; at < len;) {
        size_t from = at + skip, to = next_marker(text, len, from);
        buf_add(&content, text + from, to - from);
        const Marker *next = to < len ? marker_at(text + to, len - to, &skip) : NULL;
        if (next == turn) {
            buf_add(&content, "\n\n", 2);
            joined++;
        } else {
            chat_add(chat, turn->role, content.p, content.n);
            content.n = 0;
            turn = next;
        }
        at = to;
    }
    buf_free(&content);
    return joined;
}
