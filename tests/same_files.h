/* same_files.h - results that are to have the same bytes, and folders that are to be made again. */
#ifndef SAILS_TEST_SAME_FILES_H
#define SAILS_TEST_SAME_FILES_H

#include "tests/bad_rows.h"

/* Removes a result and what was kept on the way to it. */
static inline void forget(const char *path) {
    char command[1100];
    snprintf(command, sizeof command, "rm -rf %s %s.partial", path, path);
    CHECK(system(command) == 0, "%s", command);
}

static inline bool same_bytes(const char *path, const char *other) {
    Buf a, b;
    bool there = read_bytes(&a, path), both = read_bytes(&b, other) && there;
    bool same = both && a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
    buf_free(&a), buf_free(&b);
    return same;
}

/* The same, and says whether it is missing, or where it differs. */
static inline void expect_same(const char *what, const char *path, const char *other) {
    Buf a = {0}, b = {0};
    size_t k = 0;
    bool there = read_bytes(&a, path);
    CHECK(read_bytes(&b, other), "%s", other);
    while (k < a.n && k < b.n && a.p[k] == b.p[k]) k++;
    EXPECT(there, "%s: there is no %s", what, path);
    EXPECT(!there || (a.n == b.n && k == a.n), "%s: %s is not %s: %zu and %zu bytes, from %zu on",
           what, path, other, a.n, b.n, k);
    buf_free(&a), buf_free(&b);
}

/* Of the file `name` in two folders. */
static inline void expect_same_in(const char *what, const char *name, const char *folder,
                                  const char *other) {
    char path[2][1024];
    snprintf(path[0], sizeof path[0], "%s/%s", folder, name);
    snprintf(path[1], sizeof path[1], "%s/%s", other, name);
    expect_same(what, path[0], path[1]);
}

#endif
