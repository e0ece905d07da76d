/* disk.h - the system calls by which the program changes the files below its folder "run", each of
 * them shown to the test before it happens. The test lets it pass, fails it, cuts it short, or
 * kills the program there.
 *
 * By seccomp's user notification (Linux 5.6): below the C library, whose own writes for stdio no
 * other way of catching sees, and the program is the one that users run. */
#ifndef SAILS_TEST_DISK_H
#define SAILS_TEST_DISK_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/program.h"

enum { DISK_PATH = 192, DISK_WRITE = 1 << 20 };

typedef struct Call {
    enum CallKind {
        CALL_MKDIR,
        CALL_CREATE,
        CALL_WRITE,
        CALL_SYNC,
        CALL_RENAME,
        CALL_UNLINK,
        CALL_RMDIR
    } kind;
    char path[DISK_PATH], to[DISK_PATH]; /* seen from the world; "." is the world itself */
    const char *data;                    /* (n) of a write */
    size_t n;
} Call;

typedef struct Answer {
    enum {
        DISK_PASS,
        DISK_FAIL,  /* with `error` */
        DISK_SHORT, /* a write of n bytes and no more, which says so */
        DISK_KILL   /* kill -9 after n bytes of a write, before anything else */
    } what;
    int error;
    size_t n;
    int signal; /* that the program gets after its answer; 0: none */
} Answer;

typedef Answer disk_judge(void *context, const Call *c);

static inline const char *disk_call_name(const Call *c) {
    static const char *const name[] = {"mkdir",  "create", "write", "fsync",
                                       "rename", "unlink", "rmdir"};
    return name[c->kind];
}

/* ----------------------------------------------------------------------------- in the child -- */

static struct DiskMeeting {
    atomic_int listener, ready, taken;
} * disk_meeting; /* shared by parent and child */

/* Every call that changes files; opening one does where it may create it. */
static inline bool disk_filter(void) {
    static const unsigned seen[] = {
        SYS_write,     SYS_writev,   SYS_pwrite64,  SYS_pwritev,  SYS_fsync,     SYS_fdatasync,
        SYS_renameat2, SYS_renameat, SYS_mkdirat,   SYS_unlinkat, SYS_ftruncate, SYS_truncate,
        SYS_fallocate, SYS_linkat,   SYS_symlinkat,
#ifdef SYS_rename /* newer machines have only those with "at" */
        SYS_rename,    SYS_mkdir,    SYS_unlink,    SYS_rmdir,    SYS_link,      SYS_symlink,
#endif
    };
    enum { SEEN = sizeof seen / sizeof *seen, FLAGS = 2 };
    struct sock_filter code[SEEN + 7];
    unsigned short n = 0;
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 2);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, args[FLAGS]));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT, SEEN + 1, SEEN);
    for (unsigned char i = 0; i < SEEN; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, seen[i],
                                                 (unsigned char)(SEEN - i), 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {n, code};
    long fd = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                  ? -1
                  : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                            &program);
    atomic_store(&disk_meeting->listener, (int)fd);
    atomic_store(&disk_meeting->ready, 1);
    return fd >= 0;
}

/* The parent must have the listener before exec closes it here. */
static inline void disk_enter(void) {
    if (!disk_filter()) _exit(126);
    while (!atomic_load(&disk_meeting->taken)) usleep(100);
}

/* ---------------------------------------------------------------------------- in the parent -- */

typedef struct Disk {
    Program p;
    int pidfd, listener;
    char world[256]; /* where it runs */
    disk_judge *judge;
    void *context;
} Disk;

/* A path as the test calls it; false: not below "run". */
static inline bool disk_own(char *to, const Disk *d, const char *path) {
    size_t n = strlen(d->world);
    if (strncmp(path, d->world, n) == 0 && (path[n] == '/' || path[n] == 0))
        path += path[n] ? n + 1 : n;
    if (*path == 0) path = ".";
    snprintf(to, DISK_PATH, "%s", path);
    return strcmp(path, ".") == 0 || (strncmp(path, "run", 3) == 0 && (!path[3] || path[3] == '/'));
}

/* Bytes of the program's memory. */
static inline size_t disk_read(void *to, size_t n, pid_t pid, uint64_t from) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, to, n, (off_t)from);
    CHECK(got >= 0, "%s: %s", path, strerror(errno));
    close(fd);
    return (size_t)got;
}

static inline bool disk_path(char *to, const Disk *d, pid_t pid, uint64_t from) {
    char path[DISK_PATH] = "";
    disk_read(path, sizeof path - 1, pid, from);
    return disk_own(to, d, path);
}

static inline bool disk_rename(Call *c, const Disk *d, pid_t pid, uint64_t from, uint64_t to) {
    c->kind = CALL_RENAME;
    bool own = disk_path(c->path, d, pid, from);
    return disk_path(c->to, d, pid, to) || own;
}

static inline bool disk_fd_path(char *to, const Disk *d, pid_t pid, uint64_t fd) {
    char name[64], path[DISK_PATH] = "";
    snprintf(name, sizeof name, "/proc/%d/fd/%d", pid, (int)fd);
    return readlink(name, path, sizeof path - 1) > 0 && disk_own(to, d, path);
}

/* What is asked for; false: nothing that concerns the test. Calls that it does not know must not
 * pass unseen. */
static inline bool disk_call(Call *c, const Disk *d, const struct seccomp_notif *asked) {
    static char data[DISK_WRITE];
    const uint64_t *arg = (const uint64_t *)asked->data.args;
    pid_t pid = (pid_t)asked->pid;
    *c = (Call){0};
    switch (asked->data.nr) {
        case SYS_write:
            c->kind = CALL_WRITE;
            if (!disk_fd_path(c->path, d, pid, arg[0])) return false;
            CHECK(arg[2] <= sizeof data, "a write of %zu bytes", (size_t)arg[2]);
            c->data = data, c->n = disk_read(data, (size_t)arg[2], pid, arg[1]);
            return true;
        case SYS_fsync:
        case SYS_fdatasync:
            c->kind = CALL_SYNC;
            return disk_fd_path(c->path, d, pid, arg[0]);
        case SYS_openat:
            c->kind = CALL_CREATE;
            return disk_path(c->path, d, pid, arg[1]);
        case SYS_mkdirat:
            c->kind = CALL_MKDIR;
            return disk_path(c->path, d, pid, arg[1]);
        case SYS_unlinkat:
            c->kind = arg[2] ? CALL_RMDIR : CALL_UNLINK;
            return disk_path(c->path, d, pid, arg[1]);
        case SYS_renameat:
        case SYS_renameat2:
            return disk_rename(c, d, pid, arg[1], arg[3]);
#ifdef SYS_rename
        case SYS_rename:
            return disk_rename(c, d, pid, arg[0], arg[1]);
        case SYS_mkdir:
            c->kind = CALL_MKDIR;
            return disk_path(c->path, d, pid, arg[0]);
        case SYS_unlink:
            c->kind = CALL_UNLINK;
            return disk_path(c->path, d, pid, arg[0]);
        case SYS_rmdir:
            c->kind = CALL_RMDIR;
            return disk_path(c->path, d, pid, arg[0]);
#endif
        default:
            die(__FILE__, __LINE__, __func__, "system call %d", asked->data.nr);
    }
}

/* The first n bytes of a write, through the program's own file, whose position moves. */
static inline void disk_write(const Disk *d, const struct seccomp_notif *asked, const Call *c,
                              size_t n) {
    if (c->kind != CALL_WRITE || n == 0) return;
    int fd = (int)syscall(SYS_pidfd_getfd, d->pidfd, (int)asked->data.args[0], 0);
    CHECK(fd >= 0 && write(fd, c->data, n) == (ssize_t)n, "%s: %s", c->path, strerror(errno));
    close(fd);
}

static inline void disk_answer(const Disk *d) {
    union {
        struct seccomp_notif s;
        char room[1024]; /* newer kernels may say more */
    } asked = {.room = {0}};
    union {
        struct seccomp_notif_resp s;
        char room[1024];
    } said = {.room = {0}};
    if (ioctl(d->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) return; /* it is gone */
    Call c;
    Answer a = {0};
    if (disk_call(&c, d, &asked.s)) a = d->judge(d->context, &c);
    said.s.id = asked.s.id;
    if (a.what == DISK_PASS) said.s.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (a.what == DISK_FAIL) said.s.error = -a.error;
    if (a.what == DISK_SHORT || a.what == DISK_KILL) disk_write(d, &asked.s, &c, a.n);
    if (a.what == DISK_SHORT) said.s.val = (int64_t)a.n;
    if (a.what == DISK_KILL)
        kill(d->p.pid, SIGKILL);
    else
        ioctl(d->listener, SECCOMP_IOCTL_NOTIF_SEND, &said);
    if (a.signal) kill(d->p.pid, a.signal);
}

/* Runs the program with the words of a line. Exit code 126: the kernel shows no calls here. */
static inline Ended disk_run(const char *line, disk_judge *judge, void *context) {
    if (!disk_meeting)
        disk_meeting = mmap(NULL, sizeof *disk_meeting, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(disk_meeting != MAP_FAILED, "%s", strerror(errno));
    *disk_meeting = (struct DiskMeeting){0};
    Disk d = {.judge = judge, .context = context};
    CHECK(getcwd(d.world, sizeof d.world), "%s", strerror(errno));
    d.p = program_start(line, disk_enter);
    while (!atomic_load(&disk_meeting->ready)) usleep(100);
    d.pidfd = (int)syscall(SYS_pidfd_open, d.p.pid, 0);
    d.listener = (int)syscall(SYS_pidfd_getfd, d.pidfd, disk_meeting->listener, 0);
    if (d.listener < 0) kill(d.p.pid, SIGKILL);
    atomic_store(&disk_meeting->taken, 1);
    while (d.listener >= 0 && !program_ended(&d.p)) {
        enum { LOOK_AGAIN = 20 }; /* ms; older kernels do not say that nobody asks any more */
        struct pollfd poll_for = {.fd = d.listener, .events = POLLIN};
        if (poll(&poll_for, 1, LOOK_AGAIN) == 1 && poll_for.revents & POLLIN) disk_answer(&d);
    }
    Ended e = program_end(&d.p);
    if (d.listener < 0) e.code = 126;
    close(d.listener), close(d.pidfd);
    return e;
}

#endif
