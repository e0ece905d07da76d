/* Of two runs with the same folder one writes: the other waits for its end, and is refused when
 * that does not come. */
#include "host/cli/command.h"

#include <signal.h>
#include <sys/file.h>

#include "data/base/folder_lock.h"
#include "tests/bad_rows.h"

/* A command that keeps what it has done, and the folder that it keeps it in. */
typedef struct Writer {
    const char *name, *line, *folder;
} Writer;

#define SMALL " --model model --dtype f32 --threads 1 "
static const Writer writer[] = {
    {"train",
     "train" SMALL
     "--data many.jsonl --init lora --batch 2 --checkpoint-every 1 --resume --out run",
     "run"},
    {"train that saves nothing",
     "train" SMALL "--data many.jsonl --init lora --batch 2 --out unsaved", "unsaved"},
    {"score",
     "score" SMALL
     "--max-length 128 --data many.jsonl --sae sae/{layer} --layers 1 --resume --out scores",
     "scores.partial"},
    {"generate",
     "generate" SMALL "--prompts many.jsonl --max-new-tokens 9 --batch 2 --resume --out replies",
     "replies.partial"},
    {"align", "align recipe.yaml --out aligned", "aligned"},
    {"align where one was killed", "align recipe.yaml --out killed", "killed"}};
enum { WRITERS = sizeof writer / sizeof *writer };

static void write_recipe(void) {
    static const char recipe[] =
        "model: {path: model, dtype: f32}\n"
        "data: {path: many.jsonl, heldout: 0.1, max-length: 128}\n"
        "train: {methods: [base, lora], batch: 4, rank: 4}\n"
        "generate: {prompts: many.jsonl, limit: 8, max-new-tokens: 4}\n";
    Err err;
    MUST(files_write("recipe.yaml", recipe, sizeof recipe - 1, &err), err);
}

/* Does anybody hold it? */
static bool is_held(const char *folder) {
    char path[300];
    snprintf(path, sizeof path, "%s/" FOLDER_LOCK, folder);
    int fd = open(path, O_RDWR);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return held;
}

/* Runs until it has its folder; there it stands still. */
static Program start_and_stop(const Writer *w) {
    Program p = program_start(w->line, NULL);
    while (!is_held(w->folder) && !program_ended(&p)) usleep(1000);
    kill(p.pid, SIGSTOP);
    CHECK(!program_ended(&p), "%s has ended: %s", w->name, program_end(&p).err);
    return p;
}

/* Its output tells that it waits. */
static void wait_for_line(const Program *p, char *text, size_t room) {
    for (int i = 0; i < 6000 && !strchr(text, '\n') && !program_ended(p); i++) {
        program_text(text, room, p->err);
        usleep(10000);
    }
}

static void test_refused(const Writer *w, const Program *second) {
    Ended e = program_end(second);
    char words[96];
    snprintf(words, sizeof words, "sails: %s: another run writes there; end it", w->folder);
    EXPECT(e.code == EXIT_USAGE && strstr(e.err, words), "%s: exit %d: %s", w->name, e.code, e.err);
}

/* Ends the first, which was killed as far as the third one knows. */
static void test_waits(const Writer *w, const Program *first) {
    char text[4096] = "", words[96];
    Program third = program_start(w->line, NULL);
    wait_for_line(&third, text, sizeof text);
    snprintf(words, sizeof words, "sails: %s: another run writes there; waiting", w->folder);
    EXPECT(strstr(text, words), "%s: %s", w->name, text);
    kill(first->pid, SIGKILL);
    Ended e = program_end(first);
    EXPECT(e.code == 128 + SIGKILL, "%s: exit %d", w->name, e.code);
    e = program_end(&third);
    EXPECT(e.code == EXIT_DONE, "%s: exit %d: %s", w->name, e.code, e.err);
}

/* Nobody else has it: it begins at once, and after it nothing of the lock is there. */
static void test_alone(const Writer *w) {
    char path[300];
    Ended e = program_run(w->line);
    snprintf(path, sizeof path, "%s/" FOLDER_LOCK, w->folder);
    EXPECT(!files_exists(path), "%s is left", path);
    EXPECT(e.code == EXIT_DONE && !strstr(e.err, "another run"), "%s: exit %d: %s", w->name, e.code,
           e.err);
}

/* Who had it removes it, as one that is done with it does: the next one makes and holds its own. */
static void test_removed(void) {
    FolderLock l = {0};
    Err err;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        MUST(folder_lock(&l, "removed", &err), err);
        usleep(300000);
        files_remove_tree("removed");
        _exit(0);
    }
    while (!is_held("removed")) usleep(1000);
    MUST(folder_lock(&l, "removed", &err), err);
    EXPECT(is_held("removed"), "the lock is of a folder that is no more");
    waitpid(child, NULL, 0);
    folder_unlock(&l);
    EXPECT(!files_exists("removed"), "an empty folder is left");
}

/* The folder was removed while it was locked, and is another's by now. */
static void test_not_ours(void) {
    FolderLock l = {0}, other = {0};
    Err err;
    MUST(folder_lock(&l, "theirs", &err), err);
    CHECK(files_remove_tree("theirs"), "theirs");
    MUST(folder_lock(&other, "theirs", &err), err);
    folder_unlock(&l);
    EXPECT(is_held("theirs"), "another's lock was removed");
    folder_unlock(&other);
    EXPECT(!files_exists("theirs"), "an empty folder is left");
}

/* What it made for itself goes with it, and nothing else. */
static void test_parents(void) {
    FolderLock l = {0};
    Err err;
    MUST(folder_lock(&l, "new/far/away", &err), err);
    folder_unlock(&l);
    EXPECT(!files_exists("new/far") && files_exists("new"), "new/far is left, or new is not");
}

/* What is refused for another reason leaves no folder. */
static void test_no_folder(void) {
    Ended e = program_run(
        "generate --model model --dtype f32 --prompts many.jsonl --resume --out "
        "nowhere/replies --seed 1 --temperature 0");
    EXPECT(e.code != EXIT_DONE && !files_exists("nowhere"), "exit %d: %s", e.code, e.err);
}

/* Files that a process writes which nobody here can see, as where it runs in another container. */
#define UNSEEN "run/tmp.99999999"

int main(void) {
    Program first[WRITERS], second[WRITERS];
    bad_world();
    CHECK(system("for i in $(seq 12); do cat pairs.jsonl | sed \"s/number/No.$i/g\"; done "
                 ">many.jsonl && mkdir killed && touch killed/recipe.yaml.tmp.1") == 0,
          "many.jsonl");
    write_recipe();
    for (int i = 0; i < WRITERS; i++) first[i] = start_and_stop(&writer[i]);
    CHECK(mkdir(UNSEEN, 0777) == 0, "%s: %s", UNSEEN, strerror(errno));
    for (int i = 0; i < WRITERS; i++) second[i] = program_start(writer[i].line, NULL);
    for (int i = 0; i < WRITERS; i++) test_refused(&writer[i], &second[i]);
    EXPECT(files_exists(UNSEEN), "who was refused has removed %s", UNSEEN);
    for (int i = 0; i < WRITERS; i++) test_waits(&writer[i], &first[i]);
    for (int i = 0; i < WRITERS; i++) test_alone(&writer[i]);
    EXPECT(!files_exists(UNSEEN), "%s is left", UNSEEN);
    test_removed();
    test_not_ours();
    test_parents();
    test_no_folder();
    world_remove();
    return test_done("one writer");
}
