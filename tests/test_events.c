/* Events for TensorBoard: a file's bytes against those that a program of its own has put together
 * (tools/check_events.py reads files with TensorBoard itself), and what metrics leave in one, also
 * when they go on from an earlier process. */
#include "host/stage/events.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/metrics.h"
#include "tests/test.h"

static char folder[] = "/tmp/sails-events-XXXXXX";

static char *path_of(const char *name) {
    return files_join(folder, name);
}

static char *read_file(const char *name, size_t *n) {
    Err err;
    char *data, *path = path_of(name);
    CHECK(files_read(&data, n, path, 1 << 20, &err), "%s", err.text);
    free(path);
    return data;
}

/* At 1.5 s since 1970 the version, at 2.25 s step 300 with train/loss 0.5 and eval/loss -3. */
static const char known[] =
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e457665"
    "6e743a322a28646c33000000000000000ca7205609000000000000024010ac02"
    "2a250a110a0a747261696e2f6c6f7373150000003f0a100a096576616c2f6c6f"
    "737315000040c025a0a93c";

static void test_bytes(void) {
    Err err;
    Events *e;
    size_t n;
    char *path = path_of("known"), hex[1024] = "";
    json_t *line = json_pack("{s:i, s:f, s:f, s:s}", "step", 300, "loss", 0.5, "eval_loss", -3.0,
                             "method", "sails");
    json_t *none = json_pack("{s:f}", "loss", 0.5);
    CHECK(events_open(&e, path, 1.5, &err), "%s", err.text);
    CHECK(events_line(e, line, 2.25, &err) && events_line(e, none, 3, &err), "%s", err.text);
    CHECK(events_close(e, &err), "%s", err.text);
    char *data = read_file("known", &n);
    for (size_t i = 0; i < n && 2 * i + 3 < sizeof hex; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)data[i]);
    EXPECT(strcmp(hex, known) == 0, "%zu bytes: %s", n, hex);
    json_decref(line), json_decref(none);
    free(data), free(path);
    EXPECT(!events_open(&e, "/nowhere/events", 0, &err) && strstr(err.text, "/nowhere/events"),
           "%s", err.text);
}

/* Records of a file by their lengths alone. */
static int records(const char *name, size_t *last) {
    size_t n, at = 0;
    int count = 0;
    char *data = read_file(name, &n);
    while (at + 16 <= n) {
        uint64_t length;
        memcpy(&length, data + at, sizeof length);
        *last = (size_t)length;
        at += length + 16, count++;
    }
    EXPECT(at == n, "%zu bytes of %zu", at, n);
    free(data);
    return count;
}

/* A run of three steps, and one that goes on from their lines. */
static void test_metrics(void) {
    Err err;
    Metrics m;
    size_t n, last;
    char *path = path_of("metrics"), *events = path_of(EVENTS_FILE);
    CHECK(metrics_open(&m, path, events, true, 0, &err), "%s", err.text);
    for (int i = 1; i <= 3; i++) {
        const StepMetrics s = {.step = i, .total = 9, .loss = i, .seconds = 1, .redundancy = NAN};
        CHECK(metrics_step(&m, &s, &err), "%s", err.text);
    }
    CHECK(metrics_close(&m, &err), "%s", err.text);
    EXPECT(records(EVENTS_FILE, &last) == 4, "%d records", records(EVENTS_FILE, &last));
    char *lines = read_file("metrics", &n);
    const RunTotals totals = {.steps = 3};
    CHECK(metrics_open(&m, path, events, true, 0, &err) &&
              metrics_resume(&m, &totals, lines, n, &err),
          "%s", err.text);
    EXPECT(records(EVENTS_FILE, &last) == 4, "resumed: %d records", records(EVENTS_FILE, &last));
    CHECK(metrics_close(&m, &err), "%s", err.text);
    CHECK(metrics_open(&m, path, NULL, true, 0, &err) && metrics_close(&m, &err), "%s", err.text);
    EXPECT(records(EVENTS_FILE, &last) == 4, "no events were asked for");
    free(lines), free(path), free(events);
}

int main(void) {
    char command[64];
    CHECK(mkdtemp(folder), "no temporary folder");
    test_bytes();
    test_metrics();
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    CHECK(system(command) == 0, "%s", command);
    return test_done("events");
}
