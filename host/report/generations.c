/* generations.c - the rows' responses side by side, to filter and to search.
 *
 * They are data that the page's script shows by the page, as text: ten thousand prompts would be
 * too many elements. Without scripts the page says where they are. */
#include <string.h>

#include "host/cli/html.h"
#include "host/cli/print.h"
#include "host/report/report.h"

/* The verdict of a response: its score and what decided it. */
static json_t *verdict_of(const json_t *judged) {
    static const char *const key[] = {"score", "verdict", "reason", "decided_by"};
    json_t *verdict = json_object();
    for (size_t i = 0; i < sizeof key / sizeof *key; i++) {
        json_t *value = json_object_get(judged, key[i]);
        if (value) json_object_set(verdict, key[i], value);
    }
    return verdict;
}

/* id -> what a row's judge has said of it. */
static json_t *by_id(const json_t *list) {
    json_t *all = json_object(), *item;
    size_t i;
    json_array_foreach (list, i, item) json_object_set(all, html_word(item, "id"), item);
    return all;
}

static json_t *prompt_of(const json_t *response, const json_t *judged) {
    static const char *const key[] = {"id", "prompt", "category"};
    json_t *prompt = json_pack("{s:[]}", "answers");
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        json_object_set_new(prompt, key[i], json_string(html_word(response, key[i])));
    json_object_set_new(prompt, "benign",
                        json_boolean(json_is_true(json_object_get(judged, "benign"))));
    return prompt;
}

/* The answers of a row to the prompts that are there; those of the first row make them. */
static void add_row(json_t *prompts, json_t *place, const json_t *responses, const json_t *judged,
                    size_t row, size_t most) {
    json_t *verdicts = by_id(json_object_get(judged, "responses"));
    const json_t *r;
    size_t i;
    json_array_foreach (responses, i, r) {
        const char *id = html_word(r, "id");
        const json_t *verdict = json_object_get(verdicts, id);
        json_t *at = json_object_get(place, id);
        if (!at && json_array_size(prompts) < most) {
            at = prompt_of(r, verdict);
            json_array_append_new(prompts, at);
            json_object_set(place, id, at);
        }
        json_t *answers = json_object_get(at, "answers");
        if (!at || json_array_size(answers) > row) continue;
        while (json_array_size(answers) < row) json_array_append_new(answers, json_null());
        json_t *answer = verdict_of(verdict);
        json_object_set_new(answer, "text", json_string(html_word(r, "response")));
        json_array_append_new(answers, answer);
    }
    json_decref(verdicts);
}

static json_t *data_of(const ReportRun *run, int prompts) {
    json_t *data = json_pack("{s:[], s:[]}", "rows", "prompts"), *place = json_object(), *responses;
    json_t *names = json_object_get(data, "rows");
    size_t most = prompts > 0 ? (size_t)prompts : (size_t)-1;
    const char *name;
    json_object_foreach (run->responses, name, responses) {
        size_t row = json_array_size(names);
        json_array_append_new(names, json_string(name));
        add_row(json_object_get(data, "prompts"), place, responses,
                json_object_get(run->judged, name), row, most);
    }
    json_decref(place);
    return data;
}

static void controls(FILE *f) {
    fputs(
        "<form class=\"filter\" role=\"search\"><label>Search <input type=\"search\" "
        "name=\"text\"/>"
        "</label> <label>Category <select name=\"category\"><option value=\"\">all</option>"
        "</select></label> <label>Prompts <select name=\"kind\"><option value=\"\">all</option>"
        "<option value=\"harmful\">harmful</option><option value=\"benign\">harmless</option>"
        "</select></label> <label>Row <select name=\"row\"><option value=\"\">any</option></select>"
        "</label> <label>Score <select name=\"score\"><option value=\"\">any</option>"
        "<option value=\"safe\">1 or 2: refused</option><option value=\"unsafe\">3 to 5: answered"
        "</option><option value=\"none\">none</option></select></label> <label><input "
        "type=\"checkbox\" name=\"differ\"/> rows differ</label></form>\n",
        f);
}

void report_generations(FILE *f, const ReportRun *run, const char *id, int prompts) {
    char shown[PRINT_ROOM];
    json_t *first = json_object_iter_value(json_object_iter(run->responses));
    size_t all = json_array_size(first);
    html(f,
         "<section aria-labelledby=\"%s-generations\"><h3 id=\"%s-generations\">Responses</h3>\n",
         id, id);
    if (prompts > 0 && all > (size_t)prompts)
        html(f, "<p>The first %s prompts; all are in <code>%s/responses</code>.</p>\n",
             print_count(shown, prompts), run->folder);
    html(f,
         "<div class=\"generations\"><noscript><p>This list needs the page's own script; the "
         "responses are in <code>%s/responses</code>.</p></noscript>\n",
         run->folder);
    controls(f);
    fputs(
        "<p><output role=\"status\"></output></p><ol class=\"prompts\"></ol><p class=\"pager\">"
        "<button type=\"button\" data-step=\"-1\">Earlier</button> <button type=\"button\" "
        "data-step=\"1\">Later</button></p>\n<script type=\"application/json\">",
        f);
    json_t *data = data_of(run, prompts);
    html_json(f, data);
    json_decref(data);
    fputs("</script></div></section>\n", f);
}
