/* training.c - loss, gradient norm and rate of each row, step by step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/mem.h"
#include "host/cli/html.h"
#include "host/cli/plot.h"
#include "host/report/report.h"

/* A key of the steps, as a curve for each method that has it. */
typedef struct Curve {
    const char *key, *title, *about, *label;
    bool log;
} Curve;

static const Curve curve[] = {
    {"loss", "Loss", "Mean over the target tokens of a step.", "loss, nats a token", false},
    {"eval_loss", "Validation loss", "On held-out documents.", "loss, nats a token", false},
    {"grad_norm", "Gradient norm", "Before clipping.", "norm", true},
    {"learning_rate", "Learning rate", "As the schedule gives it.", "rate", false},
    {"rewards/margins", "Reward margin", "Of preference pairs, chosen minus rejected.", "margin",
     false},
};

enum { SERIES = 24 }; /* more would not be told apart */

typedef struct Drawn {
    PlotSeries series[SERIES];
    int n;
} Drawn;

static PlotSeries *series_of(Drawn *d, const char *method, size_t room) {
    for (int i = 0; i < d->n; i++)
        if (strcmp(d->series[i].name, method) == 0) return &d->series[i];
    if (d->n == SERIES) return NULL;
    double *x = mem_array(2 * room, sizeof *x);
    d->series[d->n] = (PlotSeries){.name = method, .colour = d->n, .x = x, .y = x + room};
    return &d->series[d->n++];
}

static void add_steps(Drawn *d, const json_t *metrics, const char *key) {
    const json_t *step;
    size_t i;
    json_array_foreach (metrics, i, step) {
        const json_t *x = json_object_get(step, "step"), *y = json_object_get(step, key);
        if (!json_is_number(x) || !json_is_number(y)) continue;
        PlotSeries *s = series_of(d, html_word(step, "method"), json_array_size(metrics));
        if (!s) continue;
        ((double *)s->x)[s->n] = json_number_value(x);
        ((double *)s->y)[s->n++] = json_number_value(y);
    }
}

static bool draw(FILE *f, const ReportRun *run, const Curve *c) {
    Drawn d = {.n = 0};
    add_steps(&d, run->metrics, c->key);
    if (d.n)
        plot_write(f, &(Plot){.title = c->title,
                              .about = c->about,
                              .x = {.label = "step"},
                              .y = {.label = c->label, .log = c->log},
                              .series = d.series,
                              .nseries = d.n});
    for (int i = 0; i < d.n; i++) free((double *)d.series[i].x);
    return d.n > 0;
}

void report_training(FILE *f, const ReportRun *run, const char *id) {
    bool any = false;
    html(f,
         "<section aria-labelledby=\"%s-training\"><h3 id=\"%s-training\">Training</h3>\n"
         "<div class=\"plots\" tabindex=\"0\" role=\"region\" aria-label=\"Curves of training\">",
         id, id);
    for (size_t i = 0; i < sizeof curve / sizeof *curve; i++) any = draw(f, run, &curve[i]) || any;
    fputs("</div>\n", f);
    if (!any) fputs("<p>No row of the table is trained.</p>", f);
    fputs("</section>\n", f);
}
