/* causal.c - what a model does without the subspace, or with more of it. */
#include "host/cli/html.h"
#include "host/cli/print.h"
#include "host/report/report.h"

static void with_interval(FILE *f, const json_t *x, const char *mean, int digits) {
    char text[3][HTML_NUMBER];
    if (!json_is_object(x)) {
        fputs("<td class=\"n\">\xe2\x80\x93</td>", f);
        return;
    }
    html(f, "<td class=\"n\"><b>%s</b> <span class=\"soft\">%s to %s</span></td>",
         html_fixed(text[0], json_object_get(x, mean), digits),
         html_fixed(text[1], json_object_get(x, "low"), digits),
         html_fixed(text[2], json_object_get(x, "high"), digits));
}

static void share(FILE *f, const json_t *x) {
    char text[3][HTML_NUMBER];
    html(f, "<td class=\"n\"><b>%s</b> <span class=\"soft\">%s\xe2\x80\x93%s</span></td>",
         html_percent(text[0], json_object_get(x, "share")),
         html_percent(text[1], json_object_get(x, "low")),
         html_percent(text[2], json_object_get(x, "high")));
}

static void row_of(FILE *f, const json_t *row) {
    char text[HTML_NUMBER];
    json_int_t draws = json_integer_value(json_object_get(row, "draws"));
    html(f, "<tr><th scope=\"row\">%s", html_word(row, "row"));
    if (draws > 1) fprintf(f, " <span class=\"soft\">mean of %lld</span>", (long long)draws);
    fputs("</th>", f);
    with_interval(f, json_object_get(row, "refusal"), "mean", 2);
    with_interval(f, json_object_get(row, "change"), "mean", 2);
    share(f, json_object_get(row, "rate"));
    with_interval(f, json_object_get(row, "perplexity"), "value", 3);
    html(f, "<td class=\"n\">%s</td></tr>\n", html_percent(text, json_object_get(row, "stream")));
}

static void table(FILE *f, const char *name, const json_t *causal) {
    const json_t *rows = json_object_get(causal, "rows"), *row;
    char prompts[PRINT_ROOM], documents[PRINT_ROOM];
    size_t i;
    html(f,
         "<h4>%s</h4><div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Causal rows "
         "of %s\"><table><caption>%s harmful prompts, ",
         name, name, print_count(prompts, json_number_value(json_object_get(causal, "prompts"))));
    html(f, "%s harmless documents.</caption>",
         print_count(documents, json_number_value(json_object_get(causal, "benign_documents"))));
    fputs(
        "<thead><tr><th scope=\"col\">what was done</th><th scope=\"col\" class=\"n\">refusal score"
        "</th><th scope=\"col\" class=\"n\">change</th><th scope=\"col\" class=\"n\">refuses %</th>"
        "<th scope=\"col\" class=\"n\">benign perplexity</th><th scope=\"col\" class=\"n\">of the "
        "stream %</th></tr></thead>\n<tbody>",
        f);
    json_array_foreach (rows, i, row) row_of(f, row);
    fputs("</tbody></table></div>\n", f);
}

void report_causal(FILE *f, const ReportRun *run, const char *id) {
    const char *name;
    json_t *causal;
    html(
        f,
        "<section aria-labelledby=\"%s-causal\"><h3 id=\"%s-causal\">What the subspace does</h3>\n",
        id, id);
    if (json_object_size(run->causal) == 0)
        html(f,
             "<p>Not measured: there is no subspace, no harmless prompts, or the recipe's "
             "<code>explain.parts</code> leaves it out. <code>sails align %s/recipe.yaml --parts "
             "causal</code> adds it.</p>",
             run->folder);
    else
        fputs(
            "<p>The refusal score is log p \xe2\x88\x92 log(1 \xe2\x88\x92 p) of the first tokens "
            "of "
            "refusals at a reply's first place, in nats. Ablated: what the stream has in U beyond "
            "its mean on harmless prompts is taken out at the scored layers; added: U's part of "
            "the difference of the corpora's means. Random: another subspace of as many columns. "
            "Ranges are 95 % intervals, changes are paired by prompt.</p>\n",
            f);
    json_object_foreach (run->causal, name, causal) table(f, name, causal);
    fputs("</section>\n", f);
}
