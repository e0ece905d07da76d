/* Tables of the recovery experiment: means, errors, CSV, JSON; and every study, small, has a number
 * wherever it says that it has one. */
#include <math.h>

#include "data/base/mem.h"
#include "host/theory/study.h"
#include "tests/test.h"

static const Column column[] = {{"key", COLUMN_KEY, COLUMN_SHOWN},
                                {"seen", COLUMN_MEASURED, COLUMN_SHOWN},
                                {"more", COLUMN_MEASURED, COLUMN_IN_CSV},
                                {"formula", COLUMN_CLOSED, COLUMN_SHOWN}};

static char *text_of(void (*write)(FILE *f, const Table *t), const Table *t) {
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    CHECK(f, "memory");
    write(f, t);
    CHECK(fclose(f) == 0, "memory");
    return text;
}

static void test_table(void) {
    Table t;
    table_init(&t, column, 4, 2);
    table_add(&t, 0, "key", 3);
    for (int i = 1; i <= 4; i++) table_add(&t, 0, "seen", i), table_add(&t, 0, "more", 0.1);
    table_add(&t, 1, "key", 4), table_add(&t, 1, "formula", 2.5);
    /* 1 2 3 4: deviation sqrt(5/3), error half of it */
    EXPECT(table_mean(&t, 0, "seen") == 2.5, "mean %g", table_mean(&t, 0, "seen"));
    EXPECT(fabs(table_error(&t, 0, "seen") - sqrt(5.0 / 12)) <= 1e-15, "error %g",
           table_error(&t, 0, "seen"));
    EXPECT(table_error(&t, 0, "more") == 0, "equal values: %g", table_error(&t, 0, "more"));
    EXPECT(isnan(table_mean(&t, 1, "seen")) && isnan(table_error(&t, 1, "formula")), "no values");
    char *csv = text_of(table_csv, &t), *shown = text_of(table_print, &t);
    EXPECT(strcmp(csv,
                  "key,seen,seen_se,more,more_se,formula\n3,2.5,0.645497224,0.1,0,\n"
                  "4,,,,,2.5\n") == 0,
           "csv: %s", csv);
    EXPECT(strstr(shown, "seen") && strstr(shown, "formula") && !strstr(shown, "more"), "%s",
           shown);
    json_t *rows = table_json(&t);
    json_t *expected =
        json_pack("[{s:f,s:f,s:f,s:f,s:f,s:n},{s:f,s:n,s:n,s:n,s:n,s:f}]", "key", 3.0, "seen", 2.5,
                  "seen_se", table_error(&t, 0, "seen"), "more", 0.1, "more_se", 0.0, "formula",
                  "key", 4.0, "seen", "seen_se", "more", "more_se", "formula", 2.5);
    EXPECT(json_equal(rows, expected), "json");
    json_decref(rows), json_decref(expected);
    free(csv), free(shown);
    table_free(&t);
}

/* What a study measures lies between what its formulas allow at all. */
static void test_studies(Exec *ex) {
    StudySpec spec = {.ex = ex,
                      .shape = {.H = 40,
                                .n = 60,
                                .r = 4,
                                .p0 = 0.05,
                                .delta = 0.4,
                                .sigma = 0.05,
                                .loud = 5,
                                .loudness = 3,
                                .seed = 2},
                      .eps = 0.05,
                      .documents = 300,
                      .most = 2000,
                      .repeats = 2};
    for (int i = STUDY_ALL + 1; i < STUDY_COUNT; i++) {
        Table t, again;
        Err err;
        const Study *s = &studies[i];
        CHECK(study_check((enum TheoryStudy)i, &spec, &err), "%s", err.text);
        CHECK(study_run(&t, (enum TheoryStudy)i, &spec, true, &err), "%s", err.text);
        CHECK(study_run(&again, (enum TheoryStudy)i, &spec, true, &err), "%s", err.text);
        for (int row = 0; row < t.rows; row++)
            for (int c = 0; c < t.columns; c++) {
                const char *name = t.column[c].name;
                double v = table_mean(&t, row, name);
                EXPECT(isfinite(v), "study %d, row %d: no %s", i, row, name);
                EXPECT(v == table_mean(&again, row, name), "study %d: %s is not repeated", i, name);
                if (strstr(name, "captured") || strstr(name, "right") || strstr(name, "precision"))
                    EXPECT(v >= 0 && v <= 1 + 1e-12, "study %d: %s is %g", i, name, v);
                if (strcmp(name, "mean_error") == 0)
                    EXPECT(v >= table_mean(&t, row, "floor") - 1e-12, "study %d: below the floor",
                           i);
            }
        if (i == STUDY_EPS) EXPECT(table_error(&t, 5, "sae_error") > 0, "repeats are one draw");
        for (int k = 0; k < STUDY_FIGURES && s->figure[k].file;
             k++) { /* names columns that exist */
            char *svg;
            size_t n;
            FILE *f = open_memstream(&svg, &n);
            study_plot(f, &t, (enum TheoryStudy)i, k, &spec);
            CHECK(fclose(f) == 0, "memory");
            EXPECT(strstr(svg, "</svg>") && !strstr(svg, "nan"), "study %d, figure %d", i, k);
            free(svg);
        }
        table_free(&t), table_free(&again);
    }
}

int main(void) {
    Exec ex;
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no cpu");
    test_table();
    test_studies(&ex);
    exec_close(&ex);
    return test_done("theory table");
}
