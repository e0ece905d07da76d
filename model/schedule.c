/* schedule.c - warm-up, then cosine, line or constant. */
#include "model/schedule.h"

#include <math.h>

double schedule_lr(const Schedule *s, int step) {
    if (step < s->warmup) return s->lr * step / s->warmup;
    int after = s->total - s->warmup;
    double p = (double)(step - s->warmup) / (after > 0 ? after : 1);
    switch (s->kind) {
        case SCHEDULE_COSINE:
            return s->lr * fmax(0, 0.5 * (1 + cos(3.14159265358979323846 * p)));
        case SCHEDULE_LINEAR:
            return s->lr * fmax(0, 1 - p);
        default:
            return s->lr;
    }
}
