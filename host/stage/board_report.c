/* board_report.c - what a watchdog has written about the ranks, as a table. */
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "host/cli/print.h"
#include "host/stage/board.h"

enum { DUMP_BYTES = 1 << 30, SHOWN = 12 };

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}
static long long number_of(const json_t *object, const char *key) {
    return (long long)json_integer_value(json_object_get(object, key));
}

/* "exchange of gradients (81,920 bytes), step 3 of phase step" */
static void print_call(const json_t *call) {
    char bytes[PRINT_ROOM];
    printf("%s", text_of(call, "op"));
    if (*text_of(call, "what")) printf(" of %s", text_of(call, "what"));
    if (number_of(call, "bytes"))
        printf(" (%s %s)", print_count(bytes, (double)number_of(call, "bytes")),
               text_of(call, "type"));
    printf(", %s", text_of(call, "phase"));
    if (number_of(call, "step")) printf(" %lld", number_of(call, "step"));
}

static const json_t *call_number(const json_t *seat, long long number) {
    size_t i;
    json_t *call;
    json_array_foreach (json_object_get(seat, "calls"), i, call)
        if (number_of(call, "call") == number) return call;
    return NULL;
}

static void print_seat(const json_t *seat, double now) {
    long long begun = number_of(seat, "begun");
    const json_t *last = call_number(seat, begun - 1);
    printf("rank %-4lld %-16s %-8lld %-9s %6.1f s ago  ", number_of(seat, "rank"),
           text_of(seat, "host"), number_of(seat, "pid"), text_of(seat, "state"),
           now - json_number_value(json_object_get(seat, "beat")));
    if (last) {
        printf("%s call %lld: ", number_of(seat, "ended") < begun ? "in" : "after", begun - 1);
        print_call(last);
    } else {
        printf("no call");
    }
    putchar('\n');
}

/* The calls around the first one that not all ranks have begun, each with the ranks that have. */
static void print_calls(const json_t *seats) {
    long long least = -1;
    size_t i;
    json_t *seat;
    json_array_foreach (seats, i, seat)
        if (least < 0 || number_of(seat, "begun") < least) least = number_of(seat, "begun");
    long long first = least > SHOWN ? least - SHOWN : 0;
    for (long long k = first; k < least + 2; k++) {
        const json_t *call = NULL;
        json_array_foreach (seats, i, seat)
            if (!call) call = call_number(seat, k);
        if (!call) continue;
        printf("call %-8lld ", k);
        print_call(call);
        if (k >= least) printf("; without");
        json_array_foreach (seats, i, seat)
            if (k >= least && !call_number(seat, k)) printf(" rank %lld", number_of(seat, "rank"));
        putchar('\n');
    }
}

bool board_report(const char *path, Err *err) {
    json_t *dump;
    if (!files_read_json(&dump, path, DUMP_BYTES, err)) return false;
    const json_t *seats = json_object_get(dump, "seats");
    bool ok = strcmp(text_of(dump, "format"), "sails ranks 1") == 0 && json_is_array(seats);
    double now = json_number_value(json_object_get(dump, "now"));
    size_t i;
    json_t *seat;
    if (ok) printf("%s\n\n", text_of(dump, "verdict"));
    if (ok)
        json_array_foreach (seats, i, seat) print_seat(seat, now);
    if (ok) putchar('\n'), print_calls(seats);
    json_decref(dump);
    return ok || err_set(err, EXIT_INPUT,
                         "%s: expected what a watchdog of sails has written; give the file that "
                         "its line names",
                         path);
}
