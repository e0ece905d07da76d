/* Outputs that cannot be written: the size of files is limited, the disk is full, the folder is
 * not the user's. The program says so in one line, and its folder is as it was. */
#include "host/cli/command.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "tests/bad_rows.h"

/* Every command that writes, and a part of what it then has written, to see that it did. */
static const struct {
    const char *line, *file;
} command[] = {
    {"tokenize --tokenizer model --data pairs.jsonl --out new/out", "new/out"},
    {"logprob " MODEL SOME_DATA "--data pairs.jsonl --out new/out", "new/out"},
    {"generate " MODEL "--prompts prompts.jsonl --max-new-tokens 3 --out new/out", "new/out"},
    {"eval --responses responses --out new/out", "new/out"},
    {"score " MODEL SOME_DATA "--data pairs.jsonl --sae sae/{layer} --layers 1 --out new/out",
     "new/out"},
    {"subspace --scores scores --top-k 6 --rank 4 --out new/out", "new/out"},
    {TRAIN_ON "--init lora", "new/adapter/adapter_model.safetensors"},
    {"merge --model model --adapter adapter --out new/merged", "new/merged/model.safetensors"},
    {"init --config model --tokenizer model --out new/deep/model",
     "new/deep/model/model.safetensors"},
};
enum { COMMANDS = sizeof command / sizeof *command, FILES_ALONE = 6 };

static void expect_failed(const char *what, const char *line, const Ended *e, int code,
                          const char *words, const Tree *before) {
    Tree after = tree_read(".");
    const char *change = tree_difference(before, &after);
    EXPECT(e->code == code && program_one_line(e->err, words), "%s: sails %s: exit %d: %s", what,
           line, e->code, e->err);
    EXPECT(strstr(e->err, "new") || strstr(e->err, "/dev/full"), "%s: expected a path in: %s", line,
           e->err);
    EXPECT(strchr(e->err, ';'), "%s: expected a remedy in: %s", line, e->err);
    EXPECT(!change, "%s: sails %s: changed %s", what, line, change ? change : "");
    tree_free(&after);
}

/* ------------------------------------------------------------------------- the size of files -- */

static rlim_t file_limit;

static rlim_t next_limit(void) {
    return file_limit + 1 + (test_brief() ? 2 * file_limit : file_limit / 2);
}

static void limit_files(void) {
    struct rlimit limit = {file_limit, file_limit};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(126);
}

/* Limits from nothing up to what just suffices stop it at each of its files, at their first byte
 * and at their last. */
static void test_file_size(const char *line, const char *file) {
    bool done = false;
    int stopped = 0, failures = test_failures;
    for (file_limit = 0; !done; file_limit = next_limit()) {
        Tree before = tree_read(".");
        Program p = program_start(line, limit_files);
        Ended e = program_end(&p);
        done = e.code == 0;
        if (!done) expect_failed("limit", line, &e, EXIT_INTERNAL, "(ulimit -f)", &before);
        stopped += !done;
        done = done || test_failures > failures;
        tree_free(&before);
    }
    EXPECT(files_exists(file) && stopped > 5, "%s: stopped %d times", line, stopped);
}

/* ------------------------------------------------------------------------------- a full disk -- */

static void test_full_disk(const char *line) {
    char full[1024];
    const char *out = strstr(line, "new/out");
    snprintf(full, sizeof full, "%.*s/dev/full", (int)(out - line), line);
    Tree before = tree_read(".");
    Ended e = program_run(full);
    expect_failed("a full disk", full, &e, EXIT_INTERNAL, "No space left", &before);
    tree_free(&before);
}

/* The folder as a disk of its own that has so many kB left: such a disk has a page at least. */
static void mount_small(size_t left) {
    enum { FULL = 64 };
    static const char filler[FULL << 10];
    char size[32];
    snprintf(size, sizeof size, "size=%zuk", left + FULL);
    CHECK(mount("small", "new", "tmpfs", 0, size) == 0, "%s", strerror(errno));
    write_bytes("new/filler", &(Buf){.p = (char *)(uintptr_t)filler, .n = sizeof filler});
}

static void test_small_disk(const char *line, const char *file) {
    bool done = false;
    int stopped = 0, failures = test_failures;
    for (size_t left = 0; !done; left += 4 + left / 8 * 4) {
        mount_small(left);
        Tree before = tree_read(".");
        Ended e = program_run(line);
        done = e.code == 0;
        if (!done) expect_failed("small", line, &e, EXIT_INTERNAL, "No space left", &before);
        EXPECT(!done || files_exists(file), "%s: nothing was written", line);
        stopped += !done;
        done = done || test_failures > failures;
        tree_free(&before);
        CHECK(umount("new") == 0, "%s", strerror(errno));
    }
    EXPECT(stopped > 0, "%s: never stopped", line);
}

/* Mounts need a root that may have some of its own. */
static bool may_mount(void) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("small", "new", "tmpfs", 0, NULL) == 0 && umount("new") == 0;
}

/* ----------------------------------------------------------------------- another one's folder --
 */

/* Permissions do not bind root. */
static void become_nobody(void) {
    enum { NOBODY = 65534 };
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        _exit(126);
}

static void test_read_only(const char *line) {
    Tree before = tree_read(".");
    CHECK(chmod("new", 0555) == 0, "new");
    Program p = program_start(line, become_nobody);
    Ended e = program_end(&p);
    CHECK(chmod("new", 0755) == 0, "new");
    expect_failed("a folder that is read-only", line, &e, EXIT_INPUT, "Permission denied", &before);
    tree_free(&before);
}

/* ------------------------------------------------------------------------------------ align -- */

/* A run that has met its limit at any of its files goes on from what it had finished. */
static void test_align(void) {
    bool done = false;
    int stopped = 0, failures = test_failures;
    for (file_limit = 0; !done; file_limit = next_limit()) {
        Program p = program_start("align run.yaml", limit_files);
        Ended e = program_end(&p);
        Tree after = tree_read(".");
        const char *left = tree_temporary(&after);
        done = e.code == 0;
        EXPECT(done || (e.code == EXIT_INTERNAL && program_one_line(e.err, "(ulimit -f)")),
               "align, files of %zu bytes: exit %d: %s", (size_t)file_limit, e.code, e.err);
        EXPECT(!left, "align, files of %zu bytes: left %s", (size_t)file_limit, left ? left : "");
        stopped += !done;
        done = done || test_failures > failures;
        tree_free(&after);
    }
    EXPECT(stopped > 5 && files_exists("new/run/summary.json"), "align: stopped %d times", stopped);
}

/* ----------------------------------------------------------------------------------- stdout -- */

static void print_into_full(void) {
    int full = open("/dev/full", O_WRONLY);
    if (full < 0 || dup2(full, STDOUT_FILENO) < 0) _exit(126);
}

static void test_stdout(void) {
    static const char *const line[] = {"inspect model",
                                       "doctor",
                                       "tokenize --tokenizer model --data pairs.jsonl",
                                       "logprob " MODEL SOME_DATA "--data pairs.jsonl",
                                       "eval --responses responses --json",
                                       "plan " MODEL SOME_DATA "--data pairs.jsonl --init lora",
                                       "init --help"};
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        Tree before = tree_read(".");
        Program p = program_start(line[i], print_into_full);
        Ended e = program_end(&p);
        Tree after = tree_read(".");
        EXPECT(e.code == EXIT_INTERNAL && program_one_line(e.err, "stdout: could not be written; "),
               "sails %s: exit %d: %s", line[i], e.code, e.err);
        EXPECT(!tree_difference(&before, &after), "sails %s: changed the world", line[i]);
        tree_free(&before), tree_free(&after);
    }
}

int main(void) {
    bad_world();
    CHECK(chmod(".", 0755) == 0, "world");
    bool mounts = may_mount();
    if (!mounts) printf("a small disk: not tested, mounting is not allowed here\n");
    for (int i = 0; i < COMMANDS; i++) {
        test_read_only(command[i].line);
        test_file_size(command[i].line, command[i].file);
        if (i < FILES_ALONE) test_full_disk(command[i].line);
        if (mounts) test_small_disk(command[i].line, command[i].file);
        if (strncmp(command[i].line, "merge", 5) != 0 && strncmp(command[i].line, "init", 4) != 0) {
            test_read_only(command[i].line); /* the outputs of a good run are there */
            file_limit = 1;
            Tree before = tree_read(".");
            Program p = program_start(command[i].line, limit_files);
            Ended e = program_end(&p);
            expect_failed("outputs are there", command[i].line, &e, EXIT_INTERNAL, "(ulimit -f)",
                          &before);
            tree_free(&before);
        }
    }
    write_text("run.yaml",
               "out: new/run\nmodel: {path: model, dtype: f32}\n"
               "data: {path: pairs.jsonl, heldout: 0.2, max-length: 128, limit: 8}\n"
               "score: {sae: 'sae/{layer}', layers: [1]}\nsubspace: {top-k: 4}\n"
               "train: {batch: 4, rank: 2, steps: 1, methods: [sails]}\n"
               "generate: {prompts: prompts.jsonl, max-new-tokens: 2}\n");
    test_read_only("align run.yaml");
    test_align();
    test_stdout();
    world_remove();
    return test_done("bad disk");
}
