/* provenance.c - of what, by what and how a run was made, and what is our choice in it. */
#include "host/cli/args.h"
#include "host/cli/html.h"
#include "host/cli/print.h"
#include "host/report/report.h"

static void fact(FILE *f, const json_t *manifest, const char *key, const char *name) {
    const json_t *value = json_object_get(manifest, key);
    char text[HTML_NUMBER];
    if (!value || json_is_null(value)) return;
    const char *word = json_string_value(value);
    html(f, "<div><dt>%s</dt><dd>%s</dd></div>", name, word ? word : html_digits(text, value, 10));
}

static void facts(FILE *f, const json_t *manifest) {
    static const char *const key[][2] = {
        {"started", "started"},        {"device", "device"},    {"cpu", "processor"},
        {"processors", "processors"},  {"ranks", "ranks"},      {"seed", "seed"},
        {"documents", "documents"},    {"dropped", "left out"}, {"program", "program, SHA-256"},
        {"plugin", "plug-in, SHA-256"}};
    json_t *versions = json_object_get(manifest, "versions"), *version;
    const char *name;
    fputs("<dl>", f);
    for (size_t i = 0; i < sizeof key / sizeof *key; i++) fact(f, manifest, key[i][0], key[i][1]);
    json_object_foreach (versions, name, version) fact(f, versions, name, name);
    fputs("</dl>\n", f);
}

static void inputs(FILE *f, const json_t *manifest) {
    const char *path;
    json_t *input;
    fputs(
        "<details><summary>Inputs and their hashes</summary><div class=\"wide\" tabindex=\"0\" "
        "role=\"region\" aria-label=\"Inputs\"><table><thead><tr><th scope=\"col\">file</th><th "
        "scope=\"col\">SHA-256</th></tr></thead><tbody>\n",
        f);
    json_object_foreach (json_object_get(manifest, "inputs"), path, input)
        html(f, "<tr><th scope=\"row\">%s</th><td><code>%s</code></td></tr>\n", path,
             html_word(input, "sha256"));
    fputs("</tbody></table></div></details>\n", f);
}

static void stages(FILE *f, const json_t *manifest) {
    const char *name;
    char text[PRINT_ROOM];
    json_t *stage;
    fputs(
        "<details><summary>Stages</summary><div class=\"wide\" tabindex=\"0\" role=\"region\" "
        "aria-label=\"Stages\"><table><thead><tr><th scope=\"col\">stage</th><th scope=\"col\">in "
        "the last run</th><th scope=\"col\" class=\"n\">took</th></tr></thead><tbody>\n",
        f);
    json_object_foreach (json_object_get(manifest, "stages"), name, stage)
        html(f, "<tr><th scope=\"row\">%s</th><td>%s</td><td class=\"n\">%s</td></tr>\n", name,
             html_word(stage, "state"),
             print_seconds(text, json_number_value(json_object_get(stage, "seconds"))));
    fputs("</tbody></table></div></details>\n", f);
}

/* What the paper leaves open, by the table of settings: the same words as in --help. */
static void choices(FILE *f, const json_t *manifest) {
    const char *key;
    json_t *choice;
    fputs(
        "<h4>Our choices where the paper is silent</h4><div class=\"wide\" tabindex=\"0\" "
        "role=\"region\" aria-label=\"Our choices\"><table><thead><tr><th scope=\"col\">setting"
        "</th><th scope=\"col\">value</th><th scope=\"col\">what it is</th></tr></thead><tbody>\n",
        f);
    json_object_foreach (json_object_get(manifest, "our_choices"), key, choice) {
        int i = args_find(key);
        bool ours = json_is_true(json_object_get(choice, "default"));
        html(f, "<tr><th scope=\"row\"><code>%s</code></th><td>%s%s</td><td>%s</td></tr>\n", key,
             html_word(choice, "value"), ours ? "" : " (the recipe's)",
             i >= 0 ? settings_table[i].help : "");
    }
    fputs("</tbody></table></div>\n", f);
}

void report_provenance(FILE *f, const ReportRun *run, const char *id) {
    html(f,
         "<section aria-labelledby=\"%s-provenance\"><h3 id=\"%s-provenance\">How it was made"
         "</h3>\n",
         id, id);
    facts(f, run->manifest);
    choices(f, run->manifest);
    inputs(f, run->manifest);
    stages(f, run->manifest);
    html(f,
         "<details><summary>The recipe</summary><pre tabindex=\"0\">%s</pre></details></section>\n",
         run->recipe);
}
