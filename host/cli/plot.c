/* plot.c - curves as SVG. */
#include "host/cli/plot.h"

#include <math.h>
#include <string.h>

#include "host/cli/html.h"
#include "kernels/check.h"

/* Pixels. The axes' box, and the legend's rows below it. */
enum {
    WIDTH = 720,
    LEFT = 84,
    RIGHT = 20,
    TOP = 62,
    BOX = 300,   /* height of the axes */
    LEGEND = 62, /* from the box to the first row */
    ROW = 20,
    TICKS = 64,
    COLOURS = 6,
    PART = WIDTH - LEFT - RIGHT
};

/* Okabe and Ito's colours that no kind of colour blindness confuses, darker on white and lighter on
 * black until each has a contrast of 3 with it. */
static const char style[] =
    "<style>\n"
    ".sp{font:13px system-ui,sans-serif;max-width:100%;height:auto}\n"
    ".sp .bg{fill:#fff}.sp text{fill:#222}.sp .soft{fill:#555}.sp .big{font-size:16px;"
    "font-weight:600}\n"
    ".sp .grid{stroke:#e2e2e2;stroke-width:1}.sp .axis{stroke:#555;stroke-width:1;fill:none}\n"
    ".sp .mark{stroke:#777;stroke-width:1;stroke-dasharray:2 3}\n"
    ".sp .line{fill:none;stroke-width:1.2;stroke-linejoin:round}.sp .bar{stroke-width:1.2}\n"
    ".sp .dash{stroke-width:3;stroke-dasharray:8 6}.sp .dot{stroke-width:0}\n" /* seen on a curve,
                                                                                  too */
    ".sp .s0{stroke:#0072b2}.sp .f0{fill:#0072b2}.sp .s1{stroke:#c44e00}.sp .f1{fill:#c44e00}\n"
    ".sp .s2{stroke:#00805c}.sp .f2{fill:#00805c}.sp .s3{stroke:#a8508a}.sp .f3{fill:#a8508a}\n"
    ".sp .s4{stroke:#8a6d00}.sp .f4{fill:#8a6d00}.sp .s5{stroke:#444}.sp .f5{fill:#444}\n"
    "@media (prefers-color-scheme:dark){\n"
    ".sp .bg{fill:#16181c}.sp text{fill:#e8e8e8}.sp .soft{fill:#b0b0b0}\n"
    ".sp .grid{stroke:#33373d}.sp .axis{stroke:#b0b0b0}.sp .mark{stroke:#999}\n"
    ".sp .s0{stroke:#56b4e9}.sp .f0{fill:#56b4e9}.sp .s1{stroke:#f08a3c}.sp .f1{fill:#f08a3c}\n"
    ".sp .s2{stroke:#2fc296}.sp .f2{fill:#2fc296}.sp .s3{stroke:#e08fc0}.sp .f3{fill:#e08fc0}\n"
    ".sp .s4{stroke:#e6c84a}.sp .f4{fill:#e6c84a}.sp .s5{stroke:#ccc}.sp .f5{fill:#ccc}\n"
    "}\n</style>\n";

/* -------------------------------------------------------------------------------------- axes -- */

typedef struct Scale {
    double least, most; /* of a logarithmic axis: their logarithms */
    bool log;
    double from, to; /* pixels */
} Scale;

/* Is it a number that the axis has a place for? */
static bool shown(const Scale *s, double v) {
    return isfinite(v) && (!s->log || v > 0);
}

static double place(const Scale *s, double v) {
    double t = s->log ? log10(v) : v;
    return s->from + (t - s->least) / (s->most - s->least) * (s->to - s->from);
}

static void widen(Scale *s, double v) {
    double t = s->log ? log10(v) : v;
    s->least = fmin(s->least, t);
    s->most = fmax(s->most, t);
}

/* A little room around the numbers, and down to 0 where they come near it. */
static void round_scale(Scale *s) {
    if (!(s->least <= s->most)) s->least = 0, s->most = 1; /* nothing to show */
    double span = s->most - s->least;
    if (span == 0) span = s->log ? 1 : fmax(fabs(s->most), 1);
    bool zero = !s->log && s->least >= 0 && s->least < span / 2;
    s->least = zero ? 0 : s->least - span / 20;
    s->most += span / 20;
}

static Scale scale_of(const Plot *p, bool vertical) {
    Scale s = {INFINITY, -INFINITY, vertical ? p->y.log : p->x.log, 0, 0};
    s.from = vertical ? TOP + BOX : LEFT, s.to = vertical ? TOP : LEFT + PART;
    Scale x = {.log = p->x.log}, y = {.log = p->y.log};
    for (int i = 0; i < p->nseries; i++) {
        const PlotSeries *c = &p->series[i];
        for (int k = 0; k < c->n; k++)
            if (shown(&x, c->x[k]) && shown(&y, c->y[k])) widen(&s, vertical ? c->y[k] : c->x[k]);
    }
    for (int i = 0; i < p->nmark && !vertical; i++)
        if (shown(&s, p->mark[i].x)) widen(&s, p->mark[i].x);
    round_scale(&s);
    return s;
}

/* 1, 2 or 5 times a power of ten, so that at most eight such steps fit. */
static double nice_step(double span) {
    double step = pow(10, floor(log10(span / 8)));
    static const double times[] = {2, 2.5, 2}; /* 1 -> 2 -> 5 -> 10 */
    for (int i = 0; span / step > 8; i++) step *= times[i % 3];
    return step;
}

/* 0: the multiple k of 10^e carries a number; 1: where powers are few; 2: a tick alone; 3: none. Of
 * many powers each `stride`-th is enough. */
static int log_rank(int k, int e, int stride) {
    if (k == 1) return e % stride ? 2 : 0;
    if (stride > 1) return 3;
    return k == 2 || k == 5 ? 1 : 2;
}

static int log_ticks(double *at, int room, int *labelled, double least, double most) {
    int n = 0, low = (int)floor(log10(least)), high = (int)floor(log10(most));
    int powers = high - (int)ceil(log10(least)) + 1, stride = 1 + (powers - 1) / 9;
    for (int rank = 0; rank < 3; rank++) {
        for (int e = low; e <= high; e++)
            for (int k = 1; k < 10; k++) {
                double v = k * pow(10, e);
                bool in = v >= least && v <= most && log_rank(k, e, stride) == rank;
                if (in && n < room) at[n++] = v;
            }
        if (rank == (powers < 3)) *labelled = n;
    }
    return n;
}

int plot_ticks(double *at, int room, int *labelled, double least, double most, bool log) {
    CHECK(least < most && (!log || least > 0), "an axis from %g to %g", least, most);
    if (log) return log_ticks(at, room, labelled, least, most);
    double step = nice_step(most - least);
    int n = 0;
    for (double k = ceil(least / step - 1e-9); k * step <= most + 1e-9 * step && n < room; k++)
        at[n++] = k == 0 ? 0 : k * step;
    *labelled = n;
    return n;
}

static void ticks(FILE *f, const Scale *s, bool vertical) {
    double at[TICKS], least = s->log ? pow(10, s->least) : s->least;
    int labelled,
        n = plot_ticks(at, TICKS, &labelled, least, s->log ? pow(10, s->most) : s->most, s->log);
    for (int i = 0; i < n; i++) {
        double v = place(s, at[i]);
        if (i < labelled && vertical)
            fprintf(f, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>", LEFT, v, LEFT + PART);
        else if (i < labelled)
            fprintf(f, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>", v, TOP, TOP + BOX);
        int length = i < labelled ? 6 : 3;
        if (vertical)
            fprintf(f, "<path class=\"axis\" d=\"M%d %.1fh%d\"/>", LEFT - length, v, length);
        else
            fprintf(f, "<path class=\"axis\" d=\"M%.1f %dv%d\"/>", v, TOP + BOX, length);
        if (i < labelled && vertical)
            fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 10,
                    v + 4.5, at[i]);
        else if (i < labelled)
            fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>\n", v,
                    TOP + BOX + 22, at[i]);
    }
}

static void axes(FILE *f, const Plot *p, const Scale *x, const Scale *y) {
    ticks(f, x, false);
    ticks(f, y, true);
    fprintf(f, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, TOP + BOX, LEFT + PART);
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", LEFT + PART / 2, TOP + BOX + 44);
    html_text(f, p->x.label);
    fprintf(f, "</text>\n<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">",
            TOP + BOX / 2);
    html_text(f, p->y.label);
    fputs("</text>\n", f);
}

static void marks(FILE *f, const Plot *p, const Scale *x) {
    for (int i = 0; i < p->nmark; i++) {
        if (!shown(x, p->mark[i].x)) continue;
        double v = place(x, p->mark[i].x);
        bool left = v > LEFT + PART * 0.6; /* words on the side with more room */
        fprintf(f, "<path class=\"mark\" d=\"M%.1f %dV%d\"/>", v, TOP, TOP + BOX);
        fprintf(f, "<text class=\"soft\" x=\"%.1f\" y=\"%d\"%s>", v + (left ? -5 : 5),
                TOP + BOX - 8 - 16 * i, left ? " text-anchor=\"end\"" : "");
        html_text(f, p->mark[i].text);
        fputs("</text>\n", f);
    }
}

/* ------------------------------------------------------------------------------------ series -- */

/* A mark of the colour's own shape: disc, square, diamond, triangle, ... */
static void dot(FILE *f, int colour, double x, double y) {
    int c = colour % COLOURS;
    if (c % 3 == 0)
        fprintf(f, "<circle class=\"dot f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"", c, x, y);
    else if (c % 3 == 1)
        fprintf(f, "<path class=\"dot f%d\" d=\"M%.1f %.1fh7v7h-7z\"", c, x - 3.5, y - 3.5);
    else
        fprintf(f, "<path class=\"dot f%d\" d=\"M%.1f %.1fl5 5l-5 5l-5-5z\"", c, x, y - 5);
}

static void points(FILE *f, const PlotSeries *s, const Scale *x, const Scale *y) {
    for (int k = 0; k < s->n; k++) {
        if (!shown(x, s->x[k]) || !shown(y, s->y[k])) continue;
        double at = place(x, s->x[k]), e = s->error && isfinite(s->error[k]) ? s->error[k] : 0;
        double low = s->y[k] - e, bottom = shown(y, low) ? place(y, low) : TOP + BOX;
        if (e > 0) /* within the box */
            fprintf(f, "<path class=\"bar s%d\" d=\"M%.1f %.1fV%.1f\"/>", s->colour % COLOURS, at,
                    fmin(bottom, TOP + BOX), fmax(place(y, s->y[k] + e), TOP));
        dot(f, s->colour, at, place(y, s->y[k]));
        fputs("><title>", f);
        html_text(f, s->name);
        fprintf(f, ": %.4g at %.4g</title></%s>\n", s->y[k], s->x[k],
                s->colour % COLOURS % 3 ? "path" : "circle");
    }
}

static void curve(FILE *f, const PlotSeries *s, const Scale *x, const Scale *y) {
    bool down = false;
    fprintf(f, "<path class=\"line s%d%s\" d=\"", s->colour % COLOURS,
            s->style == PLOT_FORMULA ? " dash" : "");
    for (int k = 0; k < s->n; k++) {
        bool here = shown(x, s->x[k]) && shown(y, s->y[k]);
        if (here) fprintf(f, "%c%.1f %.1f", down ? 'L' : 'M', place(x, s->x[k]), place(y, s->y[k]));
        down = here;
    }
    fputs("\"/>\n", f);
    if (s->style == PLOT_MEASURED) points(f, s, x, y);
}

static void legend(FILE *f, const Plot *p) {
    for (int i = 0; i < p->nseries; i++) {
        const PlotSeries *s = &p->series[i];
        int x = LEFT + i % 2 * (PART / 2), y = TOP + BOX + LEGEND + i / 2 * ROW;
        fprintf(f, "<path class=\"line s%d%s\" d=\"M%d %dh30\"/>", s->colour % COLOURS,
                s->style == PLOT_FORMULA ? " dash" : "", x, y);
        if (s->style == PLOT_MEASURED) dot(f, s->colour, x + 15, y), fputs("/>", f);
        fprintf(f, "<text x=\"%d\" y=\"%d\">", x + 38, y + 4);
        html_text(f, s->name);
        fputs("</text>\n", f);
    }
}

void plot_write(FILE *f, const Plot *p) {
    int height = TOP + BOX + LEGEND + (p->nseries + 1) / 2 * ROW;
    Scale x = scale_of(p, false), y = scale_of(p, true);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"sp\" role=\"img\" width=\"%d\" "
            "height=\"%d\" viewBox=\"0 0 %d %d\">\n<title>",
            WIDTH, height, WIDTH, height);
    html_text(f, p->title);
    fputs("</title>\n<desc>", f);
    html_text(f, p->about);
    fprintf(f, "</desc>\n%s<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n", style, WIDTH,
            height);
    fprintf(f, "<text class=\"big\" x=\"%d\" y=\"26\">", LEFT);
    html_text(f, p->title);
    fprintf(f, "</text>\n<text class=\"soft\" x=\"%d\" y=\"46\">", LEFT);
    html_text(f, p->about);
    fputs("</text>\n", f);
    axes(f, p, &x, &y);
    marks(f, p, &x);
    for (int i = 0; i < p->nseries; i++) curve(f, &p->series[i], &x, &y);
    legend(f, p);
    fputs("</svg>\n", f);
}
