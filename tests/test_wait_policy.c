/* The watch over busy processors: when it turns, that turning changes how long a thread spins, and
 * that it sees a neighbour. What a waiting thread spends is its own processor time, the least of
 * some tries: other programs and other guests of the machine can only add to it. */
#include <dirent.h>
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/stage/wait_policy.h"
#include "kernels/check.h"
#include "tests/test.h"

static double own_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int tasks(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    CHECK(d, "no /proc/self/task");
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* The second team's threads end by and by. */
static void expect_gone(int before) {
    for (int i = 0; i < 1000 && tasks() > before; i++) usleep(10000);
    EXPECT(tasks() == before, "%d threads of the second team are left", tasks() - before);
}

/* What the second thread of a team spends while the first keeps it waiting for 0.1 s. */
static double waiting_ms(void) {
    enum { TRIES = 5 };
    double at[TRIES + 1] = {0}, least = INFINITY;
    for (int i = 0; i <= TRIES; i++) {
        if (i > 0) usleep(100000);
#pragma omp parallel num_threads(2)
        if (omp_get_thread_num() == 1) at[i] = own_ms();
        if (i > 0) least = fmin(least, at[i] - at[i - 1]);
    }
    return least;
}

/* GNU's runtime spins for several ms, and for 2 us when it is switched. */
static void test_effect(WaitSwitch *s, double alone) {
#ifndef __clang__ /* whose runtime has no such switch */
    double ms = waiting_ms();
    EXPECT(s->sleeping ? 4 * ms < alone : 2 * ms > alone, "%s: waiting took %g ms, at first %g",
           s->sleeping ? "sleeping" : "spinning", ms, alone);
#else
    (void)s, (void)alone;
#endif
}

static void test_switch(void) {
    WaitSwitch s = {.processors = omp_get_num_procs(), .threads = omp_get_num_procs()};
    double alone = waiting_ms(), limit = 0.2 * s.threads;
    int before = tasks();
    wait_policy_step(&s, 0.9 * limit);
    EXPECT(!s.sleeping, "a tenth of the processors is no reason to sleep");
    test_effect(&s, alone);
    wait_policy_step(&s, 1.1 * limit);
    EXPECT(s.sleeping, "more than a fifth of the processors is lost");
    test_effect(&s, alone);
    for (int i = 0; i < 19; i++) wait_policy_step(&s, i == 9 ? 2 * limit : 0);
    EXPECT(s.sleeping, "9 calm periods were taken for the end");
    wait_policy_step(&s, 0);
    EXPECT(!s.sleeping, "10 calm periods were not enough");
    test_effect(&s, alone);
    expect_gone(before);
}

/* Neighbours on processors that no thread wants are none; and with few threads the second team has
 * to be larger. */
static void test_room(void) {
    WaitSwitch s = {.processors = omp_get_num_procs() + 6, .threads = omp_get_num_procs()};
    wait_policy_step(&s, 5.9);
    EXPECT(!s.sleeping, "there was room for all");
    s.threads = 1;
    s.processors = omp_get_num_procs();
    int before = tasks();
    wait_policy_step(&s, s.processors);
    EXPECT(s.sleeping && tasks() == before + 1 + s.processors,
           "expected the opener and as many threads as processors, got %d", tasks() - before);
    for (int i = 0; i < 10; i++) wait_policy_step(&s, 0);
    expect_gone(before);
}

/* Three threads count, the main thread looks. */
static void test_own(void) {
    int most = 0, done = 0;
#pragma omp parallel num_threads(4)
    if (omp_get_thread_num() == 0) {
        for (int i = 0; i < 200; i++) {
            int n = wait_policy_runnable();
            if (n > most) most = n;
        }
#pragma omp atomic write
        done = 1;
    } else {
        for (int end = 0; !end;) {
#pragma omp atomic read
            end = done;
        }
    }
    EXPECT(most >= 4 && most <= tasks(), "4 threads run, %d were seen", most);
}

static void test_choice(void) {
    int before = tasks();
    setenv("GOMP_SPINCOUNT", "5", 1);
    wait_policy_watch(2);
    EXPECT(tasks() == before, "the user has chosen, but is watched");
    unsetenv("GOMP_SPINCOUNT");
}

/* Two busy neighbours a processor. */
static void test_watch(void) {
    int neighbours = 2 * omp_get_num_procs();
    pid_t *child = calloc((size_t)neighbours, sizeof *child);
    CHECK(child, "out of memory");
    for (int i = 0; i < neighbours; i++)
        if ((child[i] = fork()) == 0) {
            alarm(60); /* should this test die before it ends them */
            for (volatile int busy = 1; busy;) {
            }
        }
    int before = tasks();
    wait_policy_watch(2);
    wait_policy_watch(2);
    for (int i = 0; i < 2000 && tasks() < before + 3; i++) usleep(10000);
    EXPECT(tasks() == before + 3, "expected the watch and a team of two, got %d threads",
           tasks() - before);
    for (int i = 0; i < neighbours; i++) {
        kill(child[i], SIGKILL);
        waitpid(child[i], NULL, 0);
    }
    free(child);
}

int main(void) {
    if (omp_get_num_procs() > 1) test_switch(); /* with one processor a team always sleeps */
    test_room();
    test_own();
    test_choice();
    test_watch();
    return test_done("wait_policy");
}
