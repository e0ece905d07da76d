/* headline.c - the table of all rows, with intervals. */
#include <math.h>

#include "host/cli/html.h"
#include "host/cli/print.h"
#include "host/report/report.h"

/* An interval of shares as a line from 0 to 100 %, with a mark at the mean. The numbers stand
 * beside it: for screen readers it is not there. */
static void bar(FILE *f, const json_t *mean, const json_t *interval) {
    enum { LENGTH = 100 };
    const json_t *low = json_array_get(interval, 0), *high = json_array_get(interval, 1);
    if (!json_is_number(mean) || !json_is_number(low) || !json_is_number(high)) return;
    fprintf(
        f,
        "<svg class=\"bar\" aria-hidden=\"true\" width=\"108\" height=\"10\" viewBox=\"-4 0 108 "
        "10\"><path class=\"all\" d=\"M0 5H%d\"/><path class=\"range\" d=\"M%.1f 5H%.1f\"/>"
        "<circle cx=\"%.1f\" cy=\"5\" r=\"3.5\"/></svg>",
        LENGTH, LENGTH * json_number_value(low), LENGTH * json_number_value(high),
        LENGTH * json_number_value(mean));
}

static void share(FILE *f, const json_t *row, const char *key) {
    char text[3][HTML_NUMBER];
    const json_t *mean = json_object_get(row, key), *interval = html_at(row, "interval", key);
    html(f, "<td class=\"n\"><b>%s</b>", html_percent(text[0], mean));
    if (json_is_array(interval))
        html(f, " <span class=\"soft\">%s\xe2\x80\x93%s</span>",
             html_percent(text[1], json_array_get(interval, 0)),
             html_percent(text[2], json_array_get(interval, 1)));
    fputs("<br/>", f);
    bar(f, mean, interval);
    fputs("</td>", f);
}

static void count(FILE *f, const json_t *x) {
    char text[PRINT_ROOM];
    html(f, "<td class=\"n\">%s</td>",
         json_is_number(x) ? print_count(text, json_number_value(x)) : "\xe2\x80\x93");
}

static void comparison(FILE *f, const json_t *row) {
    char text[3][HTML_NUMBER];
    const json_t *versus = json_object_get(row, "versus");
    if (!json_is_object(versus)) {
        fputs("<td class=\"n\">\xe2\x80\x93</td>", f);
        return;
    }
    double x = 100 * json_number_value(json_object_get(versus, "difference"));
    snprintf(text[0], sizeof text[0], "%+.1f", x);
    html(f, "<td class=\"n\">%s <span class=\"soft\">from %s</span><br/>", text[0],
         html_word(versus, "row"));
    html(f, "<span class=\"soft\">p %s seeds, %s prompts</span></td>",
         html_digits(text[1], json_object_get(versus, "paired"), 2),
         html_digits(text[2], json_object_get(versus, "mcnemar"), 2));
}

static void row_of(FILE *f, const json_t *row, const char *run) {
    char text[2][HTML_NUMBER];
    fputs("<tr>", f);
    if (run) html(f, "<td>%s</td>", run);
    html(f, "<th scope=\"row\">%s</th>", html_word(row, "name"));
    share(f, row, "safety_rate");
    share(f, row, "over_refusal");
    html(f, "<td class=\"n\">%s</td>", html_fixed(text[0], json_object_get(row, "harmfulness"), 2));
    html(f, "<td class=\"n\">%s</td>", html_percent(text[0], json_object_get(row, "high_risk")));
    html(f, "<td class=\"n\">%s</td>", html_digits(text[0], json_object_get(row, "perplexity"), 4));
    comparison(f, row);
    count(f, json_object_get(row, "trainable"));
    html(f, "<td class=\"n\">%s</td>", html_digits(text[0], json_object_get(row, "rate"), 3));
    count(f, json_object_get(row, "seeds"));
    fputs("</tr>\n", f);
}

static void table(FILE *f, const ReportRun *run, int n) {
    fputs(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"The table of all rows\">"
        "<table><caption>Mean over seeds, and the 95 % interval of prompts and seeds. Safety is "
        "the share of harmful prompts that were not answered, over-refusal that of harmless ones "
        "that were refused.</caption><thead><tr>",
        f);
    if (n > 1) fputs("<th scope=\"col\">run</th>", f);
    fputs(
        "<th scope=\"col\">row</th><th scope=\"col\" class=\"n\">safety %</th><th scope=\"col\" "
        "class=\"n\">over-refusal %</th><th scope=\"col\" class=\"n\">harmfulness 1\xe2\x80\x93"
        "5</th><th scope=\"col\" class=\"n\">high risk %</th><th scope=\"col\" class=\"n\">"
        "perplexity</th><th scope=\"col\" class=\"n\">safety, difference</th><th scope=\"col\" "
        "class=\"n\">trainable</th><th scope=\"col\" class=\"n\">rate</th><th scope=\"col\" "
        "class=\"n\">seeds</th></tr></thead>\n<tbody>\n",
        f);
    for (int i = 0; i < n; i++) {
        const json_t *rows = json_object_get(run[i].summary, "rows"), *row;
        size_t k;
        json_array_foreach (rows, k, row) row_of(f, row, n > 1 ? run[i].folder : NULL);
    }
    fputs("</tbody></table></div>\n", f);
}

static void category(FILE *f, const char *name, const json_t *c, const char *row) {
    char text[3][HTML_NUMBER], n[PRINT_ROOM];
    const json_t *interval = json_object_get(c, "interval");
    html(f, "<tr><th scope=\"row\">%s</th><td>%s</td>", *name ? name : "(none)", row);
    html(f,
         "<td class=\"n\">%s</td><td class=\"n\">%s <span class=\"soft\">%s\xe2\x80\x93%s</span>"
         "</td></tr>\n",
         print_count(n, json_number_value(json_object_get(c, "n"))),
         html_percent(text[0], json_object_get(c, "safety_rate")),
         html_percent(text[1], json_array_get(interval, 0)),
         html_percent(text[2], json_array_get(interval, 1)));
}

static void categories(FILE *f, const ReportRun *run) {
    const char *row, *name;
    json_t *judged, *c;
    fputs(
        "<details><summary>By category</summary><div class=\"wide\" tabindex=\"0\" role=\"region\" "
        "aria-label=\"Safe answers by category\"><table><caption>Of each row its first run; of a "
        "harmless category the share is that of refusals. Wilson's 95 % intervals.</caption>"
        "<thead><tr><th scope=\"col\">category</th><th scope=\"col\">row</th><th scope=\"col\" "
        "class=\"n\">prompts</th><th scope=\"col\" class=\"n\">safe %</th></tr></thead>\n<tbody>",
        f);
    json_object_foreach (run->judged, row, judged)
        json_object_foreach (json_object_get(judged, "categories"), name, c)
            category(f, name, c, row);
    fputs("</tbody></table></div></details>\n", f);
}

void report_headline(FILE *f, const ReportRun *run, int n) {
    fputs("<section aria-labelledby=\"headline\"><h2 id=\"headline\">What was reached</h2>\n", f);
    table(f, run, n);
    for (int i = 0; i < n; i++) {
        if (n > 1) html(f, "<h3>%s</h3>\n", run[i].folder);
        categories(f, &run[i]);
    }
    fputs("</section>\n", f);
}
