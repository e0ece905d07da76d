/* wait_policy.h - how long a worker thread that waits for the others keeps its core.
 *
 * GNU's OpenMP lets it spin for milliseconds. Alone that is best: threads meet every few
 * microseconds in a small model, and to sleep and be woken each time makes a step 1.4 times as
 * long. On cores that other programs want it is the worst: each turn that the spinning thread is
 * given is lost for the one it waits for, and a step takes 10 times as long. So sails watches
 * whether other programs leave it the processors that its threads want, and lets them sleep while
 * not (bench/busy.sh measures both).
 *
 * The runtime reads its policy before main and has no call to change it. But it spins only for an
 * instant while a process has more OpenMP threads than processors (GOMP_SPINCOUNT in its manual),
 * so a few idle threads of a second team switch it. No result depends on them. */
#ifndef SAILS_WAIT_POLICY_H
#define SAILS_WAIT_POLICY_H

#include <stdbool.h>

/* Starts the watch over a program whose teams have up to `threads` threads; the first call counts.
 * Nothing happens where the user has chosen by OMP_WAIT_POLICY or GOMP_SPINCOUNT. */
void wait_policy_watch(int threads);

/* For people: what the user chose, or that sails watches. */
enum { WAIT_POLICY_ROOM = 200 };
const char *wait_policy_name(char text[WAIT_POLICY_ROOM]);

/* The switch, for its test: how it stands after a period in which programs that are not this one
 * kept `others` of its processors busy. */
typedef struct WaitSwitch {
    int processors, threads;
    bool sleeping; /* the second team is there */
    int calm;      /* periods since the last contention */
} WaitSwitch;
void wait_policy_step(WaitSwitch *s, double others);

/* This process's threads that run or could; also for the test. They are no neighbours. */
int wait_policy_runnable(void);

#endif
