/* wait_policy.c - a watch on the cores, and the second team that makes libgomp stop spinning. */
#include "host/stage/wait_policy.h"

#include <dirent.h>
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The kernel counts processor time in steps of 10 ms: a shorter period would see little else. To
 * spin again too early costs a period at a tenth of the speed, so that waits for CALM of them. */
enum { PERIOD_MS = 100, CALM = 10 };

static const char *const variable[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"};

/* The second team: who opened it waits in it for `leave`. */
static struct {
    pthread_t thread;
    sem_t arrived, leave;
} team;

static void *team_run(void *threads) {
    volatile int here = 0; /* an empty region would be optimised away */
#pragma omp parallel num_threads((int)(intptr_t)threads)
#pragma omp atomic
    here++;
    sem_post(&team.arrived);
    sem_wait(&team.leave);
    return NULL; /* its idle threads end with it */
}

/* Together with the program's own one thread more than there are processors. */
static bool team_open(const WaitSwitch *s) {
    int spare = s->processors - s->threads, size = spare > 0 ? spare + 2 : 2;
    sem_init(&team.arrived, 0, 0);
    sem_init(&team.leave, 0, 0);
    if (pthread_create(&team.thread, NULL, team_run, (void *)(intptr_t)size) != 0) return false;
    sem_wait(&team.arrived);
    return true;
}

static void team_close(void) {
    sem_post(&team.leave);
    pthread_join(team.thread, NULL);
}

/* A fifth of what the threads want may be missing: less than the kernel's steps can show, and than
 * one neighbour takes of two processors. */
void wait_policy_step(WaitSwitch *s, double others) {
    if (others > s->processors - 0.8 * s->threads) {
        s->calm = 0;
        if (!s->sleeping) s->sleeping = team_open(s);
    } else if (s->sleeping && ++s->calm == CALM) {
        team_close();
        s->sleeping = false;
    }
}

/* Seconds for which the processors that this process may use were busy, for whomever; also those
 * that a hypervisor has given to others. */
static double busy_seconds(const cpu_set_t *mine) {
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return 0;
    char line[1024];
    double ticks = 0;
    while (fgets(line, sizeof line, f)) {
        int cpu;
        double user, nice, system, irq, softirq, steal;
        if (line[3] != ' ' && /* not the sum of all */
            sscanf(line, "cpu%d %lf %lf %lf %*f %*f %lf %lf %lf", &cpu, &user, &nice, &system, &irq,
                   &softirq, &steal) == 7 &&
            CPU_ISSET((size_t)cpu, mine))
            ticks += user + nice + system + irq + softirq + steal;
    }
    fclose(f);
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

static double own_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int wait_policy_runnable(void) {
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
        char path[300], line[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!f) continue;
        const char *end = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
        n += end && end[1] == ' ' && end[2] == 'R'; /* "12 (sails) R ..." */
        fclose(f);
    }
    if (tasks) closedir(tasks);
    return n;
}

/* Who else wants to run just now, before there is a period to look back on: the least of three
 * looks. */
static double runnable_others(void) {
    static const struct timespec moment = {0, 2000000};
    int least = INT_MAX;
    for (int i = 0; i < 3; i++) {
        int n = 0, own = wait_policy_runnable();
        FILE *f = fopen("/proc/loadavg", "r");
        if (f && fscanf(f, "%*f %*f %*f %d", &n) != 1) n = 0;
        if (f) fclose(f);
        if (n - own < least) least = n - own;
        nanosleep(&moment, NULL);
    }
    return least > 0 ? least : 0;
}

static void *watch(void *threads) {
    static const struct timespec period = {0, PERIOD_MS * 1000000L};
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) return NULL;
    WaitSwitch s = {.processors = CPU_COUNT(&mine), .threads = (int)(intptr_t)threads};
    wait_policy_step(&s, runnable_others());
    for (;;) {
        double from = now_seconds(), others = busy_seconds(&mine) - own_seconds();
        nanosleep(&period, NULL);
        others = busy_seconds(&mine) - own_seconds() - others;
        wait_policy_step(&s, others / (now_seconds() - from));
    }
    return NULL;
}

static bool user_chose(void) {
    return getenv(variable[0]) || getenv(variable[1]);
}

void wait_policy_watch(int threads) {
    static bool started;
    if (started || threads < 2 || user_chose()) return;
    started = true;
    sigset_t all, old; /* signals are for the main thread, whose reads they interrupt */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, (void *)(intptr_t)threads) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

const char *wait_policy_name(char text[WAIT_POLICY_ROOM]) {
    const char *v[2] = {getenv(variable[0]), getenv(variable[1])};
    if (!v[0] && !v[1])
        snprintf(text, WAIT_POLICY_ROOM, "threads sleep while other programs want their cores");
    else
        snprintf(text, WAIT_POLICY_ROOM, "as the environment says:%s%.60s%s%.60s",
                 v[0] ? " OMP_WAIT_POLICY=" : "", v[0] ? v[0] : "", v[1] ? " GOMP_SPINCOUNT=" : "",
                 v[1] ? v[1] : "");
    return text;
}
