/* When a failed request is sent again, by a clock that the test holds: which failures, how often,
 * how long after; and what servers say of their limits. */
#include "host/judge/retry.h"

#include <math.h>

#include "tests/test.h"

static const double NOW = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */

static double told(const char *line) {
    RateLimits r = rate_limits_unknown();
    rate_limits_take(&r, line, NOW);
    return r.retry_after;
}

static bool near(double x, double y) {
    return fabs(x - y) <= 1e-12 * fabs(y);
}

static void test_headers(void) {
    static const struct {
        const char *line;
        double seconds;
    } good[] = {{"Retry-After: 7", 7},
                {"retry-after:0\r\n", 0},
                {"RETRY-AFTER:  1.5 \r\n", 1.5},
                {"Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", 30},
                {"Retry-After: Sun, 06 Nov 1994 08:49:07 GMT\r\n", 0}, /* long ago */
                {"Retry-After: 784111787", 10},                        /* since 1970 */
                {"Retry-After: 1m2.5s", 62.5},
                {"Retry-After: 1h0m1s", 3601},
                {"retry-after-ms: 250", 0.25}};
    static const char *const bad[] = {"Retry-After: soon",    "Retry-After:",
                                      "Retry-After: 1x",      "Retry-After: -5m",
                                      "Retry-After: 5 later", "X-Retry-After: 5",
                                      "Retry-After",          "",
                                      "Retry-After: nan",     ": 5"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        EXPECT(near(told(good[i].line), good[i].seconds), "%s: %g s", good[i].line,
               told(good[i].line));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        EXPECT(isnan(told(bad[i])), "%s: %g s", bad[i], told(bad[i]));
    char longest[300];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    EXPECT(isnan(told(longest)), "a line without a colon");
    longest[20] = ':';
    EXPECT(isnan(told(longest)), "a long value");
}

static void test_limits(void) {
    RateLimits r = rate_limits_unknown();
    EXPECT(rate_limits_wait(&r, true) == 0 && rate_limits_wait(&r, false) == 0, "nothing is said");
    rate_limits_take(&r, "x-ratelimit-remaining-requests: 3", NOW);
    rate_limits_take(&r, "x-ratelimit-reset-requests: 12s", NOW);
    EXPECT(rate_limits_wait(&r, false) == 0, "three are left: %g", rate_limits_wait(&r, false));
    rate_limits_take(&r, "x-ratelimit-remaining-requests: 0", NOW);
    EXPECT(rate_limits_wait(&r, false) == 12, "none is left: %g", rate_limits_wait(&r, false));
    rate_limits_take(&r, "x-ratelimit-remaining-tokens: 0", NOW);
    rate_limits_take(&r, "x-ratelimit-reset-tokens: 6m0s", NOW);
    EXPECT(rate_limits_wait(&r, true) == 360, "the later of both: %g", rate_limits_wait(&r, true));
    rate_limits_take(&r, "retry-after: 2", NOW);
    EXPECT(rate_limits_wait(&r, true) == 2, "retry-after decides: %g", rate_limits_wait(&r, true));
    EXPECT(rate_limits_wait(&r, false) == 360, "but where nothing was refused: %g",
           rate_limits_wait(&r, false));
}

static void test_which(void) {
    static const int again[] = {408, 409, 425, 429, 500, 502, 503, 504, 520, 529};
    static const int never[] = {301, 400, 401, 403, 404, 413, 422, 501, 505};
    Attempt a = {.tries = 1, .code = ""};
    for (size_t i = 0; i < sizeof again / sizeof *again; i++) {
        a.status = again[i];
        EXPECT(retry_next(&a, 6, 0).again, "HTTP %d", a.status);
    }
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        a.status = never[i];
        EXPECT(!retry_next(&a, 6, 0).again, "HTTP %d", a.status);
    }
    a = (Attempt){.tries = 1, .code = ""};
    EXPECT(retry_next(&a, 6, 0).again, "no answer");
    a.fatal = true;
    EXPECT(!retry_next(&a, 6, 0).again, "a certificate");
    a = (Attempt){.tries = 1, .status = 429, .code = "insufficient_quota"};
    EXPECT(!retry_next(&a, 6, 0).again && !retry_may_help(&a), "a quota that is used up");
    a = (Attempt){.tries = 6, .status = 500, .code = ""};
    EXPECT(!retry_next(&a, 6, 0).again && retry_may_help(&a), "six tries of six");
    a.tries = 5;
    EXPECT(retry_next(&a, 6, 0).again, "five of six");
}

static void test_when(void) {
    Attempt a = {.status = 500, .code = ""};
    double sum = 0;
    for (a.tries = 1; a.tries <= 12; a.tries++) {
        double pause = fmin(60, 0.5 * pow(2, a.tries - 1));
        Retry soon = retry_next(&a, 100, 0), mean = retry_next(&a, 100, 0.5);
        EXPECT(near(soon.seconds, pause / 2) && near(mean.seconds, pause), "try %d: %g and %g s",
               a.tries, soon.seconds, mean.seconds);
        sum += mean.seconds;
    }
    EXPECT(near(sum, 63.5 + 5 * 60), "twelve failures wait %g s", sum); /* .5 + 1 + .. + 32 */
    a = (Attempt){.tries = 1, .status = 429, .code = "", .wait = 20};
    Retry first = retry_next(&a, 6, 0), last = retry_next(&a, 6, 0.999);
    EXPECT(first.seconds == 20 && last.seconds > 21 && last.seconds < 22, "%g to %g s",
           first.seconds, last.seconds);
    a.tries = 9, a.wait = 1;
    EXPECT(retry_next(&a, 10, 0).seconds == 30, "the longer of both");
    a = (Attempt){.tries = 1, .status = 429, .code = "", .wait = RETRY_LONGEST + 1};
    EXPECT(!retry_next(&a, 6, 0).again, "a day is not waited for");
}

int main(void) {
    test_headers();
    test_limits();
    test_which();
    test_when();
    return test_done("retry");
}
