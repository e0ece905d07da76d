/* A run on a disk that is full: of every size from none up to what is enough. What is on it at the
 * end is whole, and with more room the run goes on. */
#include "host/cli/command.h"

#include <sched.h>
#include <sys/mount.h>

#include "tests/checkpoint_run.h"

/* Mounts need a root that may have some of its own. */
static bool may_mount(void) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("small", "run", "tmpfs", 0, NULL) == 0 && umount("run") == 0;
}

static void mount_run(const char *limit, unsigned long flags) {
    CHECK(mount("small", "run", "tmpfs", flags, limit) == 0, "%s", strerror(errno));
}

/* What runs on small disks did. */
static int stopped, ended, kept; /* with an error; for two saves that failed; with a checkpoint */

/* True: the disk was large enough. */
static bool run_on(const char *limit) {
    char after[64];
    snprintf(after, sizeof after, "a disk of %s", limit);
    mount_run(limit, 0);
    Ended e = program_run(SAVING "--out run");
    int warnings = count_of(e.err, "sails: no checkpoint was saved: "), newest;
    bool done = e.code == 0;
    EXPECT(done || (e.code == EXIT_INTERNAL && strstr(e.err, "No space left on device; ")),
           "%s: exit %d: %s", after, e.code, e.err);
    EXPECT(count_of(e.err, "\n") == warnings + !done && warnings < 2, "%s: %s", after, e.err);
    expect_nothing_left(after);
    if (done) expect_result(after);
    newest = newest_of(run_saved());
    if (newest) expect_newest(after, newest);
    stopped += !done, kept += !done && newest;
    ended += count_of(e.err, "sails: the second checkpoint in a row was not saved: ");
    mount_run("size=4m,nr_inodes=1000", MS_REMOUNT);
    int taken = run_resume(after);
    EXPECT(taken == newest, "%s: goes on after step %d, there was %d", after, taken, newest);
    CHECK(umount("run") == 0, "%s", strerror(errno));
    return done && !warnings;
}

static void test_sizes(const char *fmt, int first, int step) {
    char limit[64];
    bool enough = false;
    stopped = ended = kept = 0;
    for (int n = first; !enough && !test_failures; n += step) {
        snprintf(limit, sizeof limit, fmt, n);
        enough = run_on(limit);
    }
    EXPECT(stopped >= ended && ended > 4 && kept > 2,
           "%s: stopped %d times, %d by saves, %d with a checkpoint", fmt, stopped, ended, kept);
}

int main(void) {
    enum { SKIPPED = 77, PAGE = 4 }; /* what ctest is told; kB */
    run_world();
    CHECK(mkdir("run", 0777) == 0, "run");
    if (!may_mount()) {
        printf("NOT TESTED: checkpoints on a full disk: mounting is not allowed here\n");
        world_remove();
        return SKIPPED;
    }
    test_sizes("size=%dk", PAGE, PAGE);
    test_sizes("size=4m,nr_inodes=%d", 1, 1);
    world_remove();
    return test_done("checkpoint full");
}
