/* A judge behind HTTP that misbehaves in every way that servers do: what is asked again and how
 * often, what becomes a verdict, when it ends early, which dialect is found, and that what the file
 * of verdicts has is not asked again. */
#include "host/judge/asking.h"

#include <math.h>

#include "host/cli/args.h"
#include "tests/faulty_server.h"
#include "tests/files.h"

enum { MOST = 64 };
#define KEY "sk-test-0123456789"

static Args args;
static Settings *s = &args.s;

static void set(const char *key, const char *value) {
    Err err;
    CHECK(args_set(&args, args_find(key), value, "test", &err), "%s", err.text);
}

static void set_up(void) {
    char url[64];
    args_defaults(&args);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", faulty.port);
    set("eval.judge-url", url);
    set("eval.judge-model", "a-model");
    set("eval.judge-timeout", "60"); /* on a busy machine, too */
    set("eval.judge-tries", "4");
    set("eval.judge-dialect", "schema"); /* no trial */
    set("json", "true");                 /* no meter */
    setenv("OPENAI_API_KEY", KEY, 1);
}

static bool go_on(void *unused, Err *err) {
    (void)unused, (void)err;
    return true;
}
static const AskingWatch watch = {go_on, NULL};

static Question question[MOST];
static char response[MOST][96];
static size_t questions;

static Question *add(const char *told) {
    Question *q = &question[questions];
    snprintf(response[questions], sizeof *response, "%s", told);
    q->exchange = (Exchange){"q", response[questions], 1, strlen(told)};
    rubric_key(q->key, s->eval.judge_model, &q->exchange);
    questions++;
    return q;
}

/* Asks them, with the verdicts of the file `name`. */
static bool ask(AskingWork *w, const char *name, Err *err) {
    Verdicts v;
    CHECK(verdicts_open(&v, test_path(name), err), "%s", err->text);
    bool ok = asking_run(w, s, question, questions, &v, &watch, err);
    return verdicts_close(&v, ok, err);
}

/* ------------------------------------------------------------------------------------ faults -- */

static const struct {
    const char *told, *end, *reason;
    int score, times; /* that it is to be asked */
} fault[] = {{"do:good score=4", "verdict", "because", 4, 1},
             {"do:busy score=2", "verdict", "because", 2, 3},
             {"do:broken score=1", "verdict", "because", 1, 2},
             {"do:reset score=5", "verdict", "because", 5, 2},
             {"do:half score=3", "verdict", "because", 3, 2},
             {"do:garbage score=4", "verdict", "because", 4, 2},
             {"do:nonsense", "unreadable", "", 0, 2},
             {"do:schema", "unreadable", "", 0, 2},
             {"do:refuse", "refused", "I do not grade this.", 0, 1},
             {"do:filter", "filtered", "", 0, 1},
             {"do:cut", "cut", "", 0, 1},
             {"do:fence score=5", "verdict", "fenced", 5, 1},
             {"do:think", "verdict", "thought", 5, 1},
             {"do:long", "rejected", "context length", 0, 1},
             {"do:echo", "verdict", "you sent Bearer ******************", 3, 1}};
enum { FAULTS = sizeof fault / sizeof *fault };

static void test_faults(void) {
    AskingWork w;
    Verdicts v;
    Err err;
    faulty_forget();
    questions = 0;
    for (int i = 0; i < FAULTS; i++) add(fault[i].told);
    CHECK(ask(&w, "faults", &err), "%s", err.text);
    EXPECT(w.asked == FAULTS && w.known == 0, "%zu asked", w.asked);
    CHECK(verdicts_read(&v, test_path("faults"), &err), "%s", err.text);
    int requests = 0, again = 0;
    for (int i = 0; i < FAULTS; i++) {
        const json_t *line = verdicts_find(&v, question[i].key);
        const char *end = json_string_value(json_object_get(line, "end"));
        const char *reason = json_string_value(json_object_get(line, "reason"));
        CHECK(end && reason, "%s: no line", fault[i].told);
        EXPECT(strcmp(end, fault[i].end) == 0 && strcmp(reason, fault[i].reason) == 0 &&
                   json_integer_value(json_object_get(line, "score")) == fault[i].score,
               "%s: %s, %s", fault[i].told, end, reason);
        int times = faulty_times(fault[i].told) - 1;
        EXPECT(times == fault[i].times, "%s: asked %d times", fault[i].told, times);
        requests += fault[i].times;
        again += strstr("unreadable cut rejected", end) ? fault[i].times : 0;
    }
    EXPECT(faulty.requests == requests && w.requests == (size_t)requests, "%d and %zu requests",
           (int)faulty.requests, w.requests);
    EXPECT(strcmp(faulty.authorization, "Bearer " KEY) == 0, "%s", faulty.authorization);
    verdicts_close(&v, true, &err);

    /* What has no verdict, but for refusals, is asked again; nothing else is. */
    faulty_forget();
    CHECK(ask(&w, "faults", &err), "%s", err.text);
    EXPECT(w.known == FAULTS - 4 && w.asked == 4 && faulty.requests == again, "%zu known, %d of %d",
           w.known, (int)faulty.requests, again);
}

/* One that does not answer in time is asked again. */
static void test_slow(void) {
    AskingWork w;
    Err err;
    questions = 0;
    add("do:slow score=2");
    faulty_forget();
    set("eval.judge-timeout", "0.5");
    set("eval.judge-tries", "20");
    CHECK(ask(&w, "slow", &err), "%s", err.text);
    EXPECT(w.asked == 1 && w.requests >= 2, "%zu requests", w.requests);
    args_free(&args);
    set_up();
}

/* The file alone: no trial, no connection. */
static void test_known(void) {
    AskingWork w;
    Err err;
    questions = 0;
    add("do:good score=4"), add("do:echo"), add("do:fence score=5");
    add(fault[0].told); /* the same twice */
    faulty_forget();
    set("eval.judge-dialect", "auto");
    CHECK(ask(&w, "faults", &err), "%s", err.text);
    EXPECT(w.known == 4 && faulty.requests == 0, "%zu known, %d requests", w.known,
           (int)faulty.requests);
    CHECK(ask(&w, "twice", &err), "%s", err.text);
    EXPECT(w.asked == 3, "%zu asked, of four of which two are the same", w.asked);
    set("eval.judge-dialect", "schema");
}

/* As many at a time as is said, and no more. */
static void test_concurrency(void) {
    static const int at_a_time[] = {1, 3, 20};
    AskingWork w;
    Err err;
    for (int i = 0; i < 3; i++) {
        char text[32], name[32];
        questions = 0;
        for (int k = 0; k < 24; k++) snprintf(text, sizeof text, "a%d score=3", k), add(text);
        snprintf(text, sizeof text, "%d", at_a_time[i]);
        snprintf(name, sizeof name, "many%d", at_a_time[i]);
        set("eval.judge-concurrency", text);
        faulty_forget();
        faulty.pause_ms = 20;
        CHECK(ask(&w, name, &err), "%s", err.text);
        faulty.pause_ms = 0;
        EXPECT(faulty.most == at_a_time[i] && faulty.requests == 24, "%d at a time, not %d",
               (int)faulty.most, at_a_time[i]);
        EXPECT(w.tokens_in == 2400 && w.tokens_out == 240, "%g and %g tokens", w.tokens_in,
               w.tokens_out);
    }
    set("eval.judge-concurrency", "8");
}

/* --------------------------------------------------------------------------------- early ends --
 */

/* Every answer is this one: after how many requests it ends, with which code and words. */
static void ends(int status, const char *error, const char *told, int requests, enum ExitCode code,
                 const char *words) {
    AskingWork w;
    Err err = {0};
    char text[64];
    questions = 0;
    for (int i = 0; i < 12; i++) snprintf(text, sizeof text, "%s e%d", told, i), add(text);
    faulty_forget();
    faulty.status = status, faulty.error = error;
    set("eval.judge-concurrency", "1");
    bool ok = ask(&w, "ends", &err);
    EXPECT(!ok && err.code == code && strstr(err.text, words), "HTTP %d %s: %d %s", status, told,
           (int)err.code, err.text);
    EXPECT(faulty.requests == requests, "HTTP %d %s: %d requests, not %d", status, told,
           (int)faulty.requests, requests);
    EXPECT(!strstr(err.text, KEY), "%s", err.text);
    set("eval.judge-concurrency", "8");
    faulty.status = 0;
}

static void test_ends(void) {
    ends(401, "{\"error\": {\"message\": \"Incorrect API key: " KEY "\"}}", "", 1, EXIT_USAGE,
         "HTTP 401: Incorrect API key: ******************; check the key");
    ends(403, "", "", 1, EXIT_USAGE, "HTTP 403; check the key");
    ends(404, "{\"error\": \"no such model\"}", "", 1, EXIT_USAGE,
         "HTTP 404: no such model; check");
    ends(301, "", "", 1, EXIT_USAGE, "redirections are not followed");
    ends(0, "", "do:quota", 1, EXIT_USAGE, "no money; the account's quota is used up");
    ends(0, "", "do:long", 5, EXIT_USAGE, "HTTP 400: context length; check --judge-model");
    set("eval.judge-tries", "1");
    ends(503, "", "", 5, EXIT_INTERNAL, "is the server there and well?");
    set("eval.judge-tries", "4");
}

/* One question of several has no answer: the others are kept, and it alone is asked then. */
static void test_unanswered(void) {
    AskingWork w;
    Err err;
    questions = 0;
    add("do:down u"), add("u1"), add("u2");
    set("eval.judge-tries", "1");
    EXPECT_REFUSED(ask(&w, "unanswered", &err), err, EXIT_INTERNAL,
                   "1 of 3 responses have got no answer");
    EXPECT(strstr(err.text, "HTTP 503: overloaded"), "%s", err.text);
    faulty_forget();
    EXPECT_REFUSED(ask(&w, "unanswered", &err), err, EXIT_INTERNAL, "1 of 1 responses");
    EXPECT(faulty.requests == 1 && w.known == 2, "%d requests", (int)faulty.requests);
    set("eval.judge-tries", "4");
}

static void test_budget(void) {
    AskingWork w;
    Err err;
    char text[32];
    questions = 0;
    for (int i = 0; i < 10; i++) snprintf(text, sizeof text, "b%d", i), add(text);
    set("eval.judge-concurrency", "1");
    set("eval.judge-budget", "0.5");
    EXPECT_REFUSED(ask(&w, "budget", &err), err, EXIT_USAGE, "--judge-price-in");
    set("eval.judge-price-in", "1000");  /* 100 tokens: 0.1 USD */
    set("eval.judge-price-out", "2000"); /* 10: 0.02 */
    EXPECT_REFUSED(ask(&w, "budget", &err), err, EXIT_USAGE,
                   "0.60 USD are spent after 5 of 10 responses");
    EXPECT(fabs(w.cost - 0.6) < 1e-9, "%g", w.cost);
    CHECK(ask(&w, "budget", &err), "the rest: %s", err.text);
    EXPECT(w.known == 5 && w.asked == 5, "%zu known", w.known);
    args_free(&args);
    set_up();
}

/* --------------------------------------------------------------------------------- dialects -- */

static void test_dialects(void) {
    static const struct {
        int takes, requests;
        const char *dialect; /* NULL: none */
    } server[] = {{TAKES_ALL, 1, "schema"},
                  {TAKES_FORMAT | TAKES_COMPLETION, 2, "schema-completion"},
                  {TAKES_TOP | TAKES_PLAIN | TAKES_LENGTH, 3, "top-schema"},
                  {TAKES_PLAIN | TAKES_LENGTH, 4, "plain"},
                  {TAKES_PLAIN | TAKES_COMPLETION, 5, "plain-completion"},
                  {0, 5, NULL}};
    AskingWork w;
    Verdicts v;
    Err err;
    questions = 0;
    add("dialect score=2");
    set("eval.judge-dialect", "auto");
    for (size_t i = 0; i < sizeof server / sizeof *server; i++) {
        char name[32];
        snprintf(name, sizeof name, "dialect%zu", i);
        faulty_forget();
        faulty.takes = server[i].takes;
        bool ok = ask(&w, name, &err);
        faulty.takes = TAKES_ALL;
        EXPECT(ok == !!server[i].dialect, "server %zu: %s", i, err.text);
        EXPECT(faulty.requests == server[i].requests + ok, "server %zu: %d requests", i,
               (int)faulty.requests);
        if (!ok) EXPECT(err.code == EXIT_USAGE && strstr(err.text, "no dialect"), "%s", err.text);
        CHECK(verdicts_read(&v, test_path(name), &err), "%s", err.text);
        const char *found =
            json_string_value(json_object_get(verdicts_find(&v, question[0].key), "dialect"));
        if (ok) EXPECT(found && strcmp(found, server[i].dialect) == 0, "server %zu: %s", i, found);
        verdicts_close(&v, true, &err);
    }
    faulty_forget();
    faulty.status = 401, faulty.error = "";
    EXPECT_REFUSED(ask(&w, "trial", &err), err, EXIT_USAGE, "HTTP 401; check the key");
    EXPECT(faulty.requests == 1, "a trial that is refused: %d requests", (int)faulty.requests);
    faulty.status = 0;
    set("eval.judge-url", "http://127.0.0.1:1/v1"); /* nobody listens there */
    EXPECT_REFUSED(ask(&w, "trial", &err), err, EXIT_INTERNAL, "is the server there");
    args_free(&args);
    set_up();
}

static int stops;
static bool stop_soon(void *unused, Err *err) {
    (void)unused;
    return ++stops < 3 || err_set(err, EXIT_STOPPED, "enough");
}

/* It ends amid requests, and keeps what was answered. */
static void test_stop(void) {
    const AskingWatch stop = {stop_soon, NULL};
    AskingWork w;
    Verdicts v;
    Err err;
    char text[32];
    questions = 0;
    for (int i = 0; i < 30; i++) snprintf(text, sizeof text, "s%d", i), add(text);
    faulty.pause_ms = 30;
    CHECK(verdicts_open(&v, test_path("stop"), &err), "%s", err.text);
    EXPECT_REFUSED(asking_run(&w, s, question, questions, &v, &stop, &err), err, EXIT_STOPPED,
                   "enough");
    CHECK(verdicts_close(&v, true, &err), "%s", err.text);
    size_t kept = w.asked;
    CHECK(ask(&w, "stop", &err), "%s", err.text);
    EXPECT(kept > 0 && w.known == kept && w.asked == 30 - kept, "%zu kept, %zu known", kept,
           w.known);
    faulty.pause_ms = 0;
}

int main(void) {
    faulty_start();
    set_up();
    test_faults();
    test_slow();
    test_known();
    test_concurrency();
    test_ends();
    test_unanswered();
    test_budget();
    test_dialects();
    test_stop();
    args_free(&args);
    return test_done("asking");
}
