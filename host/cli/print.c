/* print.c - tables, counts, times and progress for people. */
#include "host/cli/print.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/check.h"

const char *print_bytes(char text[PRINT_ROOM], double bytes) {
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int i = 0;
    for (; bytes >= 999.5 && i < 5; i++) bytes /= 1000;
    snprintf(text, PRINT_ROOM, i == 0 ? "%.0f %s" : "%.3g %s", bytes, unit[i]);
    return text;
}

const char *print_count(char text[PRINT_ROOM], double n) {
    char digits[PRINT_ROOM];
    int len = snprintf(digits, sizeof digits, "%.0f", fmin(fabs(n), 1e18));
    char *p = text;
    if (n < 0) *p++ = '-';
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) *p++ = ',';
        *p++ = digits[i];
    }
    *p = 0;
    return text;
}

const char *print_seconds(char text[PRINT_ROOM], double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(text, PRINT_ROOM, "?");
    } else if (seconds < 60) {
        snprintf(text, PRINT_ROOM, "%.3g s", seconds);
    } else {
        long s = lround(seconds);
        if (s < 3600)
            snprintf(text, PRINT_ROOM, "%ldm %02lds", s / 60, s % 60);
        else
            snprintf(text, PRINT_ROOM, "%ldh %02ldm", s / 3600, s % 3600 / 60);
    }
    return text;
}

void print_json(json_t *value) {
    CHECK(value, "a JSON value could not be made");
    json_dumpf(value, stdout, JSON_COMPACT); /* a failed write shows when stdout is closed */
    putchar('\n');
    json_decref(value);
}

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool hidden;

void progress_hide(void) {
    hidden = true;
}

void progress_begin(Progress *p, const char *what, bool quiet) {
    *p = (Progress){what, clock_seconds(), 0, !quiet && !hidden && isatty(STDERR_FILENO)};
}

void progress_at(Progress *p, double done, double total) {
    double now = clock_seconds();
    if (!p->shown || now - p->drawn < 0.1 || !(total > 0)) return;
    p->drawn = now;
    enum { WIDTH = 30 };
    char bar[WIDTH + 1], left[PRINT_ROOM];
    double share = fmin(1, done / total);
    int full = (int)(share * WIDTH);
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)full);
    bar[WIDTH] = 0;
    double remain = share > 0 ? (now - p->start) * (1 - share) / share : NAN;
    fprintf(stderr, "\r%-9s [%s] %3.0f%%  %s left \033[K", p->what, bar, 100 * share,
            print_seconds(left, remain));
    fflush(stderr);
}

void progress_end(Progress *p) {
    if (p->shown) fputs("\r\033[K", stderr);
    p->shown = false;
}
