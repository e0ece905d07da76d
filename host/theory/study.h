/* study.h - the recovery experiment's studies: what each varies, measures and draws. */
#ifndef SAILS_THEORY_STUDY_H
#define SAILS_THEORY_STUDY_H

#include "host/cli/plot.h"
#include "host/cli/settings.h"
#include "host/theory/table.h"
#include "host/theory/world.h"

typedef struct StudySpec {
    Exec *ex;
    WorldShape shape; /* draw is the repeat's; loud features are in the studies that compare them */
    double eps;       /* of the dictionary, where it is not what varies */
    int documents;    /* of each corpus: where they vary, the most */
    int most;         /* of each corpus in the study `contrast` */
    int repeats;
} StudySpec;

/* A curve of a figure: a column against the study's key. */
typedef struct Curve {
    const char *column, *name;
    enum PlotStyle style;
    int colour;
} Curve;

enum { STUDY_CURVES = 9, STUDY_MARKS = 2, STUDY_FIGURES = 2, STUDY_ROWS = 16 };
typedef struct Figure {
    const char *file, *title, *about; /* NULL file: none */
    PlotAxis x, y;
    Curve curve[STUDY_CURVES]; /* up to the first without a column */
} Figure;

/* What a study varies and measures. */
typedef struct Measure {
    const Column *column; /* the first is the key */
    int columns;
    int (*keys)(double *key, const StudySpec *spec); /* at most STUDY_ROWS; how many */
    void (*draw)(Table *t, const double *key, const StudySpec *spec); /* one repeat's values */
} Measure;

typedef struct Study {
    const char *about;
    const Measure *measure;
    int (*marks)(PlotMark *mark, const StudySpec *spec); /* NULL: none */
    Figure figure[STUDY_FIGURES];
} Study;

extern const Study studies[STUDY_COUNT]; /* by enum TheoryStudy; that of STUDY_ALL is empty */

/* False, in words of the command's flags, when the study cannot be made of this. */
bool study_check(enum TheoryStudy which, const StudySpec *spec, Err *err);

/* All repeats. False when a signal came. t is to be freed in any case. */
bool study_run(Table *t, enum TheoryStudy which, const StudySpec *spec, bool quiet, Err *err);

/* Figure i of the study. */
void study_plot(FILE *f, const Table *t, enum TheoryStudy which, int i, const StudySpec *spec);

#endif
