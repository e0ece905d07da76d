/* http_curl.c - the plug-in libsails_http.so: posts by libcurl's multi interface. Contract: http.h.
 *
 * Nothing here is newer than libcurl 7.34, so that it builds and runs on old systems. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "host/judge/http.h"

typedef struct Text {
    char *p;
    size_t n, room;
} Text;

/* A connection's worth of state; a handle is used again and again, so that libcurl keeps the
 * connection and its TLS session. */
typedef struct Slot {
    CURL *easy;
    bool busy, too_long;
    size_t tag;
    Text body, headers;
    char why[CURL_ERROR_SIZE];
} Slot;

struct Http {
    CURLM *multi;
    struct curl_slist *send;
    int most;
    Slot slot[];
};

static bool add(Text *t, const char *from, size_t n) {
    if (t->n + n + 1 > t->room) {
        size_t room = 2 * (t->n + n + 1);
        char *p = realloc(t->p, room);
        if (!p) return false;
        t->p = p, t->room = room;
    }
    memcpy(t->p + t->n, from, n);
    t->n += n;
    t->p[t->n] = 0;
    return true;
}

static size_t take_body(char *from, size_t size, size_t n, void *slot) {
    Slot *s = slot;
    (void)size; /* is 1 */
    s->too_long = s->body.n + n > HTTP_MOST;
    return !s->too_long && add(&s->body, from, n) ? n : 0;
}

/* Of all that a server may send in front of its answer the last block counts. */
static size_t take_header(char *from, size_t size, size_t n, void *slot) {
    enum { MOST = 1 << 16 };
    Slot *s = slot;
    (void)size;
    if (n > 5 && strncasecmp(from, "HTTP/", 5) == 0) s->headers.n = 0;
    return s->headers.n + n > MOST || add(&s->headers, from, n) ? n : 0;
}

static const char *library(void) {
    return curl_version();
}

static void close_all(Http *h) {
    for (int i = 0; i < h->most; i++) {
        Slot *s = &h->slot[i];
        if (s->busy) curl_multi_remove_handle(h->multi, s->easy);
        if (s->easy) curl_easy_cleanup(s->easy);
        free(s->body.p), free(s->headers.p);
    }
    curl_slist_free_all(h->send);
    if (h->multi) curl_multi_cleanup(h->multi);
    free(h);
    curl_global_cleanup();
}

static CURLcode set_up(CURL *e, Slot *s, const HttpSetup *o, struct curl_slist *send) {
    CURLcode worst = CURLE_OK, code;
#define SET(option, value) \
    if ((code = curl_easy_setopt(e, option, value)) != CURLE_OK) worst = code
    SET(CURLOPT_URL, o->url);
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_HTTPHEADER, send);
    SET(CURLOPT_USERAGENT, o->agent);
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* another host must not get the key */
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* at least */
    SET(CURLOPT_NOSIGNAL, 1L);                              /* signals are the program's */
    SET(CURLOPT_TIMEOUT_MS, (long)(1e3 * o->timeout));
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(1e3 * o->connect_timeout));
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, s);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, s);
    SET(CURLOPT_ERRORBUFFER, s->why);
    SET(CURLOPT_PRIVATE, s);
    if (o->direct) SET(CURLOPT_NOPROXY, "*");
    if (o->ca_file) SET(CURLOPT_CAINFO, o->ca_file);
    if (o->ca_folder) SET(CURLOPT_CAPATH, o->ca_folder);
#undef SET
    return worst;
}

static bool add_line(struct curl_slist **list, const char *line) {
    struct curl_slist *longer = line ? curl_slist_append(*list, line) : *list;
    if (longer) *list = longer;
    return longer;
}

static Http *open_all(const HttpSetup *o, char why[HTTP_WHY]) {
    Http *h = calloc(1, sizeof *h + (size_t)o->most * sizeof *h->slot);
    if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(why, HTTP_WHY, "libcurl does not start");
        free(h);
        return NULL;
    }
    h->most = o->most;
    h->multi = curl_multi_init();
    bool ok = h->multi && add_line(&h->send, "Content-Type: application/json") &&
              add_line(&h->send, "Accept: application/json") && add_line(&h->send, "Expect:") &&
              add_line(&h->send, o->authorization);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    for (int i = 0; i < h->most && ok; i++) {
        Slot *s = &h->slot[i];
        s->easy = curl_easy_init();
        ok = s->easy && (code = set_up(s->easy, s, o, h->send)) == CURLE_OK;
    }
    if (ok) return h;
    snprintf(why, HTTP_WHY, "libcurl: %s", curl_easy_strerror(code));
    close_all(h);
    return NULL;
}

static void post(Http *h, size_t tag, const char *body, size_t n) {
    int i = 0;
    while (i < h->most && h->slot[i].busy) i++;
    if (i == h->most) abort(); /* the contract */
    Slot *s = &h->slot[i];
    s->busy = true, s->tag = tag, s->too_long = false;
    s->body.n = s->headers.n = 0, s->why[0] = 0;
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
    if (curl_multi_add_handle(h->multi, s->easy) != CURLM_OK) abort(); /* no memory */
}

static enum HttpFailure failure(const Slot *s, CURLcode code) {
    if (code == CURLE_OK) return HTTP_ANSWERED;
    if (s->too_long) return HTTP_TOO_LONG;
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
            return HTTP_UNREACHABLE;
        case CURLE_PEER_FAILED_VERIFICATION: /* in old versions CURLE_SSL_CACERT is another */
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_ISSUER_ERROR:
            return HTTP_UNTRUSTED;
        default:
            return HTTP_BROKEN;
    }
}

static char *copy(const Text *t) {
    char *p = malloc(t->n + 1);
    if (!p) abort();
    if (t->n) memcpy(p, t->p, t->n);
    p[t->n] = 0;
    return p;
}

/* A request that has ended, if there is one. */
static bool next_answer(Http *h, HttpAnswer *a) {
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(h->multi, &left)) && m->msg != CURLMSG_DONE) {
    }
    if (!m) return false;
    CURLcode code = m->data.result;
    CURL *easy = m->easy_handle; /* m is gone with the handle */
    char *of;
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &of);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    Slot *s = (Slot *)(void *)of;
    curl_multi_remove_handle(h->multi, easy);
    s->busy = false;
    *a = (HttpAnswer){.tag = s->tag, .failure = failure(s, code)};
    a->status = code == CURLE_OK ? (int)status : 0;
    if (code != CURLE_OK)
        snprintf(a->why, sizeof a->why, "%s", *s->why ? s->why : curl_easy_strerror(code));
    a->headers = copy(&s->headers);
    a->body = copy(&s->body);
    a->n = s->body.n;
    return true;
}

static bool wait_for(Http *h, double seconds, HttpAnswer *a) {
    int running = 0, sockets = 0;
    curl_multi_perform(h->multi, &running);
    if (next_answer(h, a)) return true;
    int ms = (int)(1e3 * seconds);
    curl_multi_wait(h->multi, NULL, 0, ms, &sockets);
    if (sockets == 0) { /* old versions return at once where there is no socket yet */
        int nap = ms < 10 ? ms : 10;
        nanosleep(&(struct timespec){0, 1000000L * nap}, NULL);
    }
    curl_multi_perform(h->multi, &running);
    return next_answer(h, a);
}

__attribute__((visibility("default"))) sails_http_fn sails_http;
const HttpPlugin *sails_http(int abi) {
    static const HttpPlugin plugin = {library, open_all, post, wait_for, close_all};
    return abi == HTTP_ABI ? &plugin : NULL;
}
