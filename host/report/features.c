/* features.c - a card for each scored feature: what it is, and on what it fires. */
#include <math.h>
#include <string.h>

#include "host/cli/html.h"
#include "host/cli/print.h"
#include "host/report/report.h"

static void fact(FILE *f, const char *name, const char *value) {
    html(f, "<div><dt>%s</dt><dd>%s</dd></div>", name, value);
}

static void delta(FILE *f, const json_t *feature) {
    char text[3][HTML_NUMBER], all[4 * HTML_NUMBER];
    const json_t *d = json_object_get(feature, "delta");
    snprintf(all, sizeof all, "%s [%s, %s]", html_digits(text[0], json_object_get(d, "value"), 4),
             html_digits(text[1], json_object_get(d, "low"), 4),
             html_digits(text[2], json_object_get(d, "high"), 4));
    fact(f, "Delta, 95 %", all);
    snprintf(all, sizeof all, "%s %% of resamples",
             html_percent(text[0], json_object_get(feature, "stability")));
    fact(f, "among the best in", all);
}

/* A value of each corpus: "aligned 1.3, unaligned 0.05". */
static void corpora(FILE *f, const json_t *feature, const char *key, const char *name, bool share) {
    static const char *const corpus[] = {"aligned", "unaligned", "harmful", "benign"};
    char all[512] = "", text[HTML_NUMBER];
    for (size_t i = 0; i < sizeof corpus / sizeof *corpus; i++) {
        const json_t *x = html_at(feature, key, corpus[i]);
        size_t n = strlen(all);
        if (!json_is_number(x)) continue;
        snprintf(all + n, sizeof all - n, "%s%s %s%s", n ? ", " : "", corpus[i],
                 share ? html_percent(text, x) : html_digits(text, x, 3), share ? " %" : "");
    }
    if (*all) fact(f, name, all);
}

static void token(FILE *f, const json_t *feature) {
    char all[512], text[2][HTML_NUMBER];
    const json_t *best = json_object_get(feature, "token");
    if (json_is_object(best)) {
        snprintf(all, sizeof all, "\xe2\x80\x9c%.200s\xe2\x80\x9d, fires on %lld of %lld (%s bits)",
                 html_word(best, "text"),
                 (long long)json_integer_value(json_object_get(best, "fires")),
                 (long long)json_integer_value(json_object_get(best, "of")),
                 html_fixed(text[0], json_object_get(best, "pmi"), 1));
        fact(f, "token that tells most", all);
    }
    snprintf(all, sizeof all, "%s %%%s",
             html_percent(text[1], json_object_get(feature, "token_share")),
             json_is_true(json_object_get(feature, "token_detector")) ? ": a token detector" : "");
    fact(f, "largest share of one token", all);
}

static void area(FILE *f, const json_t *feature) {
    char all[4 * HTML_NUMBER], text[3][HTML_NUMBER];
    const json_t *auc = json_object_get(feature, "auc");
    if (!json_is_object(auc)) return;
    snprintf(all, sizeof all, "%s [%s, %s]", html_fixed(text[0], json_object_get(auc, "value"), 3),
             html_fixed(text[1], json_object_get(auc, "low"), 3),
             html_fixed(text[2], json_object_get(auc, "high"), 3));
    fact(f, "AUC, harmful from benign", all);
}

/* Bars of activations above 0; the numbers are in each one's title. */
static void histogram(FILE *f, const json_t *feature) {
    enum { WIDTH = 240, HEIGHT = 56 };
    const json_t *edges = html_at(feature, "histogram", "edges");
    const json_t *counts = html_at(feature, "histogram", "count"), *c;
    size_t n = json_array_size(counts), i;
    double most = 0;
    json_array_foreach (counts, i, c) most = fmax(most, json_number_value(c));
    if (n == 0 || most <= 0 || json_array_size(edges) != n + 1) return;
    fprintf(f,
            "<svg class=\"histogram\" role=\"img\" aria-label=\"Histogram of activations above 0\" "
            "width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    json_array_foreach (counts, i, c) {
        double h = (HEIGHT - 2) * json_number_value(c) / most, w = (double)WIDTH / (double)n;
        fprintf(f,
                "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>%.0f tokens "
                "from %.4g to %.4g</title></rect>",
                w * (double)i, HEIGHT - h, fmax(w - 1, 0.5), h, json_number_value(c),
                json_number_value(json_array_get(edges, i)),
                json_number_value(json_array_get(edges, i + 1)));
    }
    fputs("</svg>", f);
}

/* -------------------------------------------------------------------------------- contexts -- */

/* Shades 1 .. 5 of what fires, by its share of the window's largest. */
static int shade(double x, double most) {
    enum { SHADES = 5 };
    return x > 0 && most > 0 ? 1 + (int)fmin(SHADES - 1, SHADES * x / most) : 0;
}

/* Line ends and tabs are seen, and act. */
static void token_text(FILE *f, const char *text) {
    while (*text) {
        size_t n = strcspn(text, "\n\t");
        html_part(f, text, n);
        text += n;
        if (!*text) return;
        html(f, "<span class=\"soft\">%s</span>", *text == '\n' ? "\xe2\x86\xb5" : "\xe2\x87\xa5");
        html_part(f, text++, 1);
    }
}

static void tokens(FILE *f, const json_t *context) {
    const json_t *texts = json_object_get(context, "tokens"), *t;
    const json_t *xs = json_object_get(context, "activations");
    char text[HTML_NUMBER];
    size_t i;
    double most = 0;
    json_array_foreach (texts, i, t) most = fmax(most, json_number_value(json_array_get(xs, i)));
    json_array_foreach (texts, i, t) {
        const json_t *x = json_array_get(xs, i);
        int level = shade(json_number_value(x), most);
        const char *word = json_string_value(t);
        if (level) fprintf(f, "<mark class=\"m%d\" title=\"%s\">", level, html_digits(text, x, 3));
        token_text(f, word ? word : "");
        if (level) fputs("</mark>", f);
    }
}

/* "top", "0-20 %", "benign" */
static void kind_of(char text[HTML_NUMBER], const json_t *context) {
    const json_t *q = json_object_get(context, "quantile");
    snprintf(text, HTML_NUMBER, "%.40s", html_word(context, "kind"));
    if (json_is_array(q))
        snprintf(text, HTML_NUMBER, "%.0f\xe2\x80\x93%.0f %%",
                 100 * json_number_value(json_array_get(q, 0)),
                 100 * json_number_value(json_array_get(q, 1)));
}

static void context_of(FILE *f, const json_t *c) {
    char kind[HTML_NUMBER], text[HTML_NUMBER];
    kind_of(kind, c);
    html(f, "<li><span class=\"tag\">%s</span> <span class=\"soft\">%s, at most %s</span> <q>",
         kind, html_word(c, "corpus"), html_digits(text, json_object_get(c, "activation"), 3));
    tokens(f, c);
    fputs("</q></li>", f);
}

/* The strongest are seen at once. */
static void contexts(FILE *f, const json_t *feature) {
    enum { SEEN = 3 };
    const json_t *all = json_object_get(feature, "contexts"), *c;
    size_t n = json_array_size(all), i;
    if (n == 0) return;
    fputs("<ul class=\"contexts\">", f);
    json_array_foreach (all, i, c) {
        if (i == SEEN)
            fprintf(f, "</ul><details><summary>%zu more contexts</summary><ul class=\"contexts\">",
                    n - SEEN);
        context_of(f, c);
    }
    fputs(n > SEEN ? "</ul></details>" : "</ul>", f);
}

/* ----------------------------------------------------------------------------------- cards -- */

static void words(FILE *f, const char *name, const json_t *list) {
    const json_t *item;
    char text[HTML_NUMBER];
    size_t i;
    if (json_array_size(list) == 0) return;
    html(f, "<div><dt>%s</dt><dd>", name);
    json_array_foreach (list, i, item)
        html(f, "%s<code>%s</code> <span class=\"soft\">%s</span>", i ? ", " : "",
             html_word(item, "text"), html_fixed(text, json_object_get(item, "logit"), 2));
    fputs("</dd></div>", f);
}

static void neighbours(FILE *f, const json_t *feature) {
    const json_t *list = json_object_get(feature, "neighbours"), *item;
    char text[2][HTML_NUMBER];
    size_t i;
    if (json_array_size(list) == 0) return;
    fputs("<div><dt>nearest decoder rows</dt><dd>", f);
    json_array_foreach (list, i, item)
        html(f, "%s%s %s<span class=\"soft\">%s</span>", i ? ", " : "",
             html_fixed(text[0], json_object_get(item, "feature"), 0), html_word(item, "label"),
             html_fixed(text[1], json_object_get(item, "cosine"), 2));
    fputs("</dd></div>", f);
}

/* What a link may lead to: a file of labels is not asked for others. */
static bool is_link(const char *url) {
    return strncmp(url, "https://", 8) == 0;
}

static void heading(FILE *f, const json_t *feature) {
    char text[HTML_NUMBER];
    const char *label = html_word(feature, "label"), *url = html_word(feature, "url");
    html(f, "<h5>Feature %s%s%s</h5>", html_fixed(text, json_object_get(feature, "feature"), 0),
         *label ? ": " : "", label);
    if (is_link(url)) html(f, "<p><a href=\"%s\" rel=\"noreferrer\">Neuronpedia</a></p>", url);
}

static void card(FILE *f, const json_t *feature) {
    fputs("<article class=\"card\">", f);
    heading(f, feature);
    histogram(f, feature);
    fputs("<dl>", f);
    delta(f, feature);
    corpora(f, feature, "mean", "mean activation", false);
    corpora(f, feature, "rate", "fires on", true);
    corpora(f, feature, "max", "largest activation", false);
    area(f, feature);
    token(f, feature);
    words(f, "raises", html_at(feature, "logits", "top"));
    words(f, "lowers", html_at(feature, "logits", "bottom"));
    neighbours(f, feature);
    fputs("</dl>", f);
    contexts(f, feature);
    fputs("</article>\n", f);
}

static void layer_of(FILE *f, const json_t *layer, bool open) {
    const json_t *features = json_object_get(layer, "features"), *feature;
    char number[HTML_NUMBER], count[PRINT_ROOM], width[PRINT_ROOM];
    size_t i;
    fprintf(f, "<details%s><summary>", open ? " open=\"open\"" : "");
    html(f, "Layer %s: %s of %s features</summary>",
         html_fixed(number, json_object_get(layer, "layer"), 0),
         print_count(count, (double)json_array_size(features)),
         print_count(width, json_number_value(json_object_get(layer, "S"))));
    html(f, "<p class=\"soft\">%s</p><div class=\"cards\">\n", html_word(layer, "sae"));
    json_array_foreach (features, i, feature) card(f, feature);
    fputs("</div></details>\n", f);
}

void report_features(FILE *f, const ReportRun *run, const char *id) {
    const json_t *layers = json_object_get(run->features, "layers"), *layer;
    size_t i;
    html(f, "<section aria-labelledby=\"%s-features\"><h3 id=\"%s-features\">Features</h3>\n", id,
         id);
    if (!run->features) {
        html(
            f,
            "<p>None are described: nothing was scored, or the recipe's <code>explain.parts</code> "
            "leaves features out. <code>sails align %s/recipe.yaml --parts features</code> adds "
            "them.</p>",
            run->folder);
    } else {
        fputs(
            "<p>Best first. Delta is the mean activation on aligned replies minus that on "
            "unaligned "
            "ones. Shades go by the largest activation of a context; its numbers are in the "
            "tokens' titles. Benign contexts are look-alikes: where a feature fires most on "
            "harmless prompts.</p>\n",
            f);
        html(f,
             "<p class=\"filter\"><label>Show cards with <input type=\"search\" "
             "data-cards=\"%s-cards\"/></label> <output></output></p><div id=\"%s-cards\">\n",
             id, id);
        json_array_foreach (layers, i, layer) layer_of(f, layer, i == 0);
        fputs("</div>", f);
    }
    fputs("</section>\n", f);
}
