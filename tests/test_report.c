/* A report is one well-formed page in which what runs hold is text: hostile names, prompts and
 * responses neither leave their elements nor run, and nothing is fetched. Runs that are not
 * finished, or not runs, are refused and leave no page. */
#include "host/cli/command.h"

#include <ctype.h>

#include "data/base/files.h"
#include "data/base/sha256.h"
#include "tests/program.h"
#include "tests/world.h"

#define HOSTILE "</script><img src=x onerror=alert(1)>&\\\"' \\u2028\\u202e\\u0001 ]]>"

static void put(const char *path, const char *text) {
    Err err;
    MUST(files_write(path, text, strlen(text), &err), err);
}

/* A run as align leaves it, with `name` as its row's. */
static void make_run(const char *folder, const char *name) {
    char path[256], text[2048];
    static const char *const sub[] = {"", "/eval", "/responses", "/explain", "/explain/energy"};
    Err err;
    for (size_t i = 0; i < sizeof sub / sizeof *sub; i++) {
        snprintf(path, sizeof path, "%s%s", folder, sub[i]);
        MUST(files_mkdirs(path, &err), err);
    }
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    put(path, "{\"device\":\"" HOSTILE "\",\"inputs\":{\"" HOSTILE
              "\":{\"sha256\":\"00\"}},"
              "\"our_choices\":{\"subspace.by\":{\"value\":\"delta\",\"default\":true}}}");
    snprintf(path, sizeof path, "%s/recipe.yaml", folder);
    put(path, "out: </pre><script>alert(2)</script>\n");
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    put(path, "{\"step\":1,\"loss\":2.5,\"method\":\"" HOSTILE
              "\"}\n"
              "{\"step\":2,\"loss\":1.5,\"method\":\"" HOSTILE "\"}\n");
    snprintf(path, sizeof path, "%s/summary.json", folder);
    snprintf(text, sizeof text,
             "{\"rows\":[{\"name\":\"%s\",\"safety_rate\":0.75,\"interval\":{\"safety_rate\":[0.5,"
             "0.9]},\"runs\":[{\"name\":\"%s\"}],\"versus\":{\"row\":\"" HOSTILE "\"}}]}",
             name, name);
    put(path, text);
    snprintf(path, sizeof path, "%s/explain/features.json", folder);
    put(path, "{\"layers\":[{\"layer\":2,\"S\":64,\"sae\":\"" HOSTILE
              "\",\"features\":[{\"feature\":"
              "17,\"label\":\"" HOSTILE
              "\",\"url\":\"javascript:alert(3)\",\"histogram\":{\"edges\":"
              "[0,1,2],\"count\":[3,0]},\"contexts\":[{\"kind\":\"top\",\"corpus\":\"aligned\","
              "\"tokens\":[\"a\\n\",\"" HOSTILE "\"],\"activations\":[0,4]}]}]}]}");
    snprintf(path, sizeof path, "%s/explain/energy/lora.json", folder);
    put(path,
        "{\"total\":{\"energy\":0.25,\"expected\":0.1,\"sd\":0.05},\"projections\":[{\"layer\":"
        "1,\"projection\":\"q_proj\",\"angles\":[0.5,1.0]}],\"layers\":[{\"layer\":1}]}");
    snprintf(path, sizeof path, "%s/eval/lora.json", folder);
    put(path, "{\"categories\":{\"" HOSTILE
              "\":{\"n\":2,\"safety_rate\":1,\"interval\":[0.3,1]}},"
              "\"responses\":[{\"id\":\"a\",\"score\":1,\"benign\":false}]}");
    snprintf(path, sizeof path, "%s/responses/lora.jsonl", folder);
    put(path, "{\"id\":\"a\",\"prompt\":\"" HOSTILE "\",\"response\":\"" HOSTILE
              "\"}\n"
              "{\"id\":\"b\",\"prompt\":\"second\",\"response\":\"no\"}\n");
}

/* -------------------------------------------------------------------------------- the page -- */

static char *page_of(const char *path) {
    char *text;
    size_t n;
    Err err;
    MUST(files_read(&text, &n, path, (size_t)1 << 24, &err), err);
    EXPECT(strlen(text) == n, "a NUL in the page");
    return text;
}

/* The end of a tag that begins at `at`: quoted values may hold '>'. */
static const char *tag_end(const char *at) {
    char quote = 0;
    for (; *at; at++) {
        if (quote)
            quote = *at == quote ? 0 : quote;
        else if (*at == '"')
            quote = '"';
        else if (*at == '>')
            return at;
    }
    return NULL;
}

/* Every element is closed by its own end, and of scripts and styles the text is skipped. */
static void expect_well_formed(const char *page) {
    enum { DEPTH = 64, NAME = 32 };
    char open[DEPTH][NAME];
    int n = 0;
    for (const char *at = strchr(page, '<'); at; at = strchr(at, '<')) {
        const char *end = tag_end(at);
        CHECK(end && n < DEPTH, "a tag without an end: %.60s", at);
        bool closes = at[1] == '/', alone = end[-1] == '/' || at[1] == '!';
        char name[NAME] = "";
        const char *word = at + 1 + closes;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word, " />\n"), word);
        at = end + 1;
        if (closes) {
            CHECK(n > 0 && strcmp(open[n - 1], name) == 0, "</%s> closes <%s>", name,
                  n ? open[n - 1] : "");
            n--;
        } else if (!alone) {
            snprintf(open[n++], NAME, "%s", name);
        }
        char stop[NAME + 4];
        snprintf(stop, sizeof stop, "</%s", name);
        bool raw = !closes && (strcmp(name, "script") == 0 || strcmp(name, "style") == 0);
        if (raw) CHECK((at = strstr(at, stop)), "%s", stop);
    }
    CHECK(n == 0, "<%s> is left open", open[n ? n - 1 : 0]);
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (; (text = strstr(text, word)); text += strlen(word)) n++;
    return n;
}

/* No words of an attack as markup, and nothing that would be asked of anybody. */
static void expect_harmless(const char *page) {
    static const char *const never[] = {
        "<img",   "<link",       "<iframe",      "<object",      "@import", "url(",
        "src=\"", "javascript:", "\xe2\x80\xa8", "\xe2\x80\xae", "\x01"};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        EXPECT(!strstr(page, never[i]), "the page holds %s", never[i]);
    EXPECT(count(page, "<script") == 2 && count(page, "</script>") == 2, "%d scripts",
           count(page, "<script"));
    EXPECT(strstr(page, "default-src 'none'"), "no policy");
}

static void expect_contents(const char *page) {
    static const char *const there[] = {"<th scope=\"row\">lora</th>",
                                        "<b>75.0</b>",
                                        "50.0\xe2\x80\x93"
                                        "90.0",
                                        "Feature 17: &lt;/script&gt;&lt;img src=x",
                                        "<mark class=\"m5\"",
                                        "\xe2\x86\xb5",
                                        "<b>lora</b>: 25.0",
                                        "+3.0 standard deviations",
                                        "28.6, 57.3, 57.3",
                                        "out: &lt;/pre&gt;&lt;script&gt;",
                                        "<code>subspace.by</code>",
                                        "Loss",
                                        "second"};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        EXPECT(strstr(page, there[i]), "the page lacks %s", there[i]);
}

static void test_page(void) {
    make_run("run", "lora");
    Ended e = program_run("report run");
    CHECK(e.code == 0, "exit %d: %s", e.code, e.err);
    char *page = page_of("run/report.html");
    expect_well_formed(page);
    expect_harmless(page);
    expect_contents(page);
    free(page);
    e = program_run("report run --prompts 1 --title a<b --out one.html");
    CHECK(e.code == 0, "exit %d: %s", e.code, e.err);
    page = page_of("one.html");
    EXPECT(!strstr(page, "second") && strstr(page, "The first 1 prompts"), "all prompts are there");
    EXPECT(strstr(page, "<title>a&lt;b</title>"), "the title");
    free(page);
}

static void test_two_runs(void) {
    make_run("other", "lora");
    Ended e = program_run("report run other");
    EXPECT(e.code == EXIT_USAGE && strstr(e.err, "--out is needed"), "exit %d: %s", e.code, e.err);
    e = program_run("report run other --out two.html");
    CHECK(e.code == 0, "exit %d: %s", e.code, e.err);
    char *page = page_of("two.html");
    expect_well_formed(page);
    EXPECT(strstr(page, "<td>run</td>") && strstr(page, "<td>other</td>"), "rows of both");
    EXPECT(strstr(page, "id=\"run2-energy\""), "sections of both");
    free(page);
}

static void expect_refused(const char *line, const char *words) {
    Ended e = program_run(line);
    EXPECT(e.code == EXIT_INPUT && strstr(e.err, words), "%s: exit %d: %s", line, e.code, e.err);
    EXPECT(!files_exists("bad.html"), "%s: a page is left", line);
}

static void test_refused(void) {
    make_run("bad", "../../run");
    expect_refused("report bad --out bad.html",
                   "expected the name of a row's run, got '../../run'");
    put("bad/summary.json", "{\"rows\":[]}");
    expect_refused("report bad --out bad.html", "expected rows");
    put("bad/summary.json", "[1]");
    expect_refused("report bad --out bad.html", "expected an object");
    CHECK(remove("bad/summary.json") == 0, "bad/summary.json");
    expect_refused("report bad --out bad.html", "expected the folder of a finished run");
    expect_refused("report run bad --out bad.html", "expected the folder of a finished run");
}

int main(void) {
    world_make();
    CHECK(chdir(world) == 0, "%s", world);
    test_page();
    test_two_runs();
    test_refused();
    world_remove();
    return test_done("report");
}
