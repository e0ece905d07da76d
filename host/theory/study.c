/* study.c - runs a study, and makes its figures from its table. */
#include "host/theory/study.h"

#include "data/base/interrupt.h"
#include "data/base/mem.h"
#include "host/cli/print.h"

static int keys_of(double *key, const Measure *m, const StudySpec *spec) {
    int n = m->keys(key, spec);
    CHECK(n > 0 && n <= STUDY_ROWS, "%d rows", n);
    return n;
}

bool study_run(Table *t, enum TheoryStudy which, const StudySpec *spec, bool quiet, Err *err) {
    const Measure *m = studies[which].measure;
    double key[STUDY_ROWS];
    char name[SETTING_KEY];
    Progress bar;
    setting_choice_name(CHOICES(THEORY_STUDIES), (int)which, name);
    table_init(t, m->column, m->columns, keys_of(key, m, spec));
    for (int i = 0; i < t->rows; i++) table_add(t, i, m->column[0].name, key[i]);
    progress_begin(&bar, name, quiet);
    StudySpec one = *spec;
    bool ok = true;
    for (int i = 0; i < spec->repeats && ok; i++) {
        one.shape.draw = i;
        m->draw(t, key, &one);
        progress_at(&bar, i + 1, spec->repeats);
        ok = !interrupted(err);
    }
    progress_end(&bar);
    return ok;
}

void study_plot(FILE *f, const Table *t, enum TheoryStudy which, int i, const StudySpec *spec) {
    const Study *s = &studies[which];
    const Figure *figure = &s->figure[i];
    PlotSeries series[STUDY_CURVES];
    PlotMark mark[STUDY_MARKS];
    Plot p = {figure->title, figure->about,
              figure->x,     figure->y,
              series,        0,
              mark,          s->marks ? s->marks(mark, spec) : 0};
    size_t rows = (size_t)t->rows;
    double *values = mem_array(rows * (1 + 2 * STUDY_CURVES), sizeof *values);
    for (int row = 0; row < t->rows; row++) values[row] = table_mean(t, row, t->column[0].name);
    for (const Curve *c = figure->curve; p.nseries < STUDY_CURVES && c->column; c++) {
        double *y = values + rows * (1 + 2 * (size_t)p.nseries);
        for (int row = 0; row < t->rows; row++) {
            y[row] = table_mean(t, row, c->column);
            y[rows + (size_t)row] = table_error(t, row, c->column);
        }
        series[p.nseries++] = (PlotSeries){
            c->name, c->style, c->colour, values, y, c->style == PLOT_MEASURED ? y + rows : NULL,
            t->rows};
    }
    plot_write(f, &p);
    free(values);
}
