/* page.c - the frame of a report: head, contents, and the sections of each run. */
#include <string.h>

#include "data/base/sha256.h"
#include "host/cli/html.h"
#include "host/report/report.h"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The hash of a script as a policy names it: base64 of its SHA-256. */
enum { HASH_ROOM = 48 };
static const char *script_hash(char text[HASH_ROOM]) {
    unsigned char digest[33] = {0};
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, report_script, strlen(report_script));
    sha256_done(&s, digest);
    char *to = text;
    for (int i = 0; i < 33; i += 3) {
        unsigned bits = (unsigned)digest[i] << 16 | (unsigned)digest[i + 1] << 8 | digest[i + 2];
        for (int k = 18; k >= 0; k -= 6) *to++ = base64[bits >> k & 63];
    }
    to[-1] = '='; /* 32 bytes end one short of a group of three */
    *to = 0;
    return text;
}

static void head(FILE *f, const char *title) {
    char hash[HASH_ROOM];
    html(f,
         "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta "
         "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'; script-src 'sha256-%s'; base-uri 'none'; form-action 'none'\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta "
         "name=\"color-scheme\" content=\"light dark\"/>\n<meta name=\"generator\" "
         "content=\"sails " SAILS_VERSION "\"/>\n<title>%s</title>\n<style>",
         script_hash(hash), title);
    fprintf(f, "%s</style></head>\n", report_style);
}

static void contents(FILE *f, const ReportRun *run, int n) {
    static const char *const part[][2] = {
        {"features", "Features"},   {"subspaces", "Subspaces"}, {"training", "Training"},
        {"energy", "Updates"},      {"causal", "Causal rows"},  {"generations", "Responses"},
        {"provenance", "How made"},
    };
    fputs("<nav aria-label=\"Contents\"><ul><li><a href=\"#headline\">Table</a></li>", f);
    for (int i = 0; i < n; i++) {
        char id[32];
        snprintf(id, sizeof id, "run%d", i + 1);
        if (n > 1) html(f, "<li><b>%s</b></li>", run[i].folder);
        for (size_t k = 0; k < sizeof part / sizeof *part; k++)
            html(f, "<li><a href=\"#%s-%s\">%s</a></li>", id, part[k][0], part[k][1]);
    }
    fputs("</ul></nav>\n", f);
}

static void run_of(FILE *f, const ReportRun *run, const char *id, int prompts) {
    html(f, "<section class=\"run\" aria-labelledby=\"%s\"><h2 id=\"%s\">%s</h2>\n", id, id,
         run->folder);
    report_features(f, run, id);
    report_subspaces(f, run, id);
    report_training(f, run, id);
    report_energy(f, run, id);
    report_causal(f, run, id);
    report_generations(f, run, id, prompts);
    report_provenance(f, run, id);
    fputs("</section>\n", f);
}

void report_page(FILE *f, const ReportRun *run, int n, const ReportChoice *choice) {
    head(f, choice->title);
    html(f,
         "<body><a class=\"skip\" href=\"#main\">Skip to the report</a>\n<header><h1>%s</h1>"
         "</header>\n",
         choice->title);
    contents(f, run, n);
    fputs("<main id=\"main\" tabindex=\"-1\">\n", f);
    report_headline(f, run, n);
    for (int i = 0; i < n; i++) {
        char id[32];
        snprintf(id, sizeof id, "run%d", i + 1);
        run_of(f, &run[i], id, choice->prompts);
    }
    fprintf(f, "</main>\n<script>%s</script></body></html>\n", report_script);
}
