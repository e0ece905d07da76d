/* program.h - runs the real program, which the environment calls SAILS, in the test's world, and
 * holds the world that it leaves against the one it found. */
#ifndef SAILS_TEST_PROGRAM_H
#define SAILS_TEST_PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/world.h"

typedef struct Program {
    pid_t pid;
    int out, err; /* pipes; what it writes must fit into them until program_end */
} Program;

typedef struct Ended {
    int code; /* as shells say it: 128 + the signal that it died of */
    char out[1 << 16], err[4096];
} Ended;

static inline const char *program_path(void) {
    const char *path = getenv("SAILS");
    CHECK(path, "expected the program's path in the environment as SAILS");
    return path;
}

/* Starts another program: the words of a line, of which SAILS stands for ours; prepare (NULL:
 * nothing) runs in the child before that. */
static inline Program program_start_line(const char *line, void (*prepare)(void)) {
    char text[8192], *argv[256] = {0};
    int n = 0, out[2], err[2];
    CHECK(strlen(line) < sizeof text, "%s", line);
    strcpy(text, line);
    for (char *w = strtok(text, " "); w && n < 255; w = strtok(NULL, " "))
        argv[n++] = strcmp(w, "SAILS") == 0 ? (char *)program_path() : w;
    int file = strchr(argv[0], '/') ? open(argv[0], O_RDONLY | O_CLOEXEC) : -1;
    CHECK(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "%s", strerror(errno));
    fflush(NULL);
    Program p = {.pid = fork(), .out = out[0], .err = err[0]};
    CHECK(p.pid >= 0, "%s", strerror(errno));
    if (p.pid == 0) {
        dup2(out[1], STDOUT_FILENO), dup2(err[1], STDERR_FILENO);
        if (prepare) prepare();
        if (file >= 0) fexecve(file, argv, environ); /* its path may be closed to this user */
        execvp(argv[0], argv);
        _exit(127);
    }
    if (file >= 0) close(file);
    close(out[1]), close(err[1]);
    return p;
}

/* Starts ours with the words of a line. */
static inline Program program_start(const char *line, void (*prepare)(void)) {
    char text[8192];
    CHECK(snprintf(text, sizeof text, "SAILS %s", line) < (int)sizeof text, "%s", line);
    return program_start_line(text, prepare);
}

/* Appends what the pipe holds now to a text of `room` bytes; but for the 0 with which Open MPI 5
 * ends its own words. */
static inline void program_text(char *text, size_t room, int fd) {
    size_t n = strlen(text);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (ssize_t got; n + 1 < room && (got = read(fd, text + n, room - 1 - n)) > 0;) {
        const char *end = text + n + got;
        for (const char *c = text + n; c < end; c++)
            if (*c) text[n++] = *c;
        text[n] = 0;
    }
}

/* Has it ended by itself? It is still to be asked for by program_end. */
static inline bool program_ended(const Program *p) {
    siginfo_t info = {0};
    CHECK(waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0, "waitid");
    return info.si_pid == p->pid;
}

static inline Ended program_end(const Program *p) {
    Ended e = {0};
    int status;
    while (waitpid(p->pid, &status, 0) < 0) CHECK(errno == EINTR, "%s", strerror(errno));
    e.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    program_text(e.out, sizeof e.out, p->out);
    program_text(e.err, sizeof e.err, p->err);
    close(p->out), close(p->err);
    return e;
}

static inline Ended program_run(const char *line) {
    Program p = program_start(line, NULL);
    return program_end(&p);
}

/* What the world is made with must work. */
static inline void program_must(const char *line) {
    Ended e = program_run(line);
    CHECK(e.code == 0, "sails %s: exit %d: %s", line, e.code, e.err);
}

/* Is it the one line of an error, with these words in it? */
static inline bool program_one_line(const char *err, const char *words) {
    const char *end = strchr(err, '\n');
    return strncmp(err, "sails: ", 7) == 0 && end && end[1] == 0 && strstr(err, words);
}

/* ------------------------------------------------------------------------ the world's files -- */

typedef struct Tree {
    char **entry; /* "path size time-of-change", in order */
    size_t n, capacity;
} Tree;

static Tree *tree_being_read;

static inline int tree_add(const char *path, const struct stat *st, int type, struct FTW *at) {
    Tree *t = tree_being_read;
    char text[1024];
    (void)at;
    if (type == FTW_D) /* a folder's own time changes with any file that came and went */
        snprintf(text, sizeof text, "%s/", path);
    else
        snprintf(text, sizeof text, "%s %lld %lld.%09ld", path, (long long)st->st_size,
                 (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    t->entry = mem_grow(t->entry, &t->capacity, t->n + 1, sizeof *t->entry);
    t->entry[t->n++] = mem_string(text);
    return 0;
}

static inline int tree_order(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline Tree tree_read(const char *folder) {
    Tree t = {0};
    tree_being_read = &t;
    CHECK(nftw(folder, tree_add, 16, FTW_PHYS) == 0, "%s", folder);
    qsort(t.entry, t.n, sizeof *t.entry, tree_order);
    return t;
}

static inline void tree_free(Tree *t) {
    for (size_t i = 0; i < t->n; i++) free(t->entry[i]);
    free(t->entry);
}

/* The first entry that one of them lacks, NULL when they are the same. */
static inline const char *tree_difference(const Tree *a, const Tree *b) {
    size_t i = 0;
    while (i < a->n && i < b->n && strcmp(a->entry[i], b->entry[i]) == 0) i++;
    if (i == a->n && i == b->n) return NULL;
    if (i == a->n) return b->entry[i];
    if (i == b->n) return a->entry[i];
    return strcmp(a->entry[i], b->entry[i]) < 0 ? a->entry[i] : b->entry[i];
}

/* A file under construction that was left there, NULL: none. */
static inline const char *tree_temporary(const Tree *t) {
    for (size_t i = 0; i < t->n; i++)
        if (strstr(t->entry[i], "tmp.")) return t->entry[i];
    return NULL;
}

#endif
