/* schedule.h - the learning rate of each step, as transformers' schedules define it. */
#ifndef SAILS_SCHEDULE_H
#define SAILS_SCHEDULE_H

#include "kernels/choices.h"

#define SCHEDULES(X)             \
    X(SCHEDULE_COSINE, "cosine") \
    X(SCHEDULE_LINEAR, "linear") \
    X(SCHEDULE_CONSTANT, "constant")
enum ScheduleKind { SCHEDULES(CHOICE_ENUM) };

typedef struct Schedule {
    enum ScheduleKind kind;
    double lr;         /* at the top */
    int warmup, total; /* steps */
} Schedule;

/* Learning rate of the update number `step`, from 0. During warm-up lr * step / warmup: the first
 * update of a warm-up has rate 0. Then, with p = (step - warmup) / (total - warmup),
 *   cosine  lr (1 + cos(pi p)) / 2;   linear  lr (1 - p);   constant  lr. */
double schedule_lr(const Schedule *s, int step);

#endif
