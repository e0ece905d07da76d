/* meter.c - the line of progress. */
#include "host/judge/meter.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "host/cli/print.h"

static const double OFTEN = 0.1, SELDOM = 10; /* seconds between two lines */

double meter_cost(const Meter *m, const Metered *at) {
    return (at->tokens_in * m->price_in + at->tokens_out * m->price_out) * 1e-6;
}

void meter_begin(Meter *m, double price_in, double price_out, bool quiet) {
    double now = clock_seconds();
    *m = (Meter){price_in, price_out, now, now, quiet, isatty(STDERR_FILENO)};
}

const char *meter_text(char text[METER_ROOM], const Meter *m, const Metered *at, double seconds) {
    char left[PRINT_ROOM], in[PRINT_ROOM], out[PRINT_ROOM], cost[PRINT_ROOM] = "";
    double share = at->wanted ? (double)at->done / (double)at->wanted : 1;
    double remain = share > 0 ? seconds * (1 - share) / share : NAN;
    if (m->price_in > 0 || m->price_out > 0)
        snprintf(cost, sizeof cost, ", %.2f USD", meter_cost(m, at));
    snprintf(text, METER_ROOM, "judged %zu of %zu, %.0f %%, %s left, %s tokens in, %s out%s",
             at->done, at->wanted, 100 * share, print_seconds(left, remain),
             print_count(in, at->tokens_in), print_count(out, at->tokens_out), cost);
    return text;
}

static void draw(Meter *m, const Metered *at, double now) {
    char text[METER_ROOM];
    m->drawn = now;
    meter_text(text, m, at, now - m->start);
    fprintf(stderr, m->terminal ? "\r%s\033[K" : "%s\n", text);
    fflush(stderr);
}

void meter_at(Meter *m, const Metered *at) {
    double now = clock_seconds();
    if (!m->quiet && now - m->drawn >= (m->terminal ? OFTEN : SELDOM)) draw(m, at, now);
}

void meter_end(Meter *m, const Metered *at) {
    if (m->quiet || at->done == 0) return;
    draw(m, at, clock_seconds());
    if (m->terminal) fputc('\n', stderr);
}
