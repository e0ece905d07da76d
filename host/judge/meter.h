/* meter.h - how far the judging is, what is left, and what it costs, while it runs: on stderr, as
 * one line that is rewritten where that is a terminal, else as a line every ten seconds. */
#ifndef SAILS_METER_H
#define SAILS_METER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Meter {
    double price_in, price_out; /* USD for a million tokens; 0: not known */
    double start, drawn;
    bool quiet, terminal;
} Meter;

/* What has come so far: answers of the wanted ones, and tokens as the server counts them. */
typedef struct Metered {
    size_t done, wanted;
    double tokens_in, tokens_out;
} Metered;

double meter_cost(const Meter *m, const Metered *at); /* USD */

void meter_begin(Meter *m, double price_in, double price_out, bool quiet);
void meter_at(Meter *m, const Metered *at);
void meter_end(Meter *m, const Metered *at); /* the last state, where anything was shown */

/* "judged 120 of 300, 40 %, 3m 10s left, 412,000 tokens in, 21,000 out, 0.09 USD" */
enum { METER_ROOM = 192 };
const char *meter_text(char text[METER_ROOM], const Meter *m, const Metered *at, double seconds);

#endif
