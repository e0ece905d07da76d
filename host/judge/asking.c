/* asking.c - the questions under way, and what becomes of each answer. */
#include "host/judge/asking.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "host/cli/print.h"
#include "host/judge/endpoint.h"
#include "host/judge/meter.h"
#include "host/judge/retry.h"

enum { BARREN = 5, TRIES_TO_READ = 2, TRIES_OF_TRIAL = 2 };
static const double PATIENCE = 0.1; /* seconds between two looks at signals */

/* A question under way: it keeps its place while it waits for another try, which holds back the
 * others when a server is overloaded. */
typedef struct Slot {
    enum { SLOT_IDLE, SLOT_WAITING, SLOT_SENT } state;
    size_t question;
    int tries;
    double due; /* clock_seconds */
    char *body;
} Slot;

typedef struct Asking {
    const Settings *s;
    const AskingWatch *watch;
    Verdicts *v;
    Endpoint at;
    const HttpPlugin *plugin;
    Http *http;
    enum JudgeDialect dialect;
    const Question *q;
    size_t *todo, ntodo, next;
    Slot *slot;
    double hold;   /* nothing is sent before it */
    uint64_t dice; /* so that processes that fail together do not return together */
    size_t unanswered, barren;
    char failure[512]; /* of the last question without an answer */
    Meter meter;
    Metered done;
    AskingWork work;
} Asking;

static const char *dialect_name(enum JudgeDialect d) {
    static const char *const name[] = {JUDGE_DIALECTS(CHOICE_TEXT)};
    return name[d];
}

static char *body_of(const Asking *a, const Exchange *e, enum JudgeDialect dialect) {
    json_t *request =
        completion_request(a->s->eval.judge_model, dialect, a->s->eval.judge_max_tokens, e);
    char *text = json_dumps(request, JSON_COMPACT);
    CHECK(text, "a JSON value could not be written");
    json_decref(request);
    return text;
}

/* --------------------------------------------------------------------------------- answers -- */

/* An answer, looked through for the key, and what it says of trying again. */
typedef struct Heard {
    HttpAnswer http;
    CompletionError error;
    Attempt attempt; /* without tries */
} Heard;

static void hear(Heard *h, Asking *a) {
    RateLimits limits = rate_limits_unknown();
    HttpAnswer *http = &h->http;
    double now = (double)time(NULL);
    for (const char *line = http->headers; *line; line += strcspn(line, "\n") + 1) {
        rate_limits_take(&limits, line, now);
        if (!strchr(line, '\n')) break;
    }
    h->error =
        http->status == 200 ? (CompletionError){{0}, {0}} : completion_error(http->body, http->n);
    endpoint_scrub(&a->at, h->error.message);
    endpoint_scrub(&a->at, h->error.code);
    endpoint_scrub(&a->at, http->why);
    h->attempt =
        (Attempt){.status = http->status,
                  .fatal = http->failure == HTTP_UNTRUSTED || http->failure == HTTP_TOO_LONG,
                  .code = h->error.code,
                  .wait = rate_limits_wait(&limits, http->status == 429)};
    if (h->attempt.wait <= RETRY_LONGEST) /* else the next request is told */
        a->hold = fmax(a->hold, clock_seconds() + h->attempt.wait);
}

static void heard_free(Heard *h) {
    free(h->http.body);
    free(h->http.headers);
}

static void take_reply(CompletionReply *r, Asking *a, const Heard *h) {
    completion_reply(r, h->http.body, h->http.n);
    endpoint_scrub(&a->at, r->reason);
    a->done.tokens_in += r->tokens_in;
    a->done.tokens_out += r->tokens_out;
}

/* "HOST: HTTP 401: Incorrect API key", "HOST: Connection refused" */
static void describe(char text[512], const Asking *a, const Heard *h) {
    if (h->http.status)
        snprintf(text, 512, "%.200s: HTTP %d%s%s", a->at.host, h->http.status,
                 *h->error.message ? ": " : "", h->error.message);
    else
        snprintf(text, 512, "%.200s: %s", a->at.host, h->http.why);
}

/* Why nothing more is asked after this answer. Returns false. */
static bool give_up(const Asking *a, const Heard *h, Err *err) {
    char what[512];
    int status = h->http.status;
    describe(what, a, h);
    enum ExitCode code = EXIT_USAGE;
    const char *remedy = "check --judge-model and --judge-dialect";
    if (h->http.failure == HTTP_UNTRUSTED)
        remedy = "name the certificates to trust by --judge-ca or SSL_CERT_FILE";
    else if (h->attempt.wait > RETRY_LONGEST)
        code = EXIT_INTERNAL,
        remedy = "it asks for a pause of more than ten minutes; run again then";
    else if (status == 429 && !retry_may_help(&h->attempt))
        remedy = "the account's quota is used up; run again when it is not";
    else if (retry_may_help(&h->attempt) || status == 0)
        code = EXIT_INTERNAL, remedy = "is the server there and well? run again then";
    else if (status == 401 || status == 403)
        remedy = a->at.authorization ? "check the key in the environment (--judge-key-env)"
                                     : "set the key in the environment (--judge-key-env)";
    else if (status == 404)
        remedy = "check --judge-url and --judge-model";
    else if (status >= 300 && status < 400)
        remedy = "redirections are not followed; give the last address by --judge-url";
    return err_set(err, code, "judge http: %s; %s%s", what, remedy,
                   a->work.asked ? "; what was answered is kept" : "");
}

/* ----------------------------------------------------------------------------------- trial -- */

static const char capital[] = "What is the capital of France?", paris[] = "It is Paris.";
static const Exchange trial = {capital, paris, sizeof capital - 1, sizeof paris - 1};

static bool pause_for(Asking *a, double seconds, Err *err) {
    for (double end = clock_seconds() + seconds, left; (left = end - clock_seconds()) > 0;) {
        if (!a->watch->go_on(a->watch->context, err)) return false;
        usleep((useconds_t)(1e6 * fmin(left, PATIENCE)));
    }
    return true;
}

/* One request alone; the answer is to be freed. */
static bool ask_alone(Heard *h, Asking *a, const char *body, Err *err) {
    a->plugin->post(a->http, 0, body, strlen(body));
    a->work.requests++;
    while (!a->plugin->wait(a->http, PATIENCE, &h->http))
        if (!a->watch->go_on(a->watch->context, err)) return false;
    hear(h, a);
    return true;
}

enum Trial { TRIAL_TAKEN, TRIAL_OTHER, TRIAL_FAILED };

/* Does the server speak this dialect? why: if not, in words. */
static enum Trial try_dialect(Asking *a, enum JudgeDialect d, char why[512], Err *err) {
    char *body = body_of(a, &trial, d);
    enum Trial end = TRIAL_FAILED;
    for (int tries = 1;; tries++) {
        Heard h;
        if (!ask_alone(&h, a, body, err)) break;
        int status = h.http.status, most = status >= 500 ? TRIES_OF_TRIAL : a->s->eval.judge_tries;
        h.attempt.tries = tries;
        Retry next = retry_next(&h.attempt, most, rng_uniform(a->dice, d, (uint64_t)tries));
        describe(why, a, &h);
        bool other = status == 400 || status == 422 || status >= 500;
        bool silent = h.http.failure == HTTP_UNREACHABLE; /* nobody is there to wait for */
        if (status == 200) {
            CompletionReply r;
            take_reply(&r, a, &h);
            snprintf(why, 512, "%.200s: a trial question got no verdict (%s)%s", a->at.host,
                     reply_end_name(r.end), r.end == REPLY_CUT ? "; raise --judge-max-tokens" : "");
            end = r.end == REPLY_VERDICT ? TRIAL_TAKEN : TRIAL_OTHER;
            completion_reply_free(&r);
        } else if (silent || !next.again) {
            end = other ? TRIAL_OTHER : (give_up(a, &h, err), TRIAL_FAILED);
        }
        bool more = status != 200 && !silent && next.again;
        heard_free(&h);
        if (!more || !pause_for(a, next.seconds, err)) break;
    }
    free(body);
    return end;
}

static bool find_dialect(Asking *a, Err *err) {
    char why[512], first[512] = "";
    if (a->s->eval.judge_dialect > 0) {
        a->dialect = (enum JudgeDialect)(a->s->eval.judge_dialect - 1);
        return true;
    }
    for (int d = 0; d < DIALECT_COUNT; d++) {
        enum Trial end = try_dialect(a, (enum JudgeDialect)d, why, err);
        if (end == TRIAL_FAILED) return false;
        if (end == TRIAL_TAKEN) return a->dialect = (enum JudgeDialect)d, true;
        if (!*first) memcpy(first, why, sizeof first);
    }
    return err_set(err, EXIT_USAGE,
                   "judge http: %s; the server gives verdicts in no dialect: check --judge-model",
                   first);
}

/* ------------------------------------------------------------------------------- questions -- */

static void collect(Asking *a, size_t n) {
    json_t *seen = json_object();
    a->todo = mem_array(n, sizeof *a->todo);
    for (size_t i = 0; i < n; i++) {
        const json_t *line = verdicts_find(a->v, a->q[i].key);
        enum ReplyEnd end = line ? verdicts_end(line) : REPLY_CUT;
        bool known = end == REPLY_VERDICT || end == REPLY_REFUSED || end == REPLY_FILTERED;
        a->work.known += known;
        if (known || json_object_get(seen, a->q[i].key)) continue;
        json_object_set_new(seen, a->q[i].key, json_true());
        a->todo[a->ntodo++] = i;
    }
    json_decref(seen);
}

static void leave(Slot *s) {
    free(s->body);
    *s = (Slot){0};
}

/* An end of a question, which goes into the file. */
static bool settle(Asking *a, Slot *s, const CompletionReply *r, Err *err) {
    bool ok = verdicts_add(a->v, a->q[s->question].key, r, a->s->eval.judge_model,
                           dialect_name(a->dialect), err);
    leave(s);
    a->work.asked++;
    a->done.done++;
    return ok;
}

static bool take_answered(Asking *a, Slot *s, const Heard *h, Err *err) {
    CompletionReply r;
    bool ok = true;
    take_reply(&r, a, h);
    if (r.end == REPLY_UNREADABLE && s->tries < TRIES_TO_READ) {
        s->state = SLOT_WAITING; /* servers err, too */
    } else {
        a->barren = 0;
        ok = settle(a, s, &r, err);
    }
    completion_reply_free(&r);
    return ok;
}

/* A request that is wrong as it is, where others are not: too long, or not to the server's taste.
 */
static bool take_rejected(Asking *a, Slot *s, const Heard *h, Err *err) {
    if (++a->barren >= BARREN) return give_up(a, h, err);
    CompletionReply r = {.end = REPLY_REJECTED, .reason = mem_string(h->error.message)};
    bool ok = settle(a, s, &r, err);
    completion_reply_free(&r);
    return ok;
}

static bool take(Asking *a, Heard *h, Err *err) {
    Slot *s = &a->slot[h->http.tag];
    int status = h->http.status;
    hear(h, a);
    h->attempt.tries = s->tries;
    if (status == 200) return take_answered(a, s, h, err);
    if (status == 400 || status == 413 || status == 422) return take_rejected(a, s, h, err);
    double dice = rng_uniform(a->dice, s->question + DIALECT_COUNT, (uint64_t)s->tries);
    Retry next = retry_next(&h->attempt, a->s->eval.judge_tries, dice);
    if (next.again) {
        s->state = SLOT_WAITING;
        s->due = clock_seconds() + next.seconds;
        return true;
    }
    describe(a->failure, a, h);
    if (!retry_may_help(&h->attempt) || h->attempt.wait > RETRY_LONGEST || ++a->barren >= BARREN)
        return give_up(a, h, err);
    a->unanswered++;
    leave(s);
    return true;
}

static bool spent(const Asking *a) {
    double budget = a->s->eval.judge_budget;
    return budget > 0 && meter_cost(&a->meter, &a->done) >= budget;
}

/* Begins what may begin; false: nothing is under way any longer. */
static bool send_due(Asking *a) {
    double now = clock_seconds();
    bool under_way = false, no_more = spent(a);
    for (int i = 0; i < a->s->eval.judge_concurrency; i++) {
        Slot *s = &a->slot[i];
        if (s->state == SLOT_IDLE && a->next < a->ntodo && !no_more) {
            size_t q = a->todo[a->next++];
            *s = (Slot){SLOT_WAITING, q, 0, 0, body_of(a, &a->q[q].exchange, a->dialect)};
        }
        if (s->state == SLOT_WAITING && no_more) leave(s);
        if (s->state == SLOT_WAITING && now >= s->due && now >= a->hold) {
            s->state = SLOT_SENT;
            s->tries++;
            a->work.requests++;
            a->plugin->post(a->http, (size_t)i, s->body, strlen(s->body));
        }
        under_way = under_way || s->state != SLOT_IDLE;
    }
    return under_way;
}

static bool ask_all(Asking *a, Err *err) {
    while (send_due(a)) {
        Heard h;
        if (a->plugin->wait(a->http, PATIENCE, &h.http)) {
            bool ok = take(a, &h, err);
            heard_free(&h);
            if (!ok) return false;
        }
        meter_at(&a->meter, &a->done);
        if (!a->watch->go_on(a->watch->context, err)) return false;
    }
    return true;
}

static bool all_answered(const Asking *a, Err *err) {
    if (a->unanswered)
        return err_set(err, EXIT_INTERNAL,
                       "judge http: %zu of %zu responses have got no answer: %.400s; what was "
                       "answered is kept, the same command asks the others",
                       a->unanswered, a->ntodo, a->failure);
    if (a->done.done < a->ntodo)
        return err_set(err, EXIT_USAGE,
                       "--judge-budget: %.2f USD are spent after %zu of %zu responses; raise it, "
                       "what was answered is kept",
                       meter_cost(&a->meter, &a->done), a->done.done, a->ntodo);
    return true;
}

bool asking_check(const Settings *s, Err *err) {
    Endpoint at;
    if (s->eval.judge_budget > 0 && !(s->eval.judge_price_in > 0 || s->eval.judge_price_out > 0))
        return err_set(err, EXIT_USAGE,
                       "--judge-budget: --judge-price-in and --judge-price-out are needed");
    if (!endpoint_open(&at, s, err)) return false;
    endpoint_close(&at);
    return true;
}

bool asking_run(AskingWork *work, const Settings *s, const Question *q, size_t n, Verdicts *v,
                const AskingWatch *watch, Err *err) {
    double start = clock_seconds();
    Asking a = {.s = s, .watch = watch, .v = v, .q = q};
    a.dice = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    collect(&a, n);
    a.slot = mem_array((size_t)s->eval.judge_concurrency, sizeof *a.slot);
    a.done.wanted = a.ntodo;
    bool ok = asking_check(s, err);
    if (ok && a.ntodo) {
        meter_begin(&a.meter, s->eval.judge_price_in, s->eval.judge_price_out, s->run.json);
        ok = endpoint_open(&a.at, s, err) && endpoint_connect(&a.plugin, &a.http, &a.at, s, err) &&
             find_dialect(&a, err) && ask_all(&a, err) && all_answered(&a, err);
        meter_end(&a.meter, &a.done);
    }
    if (a.http) a.plugin->close(a.http); /* before the bodies that it borrows */
    endpoint_close(&a.at);
    for (int i = 0; i < s->eval.judge_concurrency; i++) free(a.slot[i].body);
    free(a.slot), free(a.todo);
    a.work.tokens_in = a.done.tokens_in, a.work.tokens_out = a.done.tokens_out;
    a.work.cost = meter_cost(&a.meter, &a.done);
    a.work.seconds = clock_seconds() - start;
    *work = a.work;
    return ok;
}
