/* retry.h - what follows a request that failed: once more, and when, or never. Pure: the time and
 * the dice are arguments.
 *
 * Again: no answer at all (refused, reset, timed out, broken off), HTTP 408, 409, 425, 429 and 5xx
 * (but 501 and 505, which time does not mend). Never: every other status - 400, 401, 403, 404, 422
 * say that the request is wrong -, an account whose quota is used up, which says so with 429, and a
 * certificate that is not to be trusted.
 *
 * When: after a failure number k, 0.5 s * 2^(k-1), at most 60 s, times a random factor from 0.5 to
 * 1.5, so that requests which failed together do not return together. Where the server says how
 * long (retry-after, or what its rate limits need to fill again), not before that, and up to a
 * tenth later. One that asks for more than ten minutes is not waited for. */
#ifndef SAILS_RETRY_H
#define SAILS_RETRY_H

#include <stdbool.h>

enum { RETRY_LONGEST = 600 /* seconds */ };

/* What a server says of its limits; NaN: nothing. Times are seconds from the answer on. */
typedef struct RateLimits {
    double retry_after;
    double requests_left, requests_reset; /* x-ratelimit-remaining-requests, -reset-requests */
    double tokens_left, tokens_reset;
} RateLimits;
RateLimits rate_limits_unknown(void);

/* Takes one header line, "Name: value" with or without its end; others than these are ignored.
 * `now` is the time in seconds since 1970, for dates. Times are given as a number of seconds, as
 * "1m30.5s" or "20ms", as a date, or as seconds since 1970. What is none of these says nothing. */
void rate_limits_take(RateLimits *r, const char *line, double now);

/* For how long a server with these limits should be left alone; 0: it need not. `refused`: it has
 * answered 429. */
double rate_limits_wait(const RateLimits *r, bool refused);

typedef struct Attempt {
    int tries;        /* of this request so far, this one among them */
    int status;       /* HTTP; 0: no answer */
    bool fatal;       /* no answer, and asking again cannot mend that */
    const char *code; /* of the error in the answer's body, "insufficient_quota"; "" */
    double wait;      /* rate_limits_wait */
} Attempt;

typedef struct Retry {
    bool again;
    double seconds; /* to wait before it */
} Retry;

/* most: tries of one request; dice: uniform in [0, 1). */
Retry retry_next(const Attempt *a, int most, double dice);

/* Could the same request succeed later? What retry_next asks before it counts tries. */
bool retry_may_help(const Attempt *a);

#endif
