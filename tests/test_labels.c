/* Files of labels in each of their forms, and what is none. */
#include "host/stage/labels.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "tests/test.h"

static char path[] = "/tmp/sails-labels-XXXXXX";

static bool read_text(Labels *l, const char *text, int layer, Err *err) {
    CHECK(files_write(path, text, strlen(text), err), "%s", err->text);
    return labels_read(l, path, layer, err);
}

static void expect(const char *text, int layer, int index, const char *want) {
    Labels l;
    Err err;
    bool ok = read_text(&l, text, layer, &err);
    EXPECT(ok, "%s: %s", text, ok ? "" : err.text);
    const char *got = ok ? labels_find(&l, layer, index) : NULL;
    EXPECT(got && want ? strcmp(got, want) == 0 : got == want, "%s: layer %d, %d is '%s'", text,
           layer, index, got ? got : "(none)");
    if (ok) labels_free(&l);
}

static void refused(const char *text, const char *words) {
    Labels l;
    Err err;
    bool ok = read_text(&l, text, 1, &err);
    EXPECT(!ok && err.code == EXIT_INPUT && strstr(err.text, words), "%s: %s", text,
           ok ? "read" : err.text);
    if (ok) labels_free(&l);
}

static void test_forms(void) {
    expect("{\"17\": \"a\", \"3\": \"b\"}", 5, 3, "b");
    expect("{\"17\": \"a\"}", 5, 7, NULL);
    expect("{\"5\": {\"17\": \"a\"}, \"6\": {\"17\": \"c\"}}", 6, 17, "c");
    expect("{\"5\": {\"17\": \"a\"}}", 6, 17, NULL);
    expect("[{\"index\": 2, \"description\": \"x\"}, {\"index\": \"3\", \"label\": \"y\"}]", 0, 3,
           "y");
    expect("{\"index\": 2, \"description\": \"one line\"}", 0, 2, "one line");
    expect(
        "{\"index\": \"2\", \"layer\": \"20-gemmascope-res-16k\", \"description\": \"x\"}\n"
        "{\"index\": \"2\", \"layer\": \"21-gemmascope-res-16k\", \"description\": \"y\"}\n"
        "{\"index\": \"2\", \"layer\": 21, \"description\": \"late\"}\n",
        21, 2, "y");
    expect("{\"index\": 2, \"description\": \"a\"}\n\n{\"index\": 4, \"description\": \"b\"}\n", 9,
           4, "b");
}

static void test_none(void) {
    Labels l;
    Err err;
    EXPECT(labels_read(&l, "", 3, &err) && l.n == 0 && !labels_find(&l, 3, 1), "no file");
    labels_free(&l);
    EXPECT(
        !labels_read(&l, "/nowhere/{layer}.json", 3, &err) && strstr(err.text, "/nowhere/3.json"),
        "%s", err.text);
    char *of = labels_path("a{layer}b", 12);
    EXPECT(strcmp(of, "a12b") == 0, "%s", of);
    free(of);
    refused("{\"x\": \"a\"}", "expected a feature's index");
    refused("{\"-1\": \"a\"}", "expected a feature's index");
    refused("{\"1\": 7}", "expected a feature's index");
    refused("{\"1\": {\"2\": {\"3\": \"a\"}}}", "expected a feature's index");
    refused("[{\"index\": 1}]", "entry 1: expected {\"index\"");
    refused("[{\"description\": \"x\"}]", "entry 1: expected");
    refused("[{\"index\": -1, \"description\": \"x\"}]", "entry 1: expected");
    refused("[{\"index\": 1, \"layer\": \"x\", \"description\": \"x\"}]", "entry 1: expected");
    refused("[7]", "entry 1: expected");
    refused("{\"index\": 2, \"description\": \"a\"}\n{\"index\": 4\n", "line 2");
}

int main(void) {
    int fd = mkstemp(path);
    CHECK(fd >= 0 && close(fd) == 0, "no temporary file");
    test_forms();
    test_none();
    unlink(path);
    return test_done("labels");
}
