/* Learning rates by step, against transformers' get_cosine_, get_linear_schedule_with_warmup and
 * get_constant_schedule_with_warmup written out here. */
#include "model/schedule.h"

#include <math.h>

#include "tests/test.h"

static double reference(enum ScheduleKind kind, double lr, int warmup, int total, int step) {
    if (step < warmup) return lr * ((double)step / fmax(1, warmup));
    double progress = (double)(step - warmup) / fmax(1, total - warmup);
    if (kind == SCHEDULE_COSINE) return lr * fmax(0, 0.5 * (1 + cos(M_PI * 0.5 * 2 * progress)));
    if (kind == SCHEDULE_LINEAR)
        return lr * fmax(0, (double)(total - step) / fmax(1, total - warmup));
    return lr;
}

/* Two roundings more or less: 8 units of the last place of lr are plenty. */
static bool same_rates(Schedule s, int warmup_off) {
    bool ok = true;
    for (int step = 0; step < s.total; step++) {
        double want = reference(s.kind, s.lr, s.warmup + warmup_off, s.total, step);
        ok = ok && fabs(schedule_lr(&s, step) - want) <= s.lr * 8 * ldexp(1, -53);
    }
    return ok;
}

int main(void) {
    static const int shape[][2] = {{0, 1}, {0, 7}, {1, 7}, {3, 40}, {7, 7}};
    for (enum ScheduleKind kind = SCHEDULE_COSINE; kind <= SCHEDULE_CONSTANT; kind++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            EXPECT(same_rates((Schedule){kind, 3e-4, shape[i][0], shape[i][1]}, 0),
                   "kind %d, %d of %d steps of warm-up", (int)kind, shape[i][0], shape[i][1]);
    TEST_DETECTS(same_rates((Schedule){SCHEDULE_COSINE, 3e-4, 3, 40}, 1));
    return test_done("schedule");
}
