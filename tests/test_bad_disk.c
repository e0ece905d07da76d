/* Outputs that cannot be written: the size of files is limited, the disk is full, the folder is
 * not the user's. The program says so in one line, and its folder is as it was. */
#include "host/command.h"

#include <grp.h>
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

static void limit_files(void) {
    struct rlimit limit = {file_limit, file_limit};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(126);
}

/* Limits from nothing up to what just suffices stop it at each of its files, at their first byte
 * and at their last. */
static void test_file_size(const char *line, const char *file) {
    bool done = false;
    int stopped = 0, failures = test_failures;
    for (file_limit = 0; !done; file_limit += 1 + file_limit / 2) {
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

int main(void) {
    bad_world();
    CHECK(chmod(".", 0755) == 0, "world");
    for (int i = 0; i < COMMANDS; i++) {
        test_read_only(command[i].line);
        test_file_size(command[i].line, command[i].file);
        if (i < FILES_ALONE) test_full_disk(command[i].line);
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
    world_remove();
    return test_done("bad disk");
}
