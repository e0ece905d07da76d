/* Published suites: their files as their authors write them (samples of our own making), broken
 * ones, and what a judgement says with them. */
#include "data/suites.h"

#include <sys/stat.h>

#include "data/base/mem.h"
#include "tests/files.h"

static const char *text_file(const char *name, const char *text) {
    return test_file(name, text, strlen(text));
}

static Records good(enum SuiteName suite, const char *path, size_t limit) {
    Records r;
    Err err = {0};
    bool ok = suite_read(&r, suite, path, limit, &err);
    EXPECT(ok, "%s: %s", suite_table[suite].name, err.text);
    return r;
}

static void record_is(const Records *r, size_t i, const char *id, const char *category,
                      const char *prompt) {
    EXPECT(i < r->n, "record %zu of %zu", i, r->n);
    if (i >= r->n) return;
    const Record *one = &r->record[i];
    EXPECT(strcmp(one->id, id) == 0 && strcmp(one->category, category) == 0,
           "record %zu: id '%s', category '%s'; expected '%s', '%s'", i, one->id, one->category, id,
           category);
    EXPECT(one->chat.n == 1 && strcmp(one->chat.turn[0].text, prompt) == 0,
           "record %zu: '%s', expected '%s'", i, one->chat.n ? one->chat.turn[0].text : "", prompt);
}

/* ----------------------------------------------------------------------------------- files -- */

/* A byte order mark, line ends of Windows, a comma, a doubled quote and a line end in quotes. */
static void test_tables(void) {
    const char *path = text_file("jbb",
                                 "\xef\xbb\xbfIndex,Goal,Target,Behavior,Category,Source\r\n"
                                 "0,\"Bake, \"\"a\"\"\ncake\",Sure,Cake,Food,ours\r\n"
                                 "1,Boil an egg,Sure,Egg,Food/eggs,ours\r\n");
    Records r = good(SUITE_JBB, path, 0);
    EXPECT(r.n == 2, "%zu records", r.n);
    record_is(&r, 0, "0", "Food", "Bake, \"a\"\ncake");
    record_is(&r, 1, "1", "Food/eggs", "Boil an egg");
    records_free(&r);
    r = good(SUITE_JBB_BENIGN, path, 1);
    EXPECT(r.n == 1, "%zu records of one", r.n);
    record_is(&r, 0, "0", "benign/Food", "Bake, \"a\"\ncake");
    records_free(&r);
    r = good(SUITE_STRONGREJECT,
             text_file("sr", "category,source,forbidden_prompt\nTheft,custom,Take a pen\n"), 0);
    record_is(&r, 0, "2", "Theft", "Take a pen");
    records_free(&r);
    r = good(SUITE_HARMBENCH,
             text_file("hb",
                       "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,"
                       "BehaviorID\nSay it,contextual,illegal,context,\"A\nB\",say_it\n"
                       "Do it,standard,copyright,,,do_it\n"),
             0);
    record_is(&r, 0, "say_it", "illegal", "A\nB\n\n---\n\nSay it");
    record_is(&r, 1, "do_it", "copyright", "Do it");
    records_free(&r);
    r = good(SUITE_OR_BENCH, text_file("or", "prompt,category\nMay I?,harmful\n"), 0);
    record_is(&r, 0, "2", "benign/harmful", "May I?");
    records_free(&r);
    r = good(SUITE_OR_BENCH_TOXIC, test_path("or"), 0);
    record_is(&r, 0, "2", "harmful", "May I?");
    records_free(&r);
    r = good(SUITE_ADVBENCH, text_file("ab", "goal,target\nDo harm,\"Sure, here\"\n"), 0);
    record_is(&r, 0, "2", "", "Do harm");
    records_free(&r);
}

static const char XSTEST[] =
    "id,prompt,type,label,focus,note\n1,Kill a process?,homonyms,safe,kill,\n"
    "2,Kill a person?,contrast_homonyms,unsafe,kill,\n"
    "3,Shoot a film?,homonyms,safe,shoot,\n";

/* By label; without one by type. */
static void test_xstest(void) {
    Records r = good(SUITE_XSTEST, text_file("xs", XSTEST), 0);
    record_is(&r, 0, "1", "benign/homonyms", "Kill a process?");
    record_is(&r, 1, "2", "contrast_homonyms", "Kill a person?");
    records_free(&r);
    r = good(SUITE_XSTEST,
             text_file("xs2",
                       "id,type,prompt\nv2-1,homonyms,a\nv2-2,contrast_homonyms,b\n"
                       "v2-3,contrastive,c\n"),
             0);
    record_is(&r, 0, "v2-1", "benign/homonyms", "a");
    record_is(&r, 1, "v2-2", "contrast_homonyms", "b");
    record_is(&r, 2, "v2-3", "benign/contrastive", "c");
    records_free(&r);
    r = good(SUITE_XSTEST,
             text_file("xs3",
                       "{\"id\": 7, \"type\": \"t\", \"label\": \"unsafe\", \"prompt\": \"p\"}\n"),
             0);
    record_is(&r, 0, "7", "t", "p");
    records_free(&r);
}

/* As harmless prompts: those that are, so many of them as are wanted. */
static void test_benign(void) {
    Err err;
    Records r;
    CHECK(suite_read_benign(&r, SUITE_XSTEST, text_file("xs", XSTEST), 0, &err), "%s", err.text);
    EXPECT(r.n == 2, "%zu safe prompts of two", r.n);
    record_is(&r, 1, "3", "benign/homonyms", "Shoot a film?");
    records_free(&r);
    CHECK(suite_read_benign(&r, SUITE_XSTEST, test_path("xs"), 1, &err), "%s", err.text);
    EXPECT(r.n == 1, "%zu safe prompts of one", r.n);
    records_free(&r);
    EXPECT_REFUSED(suite_read_benign(&r, SUITE_ADVBENCH, test_path("xs"), 0, &err), err, EXIT_USAGE,
                   "suite advbench: its prompts should be refused");
}

static void test_hh(void) {
    Records r = good(SUITE_HH_RLHF,
                     text_file("hh",
                               "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": "
                               "\"\\n\\nHuman: a\\n\\nAssistant: c\"}\n"),
                     0);
    EXPECT(r.n == 1 && r.record[0].form == RECORD_PAIR, "%zu records", r.n);
    records_free(&r);
}

static void category_file(int number, const char *text) {
    char name[64];
    snprintf(name, sizeof name, "hex/category_%d.csv", number);
    text_file(name, text);
}

/* Prompts without a header, in quotes or not, ten files of which none may be missing. */
static void test_hex_phi(void) {
    Err err;
    Records r;
    CHECK(mkdir(test_path("hex"), 0777) == 0, "no folder");
    for (int i = 1; i <= 11; i++)
        if (i != 2 && i != 7)
            category_file(i, "Ask, and \"tell\"\r\n\n\"Do \"\"it\"\", twice\"\nmore");
    EXPECT_REFUSED(suite_read(&r, SUITE_HEX_PHI, test_path("hex"), 0, &err), err, EXIT_INPUT,
                   "category_7.csv: expected this category, 'Fraud/Deception'");
    category_file(7, "");
    EXPECT_REFUSED(suite_read(&r, SUITE_HEX_PHI, test_path("hex"), 0, &err), err, EXIT_INPUT,
                   "category_7.csv:1: expected at least one prompt");
    category_file(7, "a\n\"b\nc\"\n");
    EXPECT_REFUSED(suite_read(&r, SUITE_HEX_PHI, test_path("hex"), 0, &err), err, EXIT_INPUT,
                   "category_7.csv:2: expected a prompt on one line");
    category_file(7, "Lie\n\"A\" or \"B\"\n");
    r = good(SUITE_HEX_PHI, test_path("hex"), 0);
    EXPECT(r.n == 29, "%zu prompts", r.n);
    record_is(&r, 0, "1/1", "Illegal Activity", "Ask, and \"tell\"");
    record_is(&r, 1, "1/3", "Illegal Activity", "Do \"it\", twice");
    record_is(&r, 3, "3/1", "Hate/Harass/Violence", "Ask, and \"tell\"");
    record_is(&r, 15, "7/1", "Fraud/Deception", "Lie");
    record_is(&r, 16, "7/2", "Fraud/Deception", "\"A\" or \"B\""); /* quotes of its own */
    records_free(&r);
    r = good(SUITE_HEX_PHI, test_path("hex"), 2);
    EXPECT(r.n == 20, "%zu prompts, two of each file", r.n);
    records_free(&r);
    EXPECT_REFUSED(suite_read(&r, SUITE_HEX_PHI, test_path("xs"), 0, &err), err, EXIT_INPUT,
                   "category_1.csv");
}

static void test_refused(void) {
    static const struct {
        enum SuiteName suite;
        const char *text, *say;
    } bad[] = {
        {SUITE_JBB, "", "suite jailbreakbench: "},
        {SUITE_JBB, "Index,Goal,Category\n", "expected at least one prompt"},
        {SUITE_JBB, "Index,Prompt,Category\n0,a,b\n", "expected a column 'goal' in the header row"},
        {SUITE_JBB, "Index,Goal\n0,a\n", ":2: \"category\": expected text"},
        {SUITE_JBB, "Goal,Category\na,b\n", ":2: \"index\": expected an id"},
        {SUITE_JBB, "Index,Goal,Category\n0,a,b\n1,c,d\n0,e,f\n", ":4: id '0' is there twice"},
        {SUITE_JBB, "Index,Goal,Category\n0, ,b\n", ":2: \"goal\": expected text"},
        {SUITE_JBB, "Index,Goal,Category\n0,\"a\nb,c\n", "expected a closing quote"},
        {SUITE_JBB, "Index,Goal,Category\n0,a\n", "expected 3 fields as in the header"},
        {SUITE_XSTEST, "id,prompt,type,label\n1,a,b,maybe\n", "\"label\": expected safe or unsafe"},
        {SUITE_STRONGREJECT, "category,forbidden_prompt\na,b\xff\n", "expected valid UTF-8"},
        {SUITE_OR_BENCH, "PAR1\x15\x04\x15\x10", "this is Parquet; convert it: python3"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Records r;
        Err err;
        EXPECT_REFUSED(suite_read(&r, bad[i].suite, text_file("bad", bad[i].text), 0, &err), err,
                       EXIT_INPUT, bad[i].say);
        EXPECT(r.n == 0 && !r.record, "a refused file left records");
    }
}

int main(void) {
    test_tables();
    test_xstest();
    test_benign();
    test_hh();
    test_hex_phi();
    test_refused();
    return test_done("suites");
}
