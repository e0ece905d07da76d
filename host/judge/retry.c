/* retry.c - back-off, and the headers by which servers tell of their limits. */
#include "host/judge/retry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const double FIRST = 0.5, LAST = 60;

RateLimits rate_limits_unknown(void) {
    return (RateLimits){NAN, NAN, NAN, NAN, NAN};
}

/* ------------------------------------------------------------------------------- headers -- */

/* "1h2m3.5s", "20ms": each number with its unit; NaN: it is none. */
static double duration(const char *text) {
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"h", 3600}, {"m", 60}, {"s", 1}};
    double sum = 0;
    for (const char *p = text; *p;) {
        char *end;
        double x = strtod(p, &end);
        size_t i = 0, n = sizeof units / sizeof *units;
        while (i < n && strncmp(end, units[i].unit, strlen(units[i].unit)) != 0) i++;
        if (end == p || i == n || !(x >= 0)) return NAN;
        sum += x * units[i].seconds;
        p = end + strlen(units[i].unit);
    }
    return *text ? sum : NAN;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static double http_date(const char *text) {
    struct tm t = {0};
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &t);
    return end && !*end ? (double)timegm(&t) : NAN;
}

/* Seconds from now on. */
static double time_left(const char *text, double now) {
    static const double AN_EPOCH = 1e8; /* no wait is three years long */
    char *end;
    double x = strtod(text, &end);
    if (end != text && !*end && isfinite(x)) return fmax(0, x > AN_EPOCH ? x - now : x);
    double length = duration(text), date = http_date(text);
    if (!isnan(length)) return length;
    return isnan(date) ? NAN : fmax(0, date - now);
}

static double count(const char *text) {
    char *end;
    double x = strtod(text, &end);
    return end != text && !*end && x >= 0 ? x : NAN;
}

void rate_limits_take(RateLimits *r, const char *line, double now) {
    char name[64], value[128];
    const char *colon = strchr(line, ':');
    size_t n = colon ? (size_t)(colon - line) : 0;
    if (n == 0 || n >= sizeof name) return;
    memcpy(name, line, n), name[n] = 0;
    const char *from = colon + 1 + strspn(colon + 1, " \t");
    size_t len = strcspn(from, "\r\n");
    while (len && (from[len - 1] == ' ' || from[len - 1] == '\t')) len--;
    if (len == 0 || len >= sizeof value) return;
    memcpy(value, from, len), value[len] = 0;
    const struct {
        const char *name;
        double *to, value;
    } known[] = {{"retry-after-ms", &r->retry_after, count(value) / 1000},
                 {"retry-after", &r->retry_after, time_left(value, now)},
                 {"x-ratelimit-remaining-requests", &r->requests_left, count(value)},
                 {"x-ratelimit-reset-requests", &r->requests_reset, time_left(value, now)},
                 {"x-ratelimit-remaining-tokens", &r->tokens_left, count(value)},
                 {"x-ratelimit-reset-tokens", &r->tokens_reset, time_left(value, now)}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(name, known[i].name) == 0 && !isnan(known[i].value))
            *known[i].to = known[i].value;
}

double rate_limits_wait(const RateLimits *r, bool refused) {
    double wait = 0;
    if (refused && r->retry_after >= 0) return r->retry_after;
    if (r->requests_left == 0 && r->requests_reset > 0) wait = r->requests_reset;
    if (r->tokens_left == 0 && r->tokens_reset > 0) wait = fmax(wait, r->tokens_reset);
    return wait;
}

/* ------------------------------------------------------------------------------- back-off -- */

bool retry_may_help(const Attempt *a) {
    static const char *const spent[] = {"insufficient_quota", "billing_hard_limit_reached"};
    for (size_t i = 0; i < sizeof spent / sizeof *spent; i++)
        if (strcmp(a->code, spent[i]) == 0) return false;
    if (a->status == 0) return !a->fatal;
    if (a->status >= 500) return a->status != 501 && a->status != 505;
    return a->status == 408 || a->status == 409 || a->status == 425 || a->status == 429;
}

Retry retry_next(const Attempt *a, int most, double dice) {
    if (!retry_may_help(a) || a->tries >= most || a->wait > RETRY_LONGEST) return (Retry){0};
    double pause = fmin(LAST, ldexp(FIRST, a->tries - 1)) * (0.5 + dice);
    return (Retry){true, fmax(pause, a->wait * (1 + 0.1 * dice))};
}
