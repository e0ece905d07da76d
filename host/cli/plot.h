/* plot.h - a figure of curves as SVG: one self-contained file, that may also stand in a page.
 *
 * What was measured is a solid line with a mark and a bar of its error at each point; what a
 * formula says is a dashed line without marks. Both colours and marks tell series apart. Colours
 * follow the reader's light or dark scheme. No scripts, no fonts, nothing fetched. */
#ifndef SAILS_PLOT_H
#define SAILS_PLOT_H

#include <stdbool.h>
#include <stdio.h>

enum PlotStyle { PLOT_MEASURED, PLOT_FORMULA };

typedef struct PlotSeries {
    const char *name; /* in the legend */
    enum PlotStyle style;
    int colour;          /* any >= 0; equal for a measurement and its formula */
    const double *x, *y; /* (n); a point that is no number, or none on a logarithmic axis, is left
                            out and its line is broken there */
    const double *error; /* (n) half the length of the bars; NULL: none */
    int n;
} PlotSeries;

/* A vertical line with words beside it. */
typedef struct PlotMark {
    double x;
    const char *text;
} PlotMark;

typedef struct PlotAxis {
    const char *label;
    bool log;
} PlotAxis;

typedef struct Plot {
    const char *title;
    const char *about; /* a sentence under the title, and what screen readers say */
    PlotAxis x, y;
    const PlotSeries *series;
    int nseries;
    const PlotMark *mark;
    int nmark;
} Plot;

/* Axes span what is there to show; a linear one from 0 where its numbers come near. */
void plot_write(FILE *f, const Plot *p);

/* Ticks of an axis from `least` to `most` (of a logarithmic one: both > 0), at most `room` into
 * at[]; the first *labelled are those that carry a number. Returns how many. */
int plot_ticks(double *at, int room, int *labelled, double least, double most, bool log);

#endif
