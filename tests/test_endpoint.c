/* Where a key may go: addresses, this machine and others, what stands in the environment; and that
 * a certificate nobody vouches for is not believed. */
#include "host/judge/endpoint.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "host/cli/args.h"
#include "tests/files.h"

#define KEY "sk-test-0123456789"

static Args args;

static void set(const char *key, const char *value) {
    Err err;
    CHECK(args_set(&args, args_find(key), value, "test", &err), "%s", err.text);
}

static bool opens(Endpoint *e, const char *url, Err *err) {
    set("eval.judge-url", url);
    *err = (Err){0};
    return endpoint_open(e, &args.s, err);
}

static void test_addresses(void) {
    static const struct {
        const char *url, *whole;
        bool local;
    } good[] = {
        {"https://api.example.org/v1", "https://api.example.org/v1/chat/completions", false},
        {"https://api.example.org/v1/", "https://api.example.org/v1/chat/completions", false},
        {"https://a.b/v1/chat/completions", "https://a.b/v1/chat/completions", false},
        {"HTTPS://a.b:8443", "HTTPS://a.b:8443/chat/completions", false},
        {"http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions", true},
        {"http://127.9.8.7", "http://127.9.8.7/chat/completions", true},
        {"http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions", true},
        {"http://LocalHost/v1", "http://LocalHost/v1/chat/completions", true},
        {"http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions", true},
        {"http://[::1]", "http://[::1]/chat/completions", true},
        {"https://127.0.0.1.example.org/v1", "https://127.0.0.1.example.org/v1/chat/completions",
         false},
        {"https://localhost.example.org/v1", "https://localhost.example.org/v1/chat/completions",
         false},
        {"https://[::2]:80/v1", "https://[::2]:80/v1/chat/completions", false}};
    static const struct {
        const char *url, *words;
    } bad[] = {{"", "are needed"},
               {"api.example.org/v1", "expected https://"},
               {"ftp://a.b/v1", "expected https://"},
               {"file:///etc/passwd", "expected https://"},
               {"https:///v1", "expected a host"},
               {"https://me:secret@a.b/v1", "no user and password"},
               {"http://127.0.0.1@a.b/v1", "no user and password"},
               {"https://a.b/v1?api-key=secret", "without spaces, query or fragment"},
               {"https://a.b/v1#x", "without spaces, query or fragment"},
               {"https://a.b/ v1", "without spaces"},
               {"https://a.b\\@c/v1", "without spaces"},
               {"http://127.0.0.1.example.org/v1", "would show the key of OPENAI_API_KEY"},
               {"http://localhost.example.org/v1", "would show the key"},
               {"http://10.0.0.7:8000/v1", "would show the key"},
               {"http://[::2]/v1", "would show the key"},
               {"http://127.1/v1", "would show the key"}}; /* what resolvers make of it is theirs */
    Endpoint e;
    Err err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        bool ok = opens(&e, good[i].url, &err);
        EXPECT(ok && strcmp(e.url, good[i].whole) == 0 && e.local == good[i].local, "%s: %s %s",
               good[i].url, ok ? e.url : "refused", err.text);
        EXPECT(ok && strcmp(e.authorization, "Authorization: Bearer " KEY) == 0, "%s",
               e.authorization);
        endpoint_close(&e);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        EXPECT_REFUSED(opens(&e, bad[i].url, &err), err, EXIT_USAGE, bad[i].words);
        EXPECT(!strstr(err.text, "secret") && !strstr(err.text, KEY), "%s", err.text);
    }
    set("eval.judge-plain-http", "true");
    EXPECT(opens(&e, "http://10.0.0.7:8000/v1", &err) && !e.local, "%s", err.text);
    endpoint_close(&e);
    set("eval.judge-plain-http", "false");
}

static void test_keys(void) {
    Endpoint e;
    Err err;
    setenv("A_KEY", KEY "\n", 1);
    set("eval.judge-key-env", "A_KEY");
    EXPECT_REFUSED(opens(&e, "https://a.b/v1", &err), err, EXIT_USAGE, "byte 19 is none");
    EXPECT(!strstr(err.text, KEY), "%s", err.text);
    setenv("A_KEY", "", 1);
    EXPECT_REFUSED(opens(&e, "https://a.b/v1", &err), err, EXIT_USAGE, "has no key for a.b");
    EXPECT(opens(&e, "http://localhost/v1", &err) && !e.authorization, "%s", err.text);
    endpoint_close(&e);
    set("eval.judge-key-env", KEY);
    EXPECT_REFUSED(opens(&e, "https://a.b/v1", &err), err, EXIT_USAGE, "not the key itself");
    EXPECT(!strstr(err.text, KEY), "%s", err.text);
    set("eval.judge-key-env", "");
    EXPECT(opens(&e, "http://10.0.0.7/v1", &err) && !e.authorization, "%s", err.text);
    endpoint_close(&e);
    set("eval.judge-key-env", "OPENAI_API_KEY");
}

static void test_scrub(void) {
    Endpoint e;
    Err err;
    CHECK(opens(&e, "https://a.b/v1", &err), "%s", err.text);
    char text[] = "a " KEY " b" KEY KEY, short_key[] = "none of this is none";
    endpoint_scrub(&e, text);
    EXPECT(strcmp(text, "a ****************** b************************************") == 0, "%s",
           text);
    endpoint_close(&e);
    setenv("OPENAI_API_KEY", "none", 1);
    CHECK(opens(&e, "https://a.b/v1", &err), "%s", err.text);
    endpoint_scrub(&e, short_key);
    EXPECT(strcmp(short_key, "none of this is none") == 0, "%s", short_key);
    endpoint_close(&e);
    setenv("OPENAI_API_KEY", KEY, 1);
}

/* ------------------------------------------------------------------------------ certificates -- */

/* A certificate of its own for `name`, and a server that shows it; its process and port. */
static FILE *tls_server(const char *name, int *port) {
    char line[2048], certificate[256], key[300];
    snprintf(certificate, sizeof certificate, "%s", test_path(name));
    snprintf(key, sizeof key, "%s.key", certificate);
    snprintf(line, sizeof line,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
             "/CN=%s -addext "
             "subjectAltName=DNS:%s -keyout %s -out %s 2>/dev/null",
             name, name, key, certificate);
    CHECK(system(line) == 0, "%s", line);
    snprintf(line, sizeof line,
             "exec openssl s_server -www -accept 127.0.0.1:0 -naccept 1 -cert %s -key %s 2>&1 "
             "</dev/null",
             certificate, key);
    FILE *f = popen(line, "r");
    CHECK(f, "popen");
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "ACCEPT 127.0.0.1:%d", port) == 1) return f;
    CHECK(false, "the server of certificates does not start");
}

/* What comes of a request to it. */
static enum HttpFailure shown(const char *name, const char *trusted, const char *timeout,
                              char why[HTTP_WHY]) {
    const HttpPlugin *plugin;
    Endpoint e;
    Http *http;
    Err err;
    HttpAnswer a;
    char url[64];
    int port = 0;
    FILE *server = tls_server(name, &port);
    snprintf(url, sizeof url, "https://localhost:%d/v1", port);
    set("eval.judge-ca", *trusted ? test_path(trusted) : "");
    set("eval.judge-timeout", timeout);
    set("eval.judge-concurrency", "1");
    CHECK(opens(&e, url, &err) && endpoint_connect(&plugin, &http, &e, &args.s, &err), "%s",
          err.text);
    plugin->post(http, 0, "{}", 2);
    while (!plugin->wait(http, 0.1, &a)) {
    }
    strcpy(why, a.why);
    free(a.body), free(a.headers);
    plugin->close(http);
    endpoint_close(&e);
    pclose(server);
    return a.failure;
}

static void test_certificates(void) {
    char why[HTTP_WHY];
    if (system("openssl version >/dev/null 2>&1") != 0) {
        puts("no openssl here: certificates are not tested");
        return;
    }
    EXPECT(shown("localhost", "", "30", why) == HTTP_UNTRUSTED, "its own certificate: %s", why);
    EXPECT(shown("localhost", "localhost", "1", why) == HTTP_BROKEN && strstr(why, "timed out"),
           "a trusted one, of a server that says nothing: %s", why);
    EXPECT(shown("elsewhere", "elsewhere", "30", why) == HTTP_UNTRUSTED, "another's name: %s", why);
    Endpoint e;
    Err err;
    set("eval.judge-ca", test_path("nowhere"));
    EXPECT_REFUSED(opens(&e, "https://a.b/v1", &err), err, EXIT_INPUT, "nowhere");
    set("eval.judge-ca", "");
}

static void test_plugin(void) {
    const HttpPlugin *plugin;
    Endpoint e;
    Http *http;
    Err err;
    char own[1024];
    const char *path = getenv("SAILS_HTTP_PLUGIN");
    CHECK(path && opens(&e, "https://a.b/v1", &err), "%s", err.text);
    snprintf(own, sizeof own, "%s", path);
    setenv("SAILS_HTTP_PLUGIN", "missing.so", 1);
    EXPECT_REFUSED(endpoint_connect(&plugin, &http, &e, &args.s, &err), err, EXIT_USAGE,
                   "the plug-in does not load (missing.so");
    setenv("SAILS_HTTP_PLUGIN", own, 1);
    CHECK(endpoint_connect(&plugin, &http, &e, &args.s, &err), "%s", err.text);
    EXPECT(strstr(plugin->library(), "libcurl"), "%s", plugin->library());
    plugin->close(http);
    endpoint_close(&e);
}

int main(void) {
    args_defaults(&args);
    setenv("OPENAI_API_KEY", KEY, 1);
    unsetenv("SSL_CERT_FILE"), unsetenv("SSL_CERT_DIR");
    set("eval.judge-model", "m");
    test_addresses();
    test_keys();
    test_scrub();
    test_certificates();
    test_plugin();
    args_free(&args);
    return test_done("endpoint");
}
