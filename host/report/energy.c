/* energy.c - how much of each update lies in the features' subspace. */
#include <math.h>

#include "host/cli/html.h"
#include "host/report/report.h"

/* The answer to whether updates follow the features at all, whatever it is. */
static void sentence(FILE *f, const char *row, const json_t *total) {
    char text[2][HTML_NUMBER];
    const json_t *energy = json_object_get(total, "energy");
    const json_t *expected = json_object_get(total, "expected");
    double sd = json_number_value(json_object_get(total, "sd"));
    double above = json_number_value(energy) - json_number_value(expected);
    if (!json_is_number(energy)) {
        html(f, "<p><b>%s</b> did not change the weights.</p>\n", row);
        return;
    }
    html(f, "<p><b>%s</b>: %s ", row, html_percent(text[0], energy));
    fputs("% of \xe2\x80\x96\xce\x94W\xe2\x80\x96\xc2\xb2 lies in U", f);
    html(f, ", where a random subspace of as many columns would hold %s",
         html_percent(text[1], expected));
    fputs(" %", f);
    if (sd > 0) fprintf(f, " (%+.1f standard deviations)", above / sd);
    fputs(".</p>\n", f);
}

/* Principal angles in degrees: the least, the middle one, the largest. */
static void angles(FILE *f, const json_t *list) {
    static const double DEGREES = 180 / M_PI;
    size_t n = json_array_size(list);
    if (n == 0) {
        fputs("<td class=\"n\">\xe2\x80\x93</td>", f);
        return;
    }
    fprintf(f, "<td class=\"n\">%.1f, %.1f, %.1f</td>",
            DEGREES * json_number_value(json_array_get(list, 0)),
            DEGREES * json_number_value(json_array_get(list, n / 2)),
            DEGREES * json_number_value(json_array_get(list, n - 1)));
}

static void projection(FILE *f, const json_t *p) {
    char text[HTML_NUMBER];
    html(f, "<tr><td class=\"n\">%s</td>", html_fixed(text, json_object_get(p, "layer"), 0));
    html(f, "<th scope=\"row\">%s</th><td>%s</td>", html_word(p, "projection"),
         html_word(p, "side"));
    html(f, "<td class=\"n\">%s</td>", html_digits(text, json_object_get(p, "norm"), 3));
    html(f, "<td class=\"n\">%s</td>", html_percent(text, json_object_get(p, "energy")));
    html(f, "<td class=\"n\">%s</td>", html_percent(text, json_object_get(p, "expected")));
    angles(f, json_object_get(p, "angles"));
    fputs("</tr>\n", f);
}

static void projections(FILE *f, const json_t *energy) {
    const json_t *list = json_object_get(energy, "projections"), *p;
    size_t i;
    fputs(
        "<details><summary>Every projection</summary><div class=\"wide\" tabindex=\"0\" "
        "role=\"region\" aria-label=\"Energy by projection\"><table><caption>Principal angles "
        "between that space of the update and U, in degrees: the least, the middle one, the "
        "largest.</caption><thead><tr><th scope=\"col\" class=\"n\">layer</th><th scope=\"col\">"
        "projection</th><th scope=\"col\">side</th><th scope=\"col\" class=\"n\">norm</th><th "
        "scope=\"col\" class=\"n\">in U %</th><th scope=\"col\" class=\"n\">by chance %</th><th "
        "scope=\"col\" class=\"n\">angles</th></tr></thead>\n<tbody>",
        f);
    json_array_foreach (list, i, p) projection(f, p);
    fputs("</tbody></table></div></details>\n", f);
}

static void layers(FILE *f, const json_t *energy) {
    const json_t *list = json_object_get(energy, "layers"), *l;
    char text[3][HTML_NUMBER];
    size_t i;
    fputs(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Energy by layer\"><table>"
        "<thead><tr><th scope=\"col\" class=\"n\">layer</th><th scope=\"col\" class=\"n\">in U %"
        "</th><th scope=\"col\" class=\"n\">by chance %</th><th scope=\"col\" class=\"n\">sd</th>"
        "</tr></thead>\n<tbody>",
        f);
    json_array_foreach (list, i, l) {
        html(f, "<tr><th scope=\"row\" class=\"n\">%s</th>",
             html_fixed(text[0], json_object_get(l, "layer"), 0));
        html(f, "<td class=\"n\">%s</td><td class=\"n\">%s</td><td class=\"n\">%s</td></tr>\n",
             html_percent(text[0], json_object_get(l, "energy")),
             html_percent(text[1], json_object_get(l, "expected")),
             html_percent(text[2], json_object_get(l, "sd")));
    }
    fputs("</tbody></table></div>\n", f);
}

void report_energy(FILE *f, const ReportRun *run, const char *id) {
    const char *row;
    json_t *energy;
    html(f,
         "<section aria-labelledby=\"%s-energy\"><h3 id=\"%s-energy\">What of the updates lies in "
         "the subspace</h3>\n",
         id, id);
    if (json_object_size(run->energy) == 0)
        html(f,
             "<p>Not measured: no row has both an adapter and a subspace, or the recipe's "
             "<code>explain.parts</code> leaves it out. <code>sails align %s/recipe.yaml --parts "
             "energy</code> adds it.</p>",
             run->folder);
    else
        fputs(
            "<p>It has been found elsewhere that what LoRA learns hardly follows the directions of "
            "features (arXiv 2605.28896). This is what these runs say: U is the sails row's "
            "subspace, for the rows that did not start in it too.</p>\n",
            f);
    json_object_foreach (run->energy, row, energy) {
        sentence(f, row, json_object_get(energy, "total"));
        html(f, "<details><summary>%s by layer</summary>", row);
        layers(f, energy);
        projections(f, energy);
        fputs("</details>\n", f);
    }
    fputs("</section>\n", f);
}
