/* job.h - this process as one rank of a job: how it joins, and the one way in which all ranks end.
 *
 * Rank 0 alone prints and writes: the others' stdout is closed. An error that all ranks meet is
 * said once; one that some meet ends all of them, and the line names the rank. */
#ifndef SAILS_JOB_H
#define SAILS_JOB_H

#include "host/cli/args.h"
#include "host/stage/watchdog.h"

typedef struct Job {
    CommLaunch launch;
    Comm *comm; /* NULL: one rank */
    Watchdog *watchdog;
} Job;

/* Zeroes *j and asks the launcher's variables alone. */
void job_begin(Job *j);

/* Meets the other ranks, if there are any, and has the watchdog begin; where they do not come
 * within the deadline (0: ten minutes), says so and ends this process with EXIT_RANK. All must run
 * the same program with the same settings. */
bool job_join(Job *j, const Args *a, Err *err);

/* Meets them for the end, or makes them end, and prints the error's line; returns the exit code. */
int job_end(Job *j, bool ok, const Err *err);

#endif
