/* The file of verdicts: what is added is there again, a torn end is none and does not spoil what
 * follows, one process writes at a time, and what is no verdict is refused with its line. */
#include "host/judge/verdicts.h"

#include <fcntl.h>
#include <sys/file.h>

#include "tests/files.h"

#define KEY(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
#define A KEY("aa")
#define B KEY("bb")
#define LINE(key, rest) "{\"key\": \"" key "\", " rest "}\n"

static CompletionReply verdict(int score, const char *reason) {
    return (CompletionReply){score ? REPLY_VERDICT : REPLY_REFUSED, score, (char *)reason, 7, 2};
}

static int score_of(const Verdicts *v, const char *key) {
    return (int)json_integer_value(json_object_get(verdicts_find(v, key), "score"));
}

static void add(Verdicts *v, const char *key, int score) {
    Err err;
    CompletionReply r = verdict(score, "why\n\"so\"");
    CHECK(verdicts_add(v, key, &r, "m", "plain", &err), "%s", err.text);
}

static void test_again(void) {
    const char *path = test_path("v");
    Verdicts v;
    Err err;
    CHECK(verdicts_read(&v, path, &err), "%s", err.text);
    EXPECT(!verdicts_find(&v, A) && !files_exists(path), "a file that is not there");
    verdicts_close(&v, true, &err);
    CHECK(verdicts_open(&v, path, &err), "%s", err.text);
    add(&v, A, 2), add(&v, B, 0), add(&v, A, 5);
    EXPECT(score_of(&v, A) == 5, "the last of a key counts");
    CHECK(verdicts_close(&v, true, &err), "%s", err.text);
    CHECK(verdicts_read(&v, path, &err), "%s", err.text);
    const json_t *b = verdicts_find(&v, B);
    EXPECT(score_of(&v, A) == 5 && verdicts_end(b) == REPLY_REFUSED &&
               json_is_null(json_object_get(b, "score")),
           "%d", score_of(&v, A));
    EXPECT(strcmp(json_string_value(json_object_get(b, "reason")), "why\n\"so\"") == 0 &&
               json_integer_value(json_object_get(b, "in")) == 7 &&
               strlen(json_string_value(json_object_get(b, "rubric"))) == 64,
           "what it says");
    verdicts_close(&v, true, &err);
}

/* Cut within its last line. */
static void test_torn(void) {
    char *whole;
    size_t n;
    Verdicts v;
    Err err;
    CHECK(files_read(&whole, &n, test_path("v"), 1 << 20, &err), "%s", err.text);
    size_t last = n - 1;
    while (last > 0 && whole[last - 1] != '\n') last--;
    freopen(test_path("stderr"), "w", stderr);
    for (size_t cut = last; cut < n; cut += 9) {
        test_file("torn", whole, cut);
        CHECK(verdicts_open(&v, test_path("torn"), &err), "%s", err.text);
        EXPECT(score_of(&v, A) == 2, "cut at %zu: score %d", cut, score_of(&v, A));
        if (cut % 2) add(&v, B, 4);
        CHECK(verdicts_close(&v, true, &err), "%s", err.text);
        CHECK(verdicts_read(&v, test_path("torn"), &err), "cut at %zu: %s", cut, err.text);
        EXPECT(score_of(&v, A) == 2 && score_of(&v, B) == (cut % 2 ? 4 : 0), "cut at %zu", cut);
        EXPECT(v.torn == 0, "cut at %zu: %zu bytes are still torn", cut, v.torn);
        verdicts_close(&v, true, &err);
    }
    free(whole);
    fflush(stderr);
    char *said;
    CHECK(files_read(&said, &n, test_path("stderr"), 1 << 20, &err), "%s", err.text);
    EXPECT(strstr(said, "torn: line 3 is not whole"), "it is said: %.200s", said);
    free(said);
}

static void test_one_writer(void) {
    Verdicts v, other;
    Err err;
    CHECK(verdicts_open(&v, test_path("v"), &err), "%s", err.text);
    EXPECT_REFUSED(verdicts_open(&other, test_path("v"), &err), err, EXIT_USAGE,
                   "another run writes there");
    CHECK(verdicts_read(&other, test_path("v"), &err), "reading is free: %s", err.text);
    verdicts_close(&other, true, &err), verdicts_close(&v, true, &err);
    CHECK(verdicts_open(&v, test_path("v"), &err), "%s", err.text);
    verdicts_close(&v, true, &err);
    EXPECT_REFUSED(verdicts_open(&v, test_path("no/such/v"), &err), err, EXIT_INPUT, "no/such/v");
    EXPECT_REFUSED(verdicts_open(&v, "/dev/full/v", &err), err, EXIT_INPUT, "/dev/full/v");
}

static void test_bad(void) {
    static const char *const bad[] = {"{\"key\": \n",
                                      "[]\n",
                                      "3\n",
                                      LINE("short", "\"end\": \"verdict\", \"score\": 3"),
                                      LINE(A, "\"end\": \"verdict\", \"score\": 0"),
                                      LINE(A, "\"end\": \"verdict\", \"score\": 6"),
                                      LINE(A, "\"end\": \"verdict\", \"score\": null"),
                                      LINE(A, "\"end\": \"verdict\""),
                                      LINE(A, "\"end\": \"refused\", \"score\": 1"),
                                      LINE(A, "\"end\": \"other\", \"score\": null"),
                                      LINE(A, "\"score\": 3")};
    Verdicts v;
    Err err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[600];
        int n = snprintf(text, sizeof text, "%s\n%s", LINE(B, "\"end\": \"verdict\", \"score\": 3"),
                         bad[i]);
        test_file("bad", text, (size_t)n);
        EXPECT_REFUSED(verdicts_read(&v, test_path("bad"), &err), err, EXIT_INPUT, "line 3");
        EXPECT(strstr(err.text, "--judge-cache"), "%s", err.text);
        EXPECT_REFUSED(verdicts_open(&v, test_path("bad"), &err), err, EXIT_INPUT, "line 3");
    }
}

int main(void) {
    test_again();
    test_one_writer();
    test_bad();
    test_torn();
    return test_done("verdicts");
}
