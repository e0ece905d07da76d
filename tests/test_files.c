/* files.h: writes that appear whole or not at all, strict JSON, the digest of a file. */
#include "data/base/files.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "data/base/out_folder.h"
#include "tests/files.h"

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    CHECK(d, "%s", folder);
    int n = -2; /* . and .. */
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static int holds(const char *path, const char *want) {
    char *data;
    size_t n;
    Err err;
    if (!files_read(&data, &n, path, 1 << 20, &err)) return 0;
    int same = n == strlen(want) && strcmp(data, want) == 0;
    free(data);
    return same;
}

static void test_out_file(void) {
    Err err;
    OutFile *f;
    CHECK(files_mkdirs(test_path("out/a//b/"), &err), "%s", err.text);
    CHECK(files_mkdirs(test_path("out"), &err), "%s", err.text);
    const char *path = test_path("out/x");
    CHECK(files_write(path, "old", 3, &err), "%s", err.text);
    CHECK(files_create(&f, path, &err), "%s", err.text);
    fputs("new", files_stream(f));
    fflush(files_stream(f));
    EXPECT(holds(path, "old"), "the old file changed before commit");
    files_abandon(f);
    EXPECT(holds(path, "old") && entries(test_path("out")) == 2, "abandon leaves no trace");
    CHECK(files_create(&f, path, &err), "%s", err.text);
    fputs("new", files_stream(f));
    EXPECT(files_commit(f, &err) && holds(path, "new"), "commit");
    EXPECT(entries(test_path("out")) == 2, "commit leaves nothing else");
    EXPECT(files_write(path, NULL, 0, &err) && holds(path, ""), "an empty file");
    files_abandon(NULL);
    EXPECT(files_write(path, "kept", 4, &err) && files_can_create(path, &err) &&
               files_can_create(test_path("out/y"), &err),
           "%s", err.text);
    EXPECT(holds(path, "kept") && entries(test_path("out")) == 2, "a trial leaves no trace");
    EXPECT_REFUSED(files_can_create(test_path("out/no/x"), &err), err, EXIT_INPUT, "cannot write");

    CHECK(symlink("x", test_path("out/link")) == 0, "symlink");
    EXPECT(files_write(test_path("out/link"), "l", 1, &err) && holds(path, "l"),
           "a link is written through");
    CHECK(symlink("void", test_path("out/dangling")) == 0, "symlink");
    EXPECT_REFUSED(files_create(&f, test_path("out/a"), &err), err, EXIT_INPUT, "is a folder");
    EXPECT_REFUSED(files_create(&f, test_path("out/no/x"), &err), err, EXIT_INPUT, "cannot write");
    EXPECT_REFUSED(files_mkdirs(test_path("out/x/y"), &err), err, EXIT_INPUT, "make this folder");
    EXPECT_REFUSED(files_write("/dev/full", "x", 1, &err), err, EXIT_INTERNAL, "No space left");
    struct stat st;
    EXPECT(stat("/dev/full", &st) == 0 && S_ISCHR(st.st_mode), "a device must stay one");
}

/* What is asked before the work. */
static void test_folder_asked(void) {
    Err err;
    CHECK(files_mkdirs(test_path("out/a"), &err) && files_write(test_path("out/x"), "", 0, &err),
          "%s", err.text);
    int before = entries(test_path("out"));
    EXPECT(files_can_make_folder(test_path("out"), &err) &&
               files_can_make_folder(test_path("out/p/q/r/"), &err) &&
               files_can_make_folder("not-there", &err) && entries(test_path("out")) == before,
           "a trial leaves no trace");
    EXPECT_REFUSED(files_can_make_folder(test_path("out/x"), &err), err, EXIT_INPUT,
                   "x: cannot make this folder");
    EXPECT_REFUSED(files_can_make_folder(test_path("out/x/y/z"), &err), err, EXIT_INPUT,
                   "Not a dir");
    EXPECT_REFUSED(files_need_folder(test_path("out/x"), "this", &err), err, EXIT_INPUT,
                   "with this, this is a fi");
    EXPECT_REFUSED(files_need_folder(test_path("no"), "this", &err), err, EXIT_INPUT,
                   "No such file");
    EXPECT(files_need_folder(test_path("out"), "this", &err), "%s", err.text);
}

/* A reader never sees a mixture: a process killed while writing leaves the old file. */
static void test_killed(void) {
    const char *path = test_path("killed");
    Err err;
    CHECK(files_write(path, "old", 3, &err), "%s", err.text);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        OutFile *f;
        if (files_create(&f, path, &err)) fputs("half", files_stream(f)), fflush(files_stream(f));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    EXPECT(holds(path, "old"), "killed while writing");
}

static void put(const OutFolder *o, const char *name, const char *text) {
    Err err;
    char *path = files_join(out_folder_path(o), name);
    CHECK(files_write(path, text, strlen(text), &err), "%s", err.text);
    free(path);
}

static void test_out_folder(void) {
    Err err;
    OutFolder *o;
    CHECK(out_folder_open(&o, test_path("set/new"), &err), "%s", err.text);
    put(o, "a", "1");
    EXPECT(!files_exists(test_path("set/new/a")), "a file appeared before its time");
    out_folder_abandon(o);
    EXPECT(!files_exists(test_path("set")), "abandon leaves no trace");

    CHECK(out_folder_open(&o, test_path("set/new"), &err), "%s", err.text);
    put(o, "a", "1");
    put(o, "b", "1");
    EXPECT(out_folder_commit(o, &err), "%s", err.text);
    EXPECT(entries(test_path("set/new")) == 2 && holds(test_path("set/new/a"), "1"), "commit");

    CHECK(out_folder_open(&o, test_path("set/new"), &err), "%s", err.text);
    put(o, "a", "2");
    EXPECT(!out_folder_close(o, false, &err), "close reports success");
    EXPECT(entries(test_path("set/new")) == 2 && holds(test_path("set/new/a"), "1"), "the old one");
    CHECK(out_folder_open(&o, test_path("set/new"), &err), "%s", err.text);
    put(o, "a", "2");
    put(o, "c", "2");
    EXPECT(out_folder_close(o, true, &err), "%s", err.text);
    EXPECT(entries(test_path("set/new")) == 3 && holds(test_path("set/new/a"), "2") &&
               holds(test_path("set/new/b"), "1") && holds(test_path("set/new/c"), "2"),
           "over earlier files, beside others");

    CHECK(files_mkdirs(test_path("set/new/d/e"), &err), "%s", err.text);
    CHECK(out_folder_open(&o, test_path("set/new"), &err), "%s", err.text);
    put(o, "d", "3");
    EXPECT_REFUSED(out_folder_commit(o, &err), err, EXIT_INPUT, "cannot move new files");
    EXPECT(entries(test_path("set/new")) == 4, "a failed commit leaves no trace");
    EXPECT_REFUSED(out_folder_open(&o, test_path("set/new/a"), &err), err, EXIT_INPUT,
                   "make this folder");
}

/* What an earlier process of the same number left behind is neither in the way nor taken for this
 * one's. */
static void test_left_behind(void) {
    Err err;
    char name[64];
    snprintf(name, sizeof name, "half.tmp.%ld", (long)getpid());
    test_file(name, "half a file", 11);
    EXPECT(files_write(test_path("half"), "w", 1, &err) && holds(test_path("half"), "w"), "%s",
           err.text);
    OutFolder *o;
    CHECK(out_folder_open(&o, test_path("left"), &err), "%s", err.text);
    put(o, "old", "1");
    OutFolder *again;
    CHECK(out_folder_open(&again, test_path("left"), &err), "%s", err.text);
    put(again, "new", "2");
    EXPECT(out_folder_commit(again, &err), "%s", err.text);
    EXPECT(entries(test_path("left")) == 1 && holds(test_path("left/new"), "2"), "left over");
    out_folder_abandon(o);
    EXPECT(holds(test_path("left/new"), "2"), "too much was removed");
}

/* A line has 1023 bytes: where a path leaves too few, its own end is lost, not what to do. */
static void test_long_path(void) {
    char path[4000], long_text[2000];
    Err err;
    char *data;
    size_t n;
    memset(path, 'a', sizeof path - 1), path[sizeof path - 1] = 0;
    EXPECT_REFUSED(files_read(&data, &n, path, 1, &err), err, EXIT_INPUT,
                   "a: cannot open: File name too long; check the path");
    memset(long_text, 'b', sizeof long_text - 1), long_text[sizeof long_text - 1] = 0;
    err_set(&err, EXIT_INPUT, "%s", long_text);
    EXPECT(!err_remedy(&err, "cut it") && strlen(err.text) == sizeof err.text - 1 &&
               strstr(err.text, "b; cut it"),
           "%zu bytes", strlen(err.text));
}

static void test_read(void) {
    Err err;
    char *data;
    size_t n;
    const char *path = test_file("five", "12\0 5", 5);
    EXPECT(files_read(&data, &n, path, 5, &err), "%s", err.text);
    EXPECT(n == 5 && memcmp(data, "12\0 5", 6) == 0, "%zu bytes", n);
    free(data);
    EXPECT_REFUSED(files_read(&data, &n, path, 4, &err), err, EXIT_INPUT, "at most 4 bytes");
    EXPECT_REFUSED(files_read(&data, &n, "/dev/zero", 10000, &err), err, EXIT_INPUT,
                   "at most 10000 bytes");
    EXPECT_REFUSED(files_read(&data, &n, test_path(""), 4, &err), err, EXIT_INPUT, "a folder");
    EXPECT_REFUSED(files_read(&data, &n, test_path("none"), 4, &err), err, EXIT_INPUT,
                   "cannot open: No such file");
    EXPECT(files_read(&data, &n, "/dev/null", 0, &err) && n == 0, "an empty device");
    free(data);
    char *joined = files_join("a", "b"), *slash = files_join("a/", "b");
    EXPECT(strcmp(joined, "a/b") == 0 && strcmp(slash, "a/b") == 0, "%s %s", joined, slash);
    free(joined), free(slash);
}

static void test_json(void) {
    static const struct {
        const char *text, *message;
    } BAD[] = {
        {"", "valid JSON"},
        {"{", "line 1, column"},
        {"{\n\n\"a\":}", "line 3, column"},
        {"{} {}", "end of file expected"},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"{\"a\":\"\xff\"}", "unable to decode byte"},
        {"{\"a\":\"\\ud800\"}", "invalid Unicode"},
        {"{\"a\":\"\\u0000\"}", "\\u0000"},
        {"{\"a\":1e999}", "overflow"},
        {"{\"a\":99999999999999999999}", "too big integer"},
        {"{'a':1}", "valid JSON"},
        {"{\"a\":NaN}", "valid JSON"},
        {"{\"a\":1,}", "valid JSON"},
    };
    Err err;
    json_t *v;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        const char *path = test_file("bad.json", BAD[i].text, strlen(BAD[i].text));
        EXPECT_REFUSED(files_read_json(&v, path, 4096, &err), err, EXIT_INPUT, BAD[i].message);
        EXPECT(strstr(err.text, path), "expected the file's name in: %s", err.text);
    }
    char deep[8192]; /* a parser that recurses without limit dies here */
    memset(deep, '[', sizeof deep);
    EXPECT_REFUSED(files_parse_json(&v, deep, sizeof deep, JSON_NUL_REFUSED, "deep", &err), err,
                   EXIT_INPUT, "depth");
    const char *nul = "[\"a\\u0000b\"]";
    EXPECT(files_parse_json(&v, nul, strlen(nul), JSON_NUL_ALLOWED, "nul", &err), "%s", err.text);
    EXPECT(json_string_length(json_array_get(v, 0)) == 3, "length with NUL");
    EXPECT(files_write_json(test_path("nul.json"), v, &err), "%s", err.text);
    json_decref(v);
    v = json_pack("{s:i, s:f}", "a", 7, "b", 0.1);
    CHECK(v && files_write_json(test_path("good.json"), v, &err), "write");
    json_t *back;
    EXPECT(files_read_json(&back, test_path("good.json"), 4096, &err), "%s", err.text);
    EXPECT(json_equal(v, back), "a value changed on its way through a file");
    json_decref(v), json_decref(back);
}

/* So much more than it has now, no more. */
static void leave_memory(rlim_t bytes) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%lu", &pages) == 1, "statm");
    fclose(f);
    struct rlimit now = {pages * (rlim_t)sysconf(_SC_PAGESIZE) + bytes, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &now) == 0, "setrlimit");
}

/* A string that does not fit into what is left of memory is no fault of the file. */
static void test_json_without_memory(void) {
    enum { LONG = 1 << 22 };
    char *text = malloc(LONG);
    CHECK(text, "malloc");
    memset(text, 'a', LONG), text[0] = text[LONG - 1] = '"';
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork failed");
    if (child == 0) {
        json_t *v;
        Err err;
        CHECK(freopen("/dev/null", "w", stderr), "/dev/null does not open");
        leave_memory(LONG / 4);
        files_parse_json(&v, text, LONG, JSON_NUL_REFUSED, "long", &err);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child, "waitpid failed");
    EXPECT(!WIFEXITED(status) || WEXITSTATUS(status) != 0, "the file was blamed");
    free(text);
}

/* A hole reads as zeros, what comes behind it lies behind it, and one at the end is counted. */
static void test_hole(void) {
    enum { HOLE = 1 << 20 };
    OutFile *f;
    Err err;
    struct stat st;
    char *data;
    size_t n;
    bool ok = files_create(&f, test_path("hole"), &err) && files_put(f, "ab", 2, &err) &&
              files_hole(f, HOLE, &err) && files_put(f, "c", 1, &err) && files_hole(f, HOLE, &err);
    EXPECT(ok && files_commit(f, &err), "%s", err.text);
    CHECK(stat(test_path("hole"), &st) == 0, "stat");
    EXPECT(st.st_size == 2 * HOLE + 3, "%lld bytes", (long long)st.st_size);
    EXPECT(st.st_blocks * 512 < HOLE, "%lld blocks", (long long)st.st_blocks);
    EXPECT(files_read(&data, &n, test_path("hole"), 4 * HOLE, &err), "%s", err.text);
    EXPECT(n == 2 * HOLE + 3 && memcmp(data, "ab", 2) == 0 && data[HOLE + 2] == 'c', "%zu", n);
    for (size_t i = 2; i < n; i++)
        if (i != HOLE + 2) EXPECT(data[i] == 0, "%zu: %d", i, data[i]);
    free(data);
    EXPECT(files_create(&f, "/dev/null", &err), "%s", err.text);
    EXPECT_REFUSED(files_hole(f, 1, &err), err, EXIT_INPUT, "/dev/null: cannot write");
    files_abandon(f);
}

static void test_sha256(void) {
    char hex[65];
    Err err;
    const char *path = test_file("abc", "abc", 3);
    EXPECT(files_sha256(hex, path, &err) &&
               strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0,
           "%s", hex);
    EXPECT_REFUSED(files_sha256(hex, test_path("no"), &err), err, EXIT_INPUT, "cannot open");
}

int main(void) {
    test_out_file();
    test_folder_asked();
    test_killed();
    test_out_folder();
    test_left_behind();
    test_long_path();
    test_read();
    test_json();
    test_json_without_memory();
    test_hole();
    test_sha256();
    return test_done("test_files");
}
