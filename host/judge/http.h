/* http.h - posting JSON to one address, many requests at a time: the plug-in libsails_http.so,
 * which is opened when an http judge is asked for. The program itself starts where libcurl is
 * missing.
 *
 * The plug-in is http_curl.c, one file and this header:
 *   cc -O2 -shared -fPIC -I SAILS -o libsails_http.so SAILS/host/judge/http_curl.c -lcurl */
#ifndef SAILS_HTTP_H
#define SAILS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_ABI = 1, HTTP_WHY = 256 };

/* Borrowed until close. NULL: none. */
typedef struct HttpSetup {
    const char *url;
    const char *authorization;       /* a whole header line; it goes to this address alone */
    const char *ca_file, *ca_folder; /* whom to trust; both NULL: what libcurl was built with */
    const char *agent;
    double timeout, connect_timeout; /* seconds */
    int most;                        /* requests at a time */
    bool direct;                     /* past any proxy that the environment names */
} HttpSetup;

/* Why there was no answer. */
enum HttpFailure {
    HTTP_ANSWERED,
    HTTP_UNREACHABLE, /* no such host, nobody listens there */
    HTTP_UNTRUSTED,   /* its certificate, or the files that tell whom to trust */
    HTTP_BROKEN,      /* timed out, reset, broken off, no HTTP */
    HTTP_TOO_LONG     /* more than HTTP_MOST bytes */
};
enum { HTTP_MOST = 8 << 20 };

typedef struct HttpAnswer {
    size_t tag;
    enum HttpFailure failure;
    char why[HTTP_WHY]; /* of a failure, in libcurl's words */
    int status;         /* 0: no answer */
    char *headers;      /* malloc: lines "Name: value\r\n" */
    char *body;         /* malloc, with a NUL behind its n bytes */
    size_t n;
} HttpAnswer;

typedef struct Http Http;
typedef struct HttpPlugin {
    const char *(*library)(void); /* "libcurl/7.88.1 OpenSSL/3.0.17 .." */
    /* NULL, and why in words. Peers and their names are verified; redirections are answers. */
    Http *(*open)(const HttpSetup *setup, char why[HTTP_WHY]);
    /* Begins a request; at most setup->most may be under way. body is borrowed until its answer. */
    void (*post)(Http *h, size_t tag, const char *body, size_t n);
    /* Waits for an answer for at most so many seconds; false: none has come. */
    bool (*wait)(Http *h, double seconds, HttpAnswer *answer);
    void (*close)(Http *h); /* gives up what is under way */
} HttpPlugin;

/* What the plug-in exports as sails_http; NULL: of another ABI. */
typedef const HttpPlugin *sails_http_fn(int abi);

#endif
