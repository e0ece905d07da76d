/* subspaces.c - how many directions explain the chosen features, and what the columns hold. */
#include <stdlib.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/html.h"
#include "host/cli/plot.h"
#include "host/cli/print.h"
#include "host/report/report.h"
#include "model/subspace.h"

/* The least and the largest of a list. */
static void range(char text[2 * HTML_NUMBER], const json_t *list) {
    const json_t *x;
    size_t i;
    double low = 1, high = 0;
    snprintf(text, 2 * HTML_NUMBER, "\xe2\x80\x93");
    json_array_foreach (list, i, x) {
        double v = json_number_value(x);
        low = v < low ? v : low, high = v > high ? v : high;
    }
    if (json_array_size(list))
        snprintf(text, 2 * HTML_NUMBER, "%.1f\xe2\x80\x93%.1f", 100 * low, 100 * high);
}

static void basis_row(FILE *f, const char *method, const json_t *basis) {
    static const char *const whole[] = {"layer", "features", "directions", "columns"};
    char text[HTML_NUMBER], both[2 * HTML_NUMBER];
    html(f, "<tr><th scope=\"row\">%s</th>", method);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        html(f, "<td class=\"n\">%s</td>", html_fixed(text, json_object_get(basis, whole[i]), 0));
    html(f, "<td class=\"n\">%s</td>", html_percent(text, json_object_get(basis, "explained")));
    html(f, "<td class=\"n\">%s</td>", html_percent(text, json_object_get(basis, "captured")));
    range(both, json_object_get(basis, "coverage"));
    html(f, "<td class=\"n\">%s</td></tr>\n", both);
}

static void table(FILE *f, const json_t *subspaces) {
    const char *method;
    json_t *bases, *basis;
    size_t i;
    fputs(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Subspaces by "
        "layer\"><table>"
        "<caption>Captured: of the features' whole span by the columns. Coverage: of each "
        "feature's direction, the least and the largest.</caption><thead><tr><th scope=\"col\">"
        "row</th><th scope=\"col\" class=\"n\">layer</th><th scope=\"col\" class=\"n\">features"
        "</th><th scope=\"col\" class=\"n\">directions</th><th scope=\"col\" class=\"n\">columns"
        "</th><th scope=\"col\" class=\"n\">explained %</th><th scope=\"col\" class=\"n\">captured "
        "%</th><th scope=\"col\" class=\"n\">coverage %</th></tr></thead>\n<tbody>",
        f);
    json_object_foreach ((json_t *)subspaces, method, bases)
        json_array_foreach (bases, i, basis) basis_row(f, method, basis);
    fputs("</tbody></table></div>\n", f);
}

/* The explained share by the number of directions, a curve a layer. */
static void curves(FILE *f, const Subspace *s, const char *method) {
    PlotSeries *series = mem_array((size_t)s->n, sizeof *series);
    char(*name)[PRINT_ROOM] = mem_array((size_t)s->n, sizeof *name);
    char title[128];
    int used = 0;
    for (int i = 0; i < s->n; i++) {
        const Basis *b = &s->basis[i];
        int n = b->variance ? basis_shares(b) : 0;
        if (n == 0) continue;
        double *x = mem_array(2 * (size_t)n, sizeof *x), *y = x + n, sum = 0;
        for (int k = 0; k < n; k++) x[k] = k + 1, y[k] = 100 * (sum += b->variance[k]);
        snprintf(name[used], sizeof *name, "layer %d", b->layer);
        series[used] = (PlotSeries){.name = name[used], .colour = used, .x = x, .y = y, .n = n};
        used++;
    }
    snprintf(title, sizeof title, "%.60s: explained variance", method);
    if (used)
        plot_write(
            f, &(Plot){.title = title,
                       .about = "Share of the features' variance that the first directions hold.",
                       .x = {.label = "directions"},
                       .y = {.label = "explained, %"},
                       .series = series,
                       .nseries = used});
    for (int i = 0; i < used; i++) free((double *)series[i].x);
    free(name);
    free(series);
}

/* What cannot be read is said in its place: the table has the shares. */
static void curves_of_file(FILE *f, const ReportRun *run, const char *method) {
    char path[4400];
    Subspace s;
    Err err;
    snprintf(path, sizeof path, "%s/subspaces/%.200s.safetensors", run->folder, method);
    if (!files_exists(path)) return;
    if (!subspace_load(&s, path, &err)) {
        html(f, "<p>%s</p>\n", err.text);
        return;
    }
    curves(f, &s, method);
    subspace_free(&s);
}

void report_subspaces(FILE *f, const ReportRun *run, const char *id) {
    const json_t *subspaces = json_object_get(run->summary, "subspaces");
    const char *method;
    json_t *bases;
    html(f, "<section aria-labelledby=\"%s-subspaces\"><h3 id=\"%s-subspaces\">Subspaces</h3>\n",
         id, id);
    if (json_object_size(subspaces) == 0) {
        fputs("<p>No row of the table starts in a subspace.</p>", f);
    } else {
        fputs(
            "<div class=\"plots\" tabindex=\"0\" role=\"region\" aria-label=\"Explained "
            "variance\">",
            f);
        json_object_foreach ((json_t *)subspaces, method, bases) curves_of_file(f, run, method);
        fputs("</div>\n", f);
        table(f, subspaces);
    }
    fputs("</section>\n", f);
}
