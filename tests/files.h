/* files.h - a folder for the files of one test program, removed when it ends. */
#ifndef SAILS_TEST_FILES_H
#define SAILS_TEST_FILES_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "kernels/check.h"
#include "tests/test.h"

static char test_folder[256];

static int test_remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void test_remove_folder(void) {
    nftw(test_folder, test_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Path of a file in the test's folder, in one of eight buffers used in turn. */
static inline const char *test_path(const char *name) {
    static char path[8][1024];
    static int turn;
    if (!test_folder[0]) {
        const char *base = getenv("TMPDIR");
        snprintf(test_folder, sizeof test_folder, "%s/sails-test-XXXXXX", base ? base : "/tmp");
        CHECK(mkdtemp(test_folder), "cannot make %s", test_folder);
        atexit(test_remove_folder);
    }
    turn = (turn + 1) % 8;
    snprintf(path[turn], sizeof path[turn], "%s/%s", test_folder, name);
    return path[turn];
}

/* Writes a file of the test's folder and gives its path. */
static inline const char *test_file(const char *name, const void *data, size_t n) {
    const char *path = test_path(name);
    Err err;
    CHECK(files_write(path, data, n, &err), "%s", err.text);
    return path;
}

/* The call must fail, with this exit code and with `part` in its message. */
#define EXPECT_REFUSED(call, err, exit_code, part)                                                 \
    do {                                                                                           \
        (err).text[0] = 0;                                                                         \
        int refused_ = !(call);                                                                    \
        EXPECT(refused_, "expected a refusal: %s", part);                                          \
        EXPECT(!refused_ || (err).code == (exit_code), "code %d: %s", (int)(err).code,             \
               (err).text);                                                                        \
        EXPECT(!refused_ || strstr((err).text, part), "expected \"%s\" in: %s", part, (err).text); \
    } while (0)

#endif
