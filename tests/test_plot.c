/* Figures: ticks, escapes, what is drawn of a series and what is not. */
#include "host/cli/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "tests/test.h"

static char *written(const Plot *p) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    CHECK(f, "memory");
    plot_write(f, p);
    CHECK(fclose(f) == 0, "memory");
    return text;
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)); text++) n++;
    return n;
}

/* Elements are closed in the order in which they were opened, attributes are quoted, and no sign
 * stands for itself that XML has a meaning for. */
static int well_formed(const char *svg) {
    char stack[16][16];
    int depth = 0, elements = 0;
    for (const char *c = svg; *c; c++) {
        if (*c == '&' && strncmp(c, "&amp;", 5) && strncmp(c, "&lt;", 4) && strncmp(c, "&gt;", 4) &&
            strncmp(c, "&quot;", 6))
            return 0;
        if (*c == '>') return 0;
        if ((unsigned char)*c < 0x20 && *c != '\n') return 0;
        if (*c != '<') continue;
        char name[16] = "";
        bool closing = c[1] == '/';
        sscanf(c + 1 + closing, "%15[a-z]", name);
        const char *end = strchr(c, '>');
        if (!end || !*name) return 0;
        for (const char *a = c + 1; a < end; a++)
            if (*a == '<') return 0;
        int quotes = 0;
        for (const char *a = c; a < end; a++) quotes += *a == '"';
        if (quotes % 2) return 0;
        if (closing && (depth == 0 || strcmp(stack[--depth], name) != 0)) return 0;
        if (!closing && end[-1] != '/') {
            if (depth == 16) return 0;
            strcpy(stack[depth++], name);
        }
        elements++;
        c = end;
        if (strcmp(name, "style") == 0 && !closing) c = strstr(c, "</style>") - 1;
    }
    return depth == 0 && elements > 0;
}

static void test_ticks(void) {
    static const struct {
        double least, most;
        bool log;
        int n, labelled;
        double first, last;
    } row[] = {
        {0, 1, false, 6, 6, 0, 1},
        {-0.3, 0.3, false, 7, 7, -0.3, 0.3},
        {0, 8, false, 9, 9, 0, 8},
        {1e5, 1.08e5, false, 9, 9, 1e5, 1.08e5},
        {0.001, 1000, true, 55, 7, 1e-3, 900},
        {20, 300, true, 11, 4, 100, 300},
        {0.9, 1.1, true, 2, 1, 1, 0.9},
        {1e-15, 10, true, 17, 8, 1e-14, 10},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        double at[64];
        int labelled, n = plot_ticks(at, 64, &labelled, row[i].least, row[i].most, row[i].log);
        EXPECT(n == row[i].n && labelled == row[i].labelled, "%g to %g: %d ticks, %d with numbers",
               row[i].least, row[i].most, n, labelled);
        EXPECT(n > 0 && fabs(at[0] - row[i].first) <= 1e-9 * row[i].most &&
                   fabs(at[n - 1] - row[i].last) <= 1e-9 * row[i].most,
               "%g to %g: from %g to %g", row[i].least, row[i].most, at[0], at[n - 1]);
    }
    double at[3];
    int labelled;
    EXPECT(plot_ticks(at, 3, &labelled, 1, 1e9, true) == 3 && labelled == 3, "room for 3: %d",
           labelled);
}

static const double X[] = {0, 0.01, 0.1, 1, 10}, Y[] = {1, 2, NAN, 4, 0},
                    BAR[] = {0, 0.5, 1, 4, NAN};

static void test_series(void) {
    PlotSeries s[] = {{"what was <seen> & \"quoted\" \x01", PLOT_MEASURED, 1, X, Y, BAR, 5},
                      {"a formula", PLOT_FORMULA, 1, X, Y, NULL, 5}};
    PlotMark mark = {0.5, "mark > here"};
    Plot p = {"A & B", "about <it>", {"x", true}, {"y", true}, s, 2, &mark, 1};
    char *svg = written(&p);
    EXPECT(well_formed(svg), "not XML: %s", svg);
    EXPECT(count(svg, "<svg ") == 1 && count(svg, "http") == 1, "one image, nothing fetched");
    EXPECT(count(svg, "what was &lt;seen&gt; &amp; &quot;quoted&quot; \xef\xbf\xbd") == 3,
           "names and points");
    EXPECT(!strstr(svg, "nan") && !strstr(svg, "inf"), "a number that is none");
    EXPECT(strstr(svg, "A &amp; B</title>") && strstr(svg, "about &lt;it&gt;</desc>"), "title");
    EXPECT(strstr(svg, "mark &gt; here"), "mark");
    EXPECT(count(svg, "class=\"line s1\" d=\"M84") + count(svg, "class=\"line s1\"") > 0, "a line");
    /* Only (0.01, 2) and (1, 4) have a place on two logarithmic axes, apart from each other. */
    EXPECT(count(svg, ": 2 at 0.01<") == 1 && count(svg, ": 4 at 1<") == 1, "points: %s", svg);
    EXPECT(count(svg, "class=\"dot f1\"") == 3, "marks and one in the legend: %d",
           count(svg, "class=\"dot f1\""));
    EXPECT(count(svg, "class=\"bar s1\"") == 2, "bars: %d", count(svg, "class=\"bar s1\""));
    EXPECT(count(svg, " dash\"") == 2, "dashed: the formula and its place in the legend");
    const char *line = strstr(svg, "class=\"line s1\" d=\"");
    const char *end = line ? strstr(line + 20, "\"/>") : NULL;
    EXPECT(end && memchr(line + 19, 'M', (size_t)(end - line - 19)), "a curve");
    EXPECT(end && !memchr(line + 19, 'L', (size_t)(end - line - 19)), "joined over a gap");
    for (char *at = svg; *at; at++) { /* a broken file must be seen */
        if (strncmp(at, "</desc>", 7) != 0) continue;
        at[1] = 'x';
        TEST_DETECTS(well_formed(svg));
        at[1] = '/';
    }
    free(svg);
    p.x.log = p.y.log = false;
    svg = written(&p);
    EXPECT(count(svg, "class=\"dot f1\"") == 5, "linear: %d", count(svg, "class=\"dot f1\""));
    EXPECT(count(svg, "class=\"bar s1\"") == 2, "linear bars: %d", count(svg, "class=\"bar s1\""));
    free(svg);
}

/* Where a point lies: at the edge of the box that the axis' numbers say. */
static void test_place(void) {
    static const double x[] = {0, 10}, y[] = {0, 100};
    PlotSeries s = {"s", PLOT_MEASURED, 0, x, y, NULL, 2};
    Plot p = {"t", "", {"x", false}, {"y", false}, &s, 1, NULL, 0};
    char *svg = written(&p);
    double left = 0, bottom = 0, right = 0, top = 0;
    const char *line = strstr(svg, "class=\"line s0\" d=\"");
    int got =
        line ? sscanf(line, "class=\"line s0\" d=\"M%lf %lfL%lf %lf", &left, &bottom, &right, &top)
             : 0;
    /* from 0 to 5 % beyond the largest */
    EXPECT(got == 4 && left == 84 && bottom == 362 && fabs(right - (84 + 616 / 1.05)) <= 0.06 &&
               fabs(top - (362 - 300 / 1.05)) <= 0.06,
           "from %g %g to %g %g", left, bottom, right, top);
    EXPECT(strstr(svg, ">10</text>") && strstr(svg, ">100</text>"), "numbers at the axes");
    free(svg);
}

/* No series, one point, only what no axis has a place for: still an image. */
static void test_nothing(void) {
    static const double none[] = {NAN, -1}, one[] = {5}, both[] = {0, -1};
    PlotSeries s[] = {{"none", PLOT_MEASURED, 7, both, none, NULL, 2},
                      {"one", PLOT_MEASURED, 2, one, one, NULL, 1}};
    for (int i = 0; i < 6; i++) {
        Plot p = {"t", "", {"x", i % 2}, {"y", i % 2}, s + (i / 2 == 2), i / 2 ? 1 : 0, NULL, 0};
        char *svg = written(&p);
        EXPECT(well_formed(svg) && !strstr(svg, "nan") && !strstr(svg, "inf"), "case %d: %s", i,
               svg);
        free(svg);
    }
}

int main(void) {
    test_ticks();
    test_series();
    test_place();
    test_nothing();
    return test_done("plot");
}
