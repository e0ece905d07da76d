/* endpoint.c - addresses, keys, whom to trust, and the plug-in that speaks HTTP. */
#include "host/judge/endpoint.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/mem.h"

/* --------------------------------------------------------------------------------- address -- */

/* 127.x.y.z, [::1] and localhost; what only begins so is elsewhere. */
static bool is_local(const char *host, size_t n) {
    char name[256];
    struct in_addr v4;
    struct in6_addr v6;
    if (n >= sizeof name) return false;
    memcpy(name, host, n), name[n] = 0;
    if (strcasecmp(name, "localhost") == 0) return true;
    if (inet_pton(AF_INET, name, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    if (name[0] != '[' || name[n - 1] != ']') return false;
    name[n - 1] = 0;
    return inet_pton(AF_INET6, name + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* Length of the host in front of a port. */
static size_t host_length(const char *authority, size_t n) {
    const char *close = authority[0] == '[' ? memchr(authority, ']', n) : NULL;
    if (authority[0] == '[') return close ? (size_t)(close - authority) + 1 : n;
    const char *colon = memchr(authority, ':', n);
    return colon ? (size_t)(colon - authority) : n;
}

static bool read_url(Endpoint *e, const char *url, bool *plain, Err *err) {
    static const char tail[] = "/chat/completions";
    *plain = strncasecmp(url, "http://", 7) == 0;
    if (!*plain && strncasecmp(url, "https://", 8) != 0)
        return err_set(err, EXIT_USAGE,
                       "--judge-url: expected https://HOST/v1 or http://127.0.0.1:PORT/v1, got "
                       "'%.200s'",
                       url);
    const char *authority = url + (*plain ? 7 : 8);
    size_t n = strcspn(authority, "/?#");
    for (const char *p = url; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == '\\' || *p == 0x7f || *p == '?' || *p == '#')
            return err_set(err, EXIT_USAGE,
                           "--judge-url: expected an address without spaces, query or fragment; a "
                           "key belongs in the environment (--judge-key-env)");
    if (memchr(authority, '@', n))
        return err_set(err, EXIT_USAGE,
                       "--judge-url: expected no user and password in the address; a key belongs "
                       "in the environment (--judge-key-env)");
    if (n == 0 || n >= sizeof e->host)
        return err_set(err, EXIT_USAGE, "--judge-url: expected a host, got '%.200s'", url);
    memcpy(e->host, authority, n), e->host[n] = 0;
    e->local = is_local(authority, host_length(authority, n));
    size_t len = strlen(url), whole = sizeof tail - 1;
    while (len > 0 && url[len - 1] == '/') len--;
    bool there = len >= whole && strncmp(url + len - whole, tail, whole) == 0;
    e->url = mem_array(len + sizeof tail, 1);
    memcpy(e->url, url, len);
    if (!there) strcpy(e->url + len, tail);
    return true;
}

/* ------------------------------------------------------------------------------------- key -- */

/* Names alone: a key that was given in place of one must not be looked for, or shown. */
static bool is_name(const char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    if (*text && !strchr(letters, *text)) return false;
    for (; *text; text++)
        if (!strchr(letters, *text) && !(*text >= '0' && *text <= '9')) return false;
    return true;
}

static bool read_key(Endpoint *e, const char *variable, Err *err) {
    static const char before[] = "Authorization: Bearer ";
    if (!is_name(variable))
        return err_set(err, EXIT_USAGE,
                       "--judge-key-env: expected the name of a variable of the environment, not "
                       "the key itself");
    const char *key = *variable ? getenv(variable) : NULL;
    if (!key || !*key)
        return e->local || !*variable ||
               err_set(err, EXIT_USAGE,
                       "--judge-key-env: the environment has no key for %.200s under that name; "
                       "set it, or say --judge-key-env \"\" where the server wants none",
                       e->host);
    for (const char *p = key; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
            return err_set(err, EXIT_USAGE,
                           "--judge-key-env: %.64s: expected a key of printable ASCII without "
                           "spaces, byte %zu is "
                           "none; set it anew, without a line's end",
                           variable, (size_t)(p - key) + 1);
    e->nkey = strlen(key);
    e->authorization = mem_array(sizeof before + e->nkey, 1);
    sprintf(e->authorization, "%s%s", before, key);
    return true;
}

void endpoint_scrub(const Endpoint *e, char *text) {
    enum { SECRET = 8 };
    if (!text || e->nkey < SECRET) return;
    const char *key = e->authorization + strlen(e->authorization) - e->nkey;
    for (char *p = text; (p = strstr(p, key)); p += e->nkey) memset(p, '*', e->nkey);
}

/* ----------------------------------------------------------------------------- certificates -- */

/* A libcurl that was built on Debian looks where Debian keeps them; other systems have other
 * places. */
static bool read_trust(Endpoint *e, const Settings *s, Err *err) {
    static const char *const known[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Arch */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Red Hat */
        "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem" /* SUSE */,
        "/etc/ssl/cert.pem" /* Alpine */};
    const char *file = getenv("SSL_CERT_FILE"), *folder = getenv("SSL_CERT_DIR");
    struct stat st;
    if (*s->eval.judge_ca) {
        if (stat(s->eval.judge_ca, &st) != 0) return files_failed(err, s->eval.judge_ca, "open");
        if (S_ISDIR(st.st_mode))
            e->ca_folder = mem_string(s->eval.judge_ca);
        else
            e->ca_file = mem_string(s->eval.judge_ca);
        return true;
    }
    if (file && *file) e->ca_file = mem_string(file);
    if (folder && *folder) e->ca_folder = mem_string(folder);
    for (size_t i = 0; !e->ca_file && !e->ca_folder && i < sizeof known / sizeof *known; i++)
        if (files_exists(known[i])) e->ca_file = mem_string(known[i]);
    return true;
}

bool endpoint_open(Endpoint *e, const Settings *s, Err *err) {
    bool plain;
    *e = (Endpoint){0};
    if (!*s->eval.judge_url || !*s->eval.judge_model)
        return err_set(err, EXIT_USAGE,
                       "--judge http: --judge-url and --judge-model are needed: where the server "
                       "is, and what it calls the model");
    bool ok = read_url(e, s->eval.judge_url, &plain, err) &&
              read_key(e, s->eval.judge_key_env, err) && read_trust(e, s, err);
    if (ok && plain && e->authorization && !e->local && !s->eval.judge_plain_http)
        ok = err_set(err, EXIT_USAGE,
                     "--judge-url: http:// would show the key of %.64s to everybody on the way to "
                     "%.200s; use https://, or say --judge-plain-http",
                     s->eval.judge_key_env, e->host);
    if (!ok) endpoint_close(e);
    return ok;
}

void endpoint_close(Endpoint *e) {
    if (e->authorization) explicit_bzero(e->authorization, strlen(e->authorization));
    free(e->authorization);
    free(e->ca_folder), free(e->ca_file);
    free(e->url);
    *e = (Endpoint){0};
}

/* --------------------------------------------------------------------------------- plug-in -- */

static const HttpPlugin *load(Err *err) {
    const char *path = getenv("SAILS_HTTP_PLUGIN");
    void *lib = dlopen(path ? path : "libsails_http.so", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_set(err, EXIT_USAGE,
                       "--judge http: the plug-in does not load (%s); install libcurl's headers "
                       "(libcurl4-openssl-dev) and build sails again",
                       dlerror()),
               NULL;
    sails_http_fn *get;
    void *symbol = dlsym(lib, "sails_http");
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointer */
    const HttpPlugin *p = symbol ? get(HTTP_ABI) : NULL;
    if (!p)
        err_set(err, EXIT_USAGE,
                "--judge http: the plug-in is of another sails version; install both anew");
    return p;
}

const char *endpoint_library(Err *err) {
    const HttpPlugin *plugin = load(err);
    return plugin ? plugin->library() : NULL;
}

bool endpoint_connect(const HttpPlugin **plugin, Http **http, const Endpoint *e, const Settings *s,
                      Err *err) {
    static const double CONNECT = 15;
    double timeout = s->eval.judge_timeout;
    char why[HTTP_WHY] = "";
    *plugin = load(err);
    if (!*plugin) return false;
    const HttpSetup setup = {.url = e->url,
                             .authorization = e->authorization,
                             .ca_file = e->ca_file,
                             .ca_folder = e->ca_folder,
                             .agent = "sails/" SAILS_VERSION,
                             .timeout = timeout,
                             .connect_timeout = timeout < CONNECT ? timeout : CONNECT,
                             .most = s->eval.judge_concurrency,
                             .direct = e->local};
    *http = (*plugin)->open(&setup, why);
    return *http || err_set(err, EXIT_INTERNAL, "--judge http: %s", why);
}
