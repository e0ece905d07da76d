/* print.h - numbers and records for people and for machines. */
#ifndef SAILS_PRINT_H
#define SAILS_PRINT_H

#include <stdbool.h>

#include <jansson.h>

enum { PRINT_ROOM = 32 };

/* "5.23 GB" (powers of ten), "1,234,567", "1h 02m", "3.4 s" into `text`; they return it. */
const char *print_bytes(char text[PRINT_ROOM], double bytes);
const char *print_count(char text[PRINT_ROOM], double n);
const char *print_seconds(char text[PRINT_ROOM], double seconds);

/* One compact line on stdout; takes the reference. */
void print_json(json_t *value);

/* Progress of a long loop: a bar on stderr, only when that is a terminal. */
typedef struct Progress {
    const char *what; /* borrowed */
    double start, drawn;
    bool shown;
} Progress;
void progress_begin(Progress *p, const char *what, bool quiet);
void progress_at(Progress *p, double done, double total); /* draws at most ten times a second */
void progress_end(Progress *p);                           /* erases the bar */
void progress_hide(void); /* no bars from this process: another rank's are shown */

double clock_seconds(void); /* monotonic */

#endif
