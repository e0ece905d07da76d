/* Checkpoints in which a bit has flipped, anywhere in their files, those that cannot be read, and
 * those that met the limit on the size of files. */
#include "host/cli/command.h"

#include <sys/resource.h>

#define STEPS 12
#include "tests/checkpoint_run.h"

static const char *const file_name[] = {"state.safetensors", "metrics.jsonl", "manifest.json"};
enum { FILES = sizeof file_name / sizeof *file_name };

static void copy_saved(void) {
    forget("run");
    CHECK(system("mkdir run && cp -r saved/checkpoints run") == 0, "run");
}

/* ------------------------------------------------------------------------------------- bits -- */

/* The files of a checkpoint, of which bits are counted as if they were one. */
static size_t bytes_of(int step, int file) {
    RunPath path;
    struct stat st;
    snprintf(path, sizeof path, "saved/checkpoints/step-%08d/%s", step, file_name[file]);
    CHECK(stat(path, &st) == 0, "%s", path);
    return (size_t)st.st_size;
}

static size_t bits_of(int step) {
    size_t n = 0;
    for (int i = 0; i < FILES; i++) n += 8 * bytes_of(step, i);
    return n;
}

/* A number that reads as the same in other digits, and an escaped letter: then nothing has changed.
 */
static bool same_json(const Buf *a, const Buf *b) {
    json_t *x = json_loadb(a->p, a->n, JSON_REJECT_DUPLICATES, NULL);
    json_t *y = json_loadb(b->p, b->n, JSON_REJECT_DUPLICATES, NULL);
    bool same = x && y && json_equal(x, y);
    json_decref(x), json_decref(y);
    return same;
}

/* Flips a bit of a checkpoint; false: it says what it said before. */
static bool flip(int step, size_t bit, char *where, size_t room) {
    int file = 0;
    for (; bit >= 8 * bytes_of(step, file); file++) bit -= 8 * bytes_of(step, file);
    RunPath path;
    Buf was, is;
    snprintf(path, sizeof path, PLACE "/step-%08d/%s", step, file_name[file]);
    snprintf(where, room, "bit %zu of byte %zu of %s", bit % 8, bit / 8, path);
    CHECK(read_bytes(&was, path) && read_bytes(&is, path), "%s", path);
    is.p[bit / 8] ^= (char)(1 << bit % 8);
    write_bytes(path, &is);
    bool changed = strcmp(file_name[file], "manifest.json") != 0 || !same_json(&was, &is);
    buf_free(&was), buf_free(&is);
    return changed;
}

/* All but the oldest have a flipped bit each, in turn in every file from end to end: that one is
 * taken. */
static void test_flips(void) {
    enum { EACH = SAVES - 1 };
    size_t flips = test_brief() ? 2 * EACH : 20 * EACH, seen = 0;
    for (size_t i = 0; i < flips; i += EACH) {
        char where[SAVES + 1][300];
        int expected = 1;
        copy_saved();
        for (int step = SAVES; step > 1; step--) {
            size_t part = bits_of(step) / flips, at = (i + (size_t)(SAVES - step)) * part;
            at += (size_t)((0.5 + 0.5 * test_noise(i, (size_t)step)) * (double)(part - 1));
            bool changed = flip(step, at, where[step], sizeof where[step]);
            if (!changed && expected == 1) expected = step;
            seen += changed;
        }
        int taken = run_resume(where[SAVES]);
        EXPECT(taken == expected, "goes on after step %d, expected %d; flipped there: %s", taken,
               expected, where[taken > 0 ? taken : SAVES]);
    }
    EXPECT(seen > flips * 9 / 10, "%zu of %zu flips count", seen, flips);
}

/* With a bit of each flipped there is nothing to go on from. */
static void test_all_flipped(void) {
    char where[300];
    copy_saved();
    for (int step = 1; step <= SAVES; step++)
        CHECK(flip(step, (size_t)step * bits_of(step) / STEPS, where, sizeof where), "%s", where);
    int taken = run_resume("no checkpoint that is whole");
    EXPECT(taken == 0, "goes on after step %d", taken);
    EXPECT(run_saved() == 1u << SAVES, "checkpoints %x", run_saved());
}

/* The newest may be whole, as far as can be told: going on without it would remove it. */
static void test_unreadable(void) {
    static const struct {
        const char *file, *link, *words; /* a link to itself cannot be opened, not even by root */
        int code;
    } bad[] = {{"manifest.json", "manifest.json", "manifest.json: cannot open: ", EXIT_INPUT},
               {"state.safetensors", "state.safetensors", "cannot open: ", EXIT_INPUT},
               {"manifest.json", "/proc/self/mem", "manifest.json: cannot read: ", EXIT_INTERNAL}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        RunPath path;
        copy_saved();
        snprintf(path, sizeof path, PLACE "/step-%08d/%s", SAVES, bad[i].file);
        CHECK(unlink(path) == 0 && symlink(bad[i].link, path) == 0, "%s", path);
        Tree before = tree_read("run");
        Ended e = program_run(SAVING "--resume --out run");
        Tree after = tree_read("run");
        const char *change = tree_difference(&before, &after);
        EXPECT(e.code == bad[i].code && program_one_line(e.err, bad[i].words), "%s: exit %d: %s",
               path, e.code, e.err);
        EXPECT(!change, "%s: changed %s", path, change ? change : "");
        tree_free(&before), tree_free(&after);
    }
}

/* ------------------------------------------------------------------------- the size of files -- */

static rlim_t file_limit;

static void limit_files(void) {
    struct rlimit limit = {file_limit, file_limit};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(126);
}

/* A limit stops the run's own files, or every save, or none. */
static void test_limits(void) {
    int stopped = 0, unsaved = 0;
    bool done = false;
    rlim_t step = test_brief() ? 4000 : 1500;
    for (file_limit = 100; !done; file_limit += step) {
        char after[64];
        snprintf(after, sizeof after, "files of %zu bytes", (size_t)file_limit);
        forget("run");
        Program p = program_start(SAVING "--out run", limit_files);
        Ended e = program_end(&p);
        int warned = count_of(e.err, "sails: no checkpoint was saved: ");
        int twice = count_of(e.err, "sails: the second checkpoint in a row was not saved: ");
        done = e.code == 0;
        unsaved += twice, stopped += !done;
        EXPECT(done ? !*e.err : e.code == EXIT_INTERNAL && strstr(e.err, "(ulimit -f)"),
               "%s: exit %d: %s", after, e.code, e.err);
        EXPECT(warned <= 1 && twice <= warned, "%s: %s", after, e.err);
        expect_nothing_left(after);
        EXPECT(file_limit > 100 || !files_exists("run"), "%s: left a folder", after);
        if (!done) {
            int taken = run_resume(after);
            EXPECT(taken == 0, "%s: goes on after step %d", after, taken);
        }
        if (test_failures) break;
    }
    EXPECT(stopped > unsaved && unsaved > 1, "stopped %d times, %d by saves", stopped, unsaved);
}

int main(void) {
    run_world();
    test_flips();
    test_all_flipped();
    test_unreadable();
    test_limits();
    world_remove();
    return test_done("checkpoint harm");
}
