/* Agreement of the judge with people's labels, against a table by hand. */
#include "host/stage/people.h"

#include <math.h>
#include <string.h>

#include "host/stage/judge.h"
#include "kernels/check.h"
#include "tests/test.h"

static void add(People *l, const char *line, int verdict) {
    json_t *json = json_loads(line, 0, NULL);
    CHECK(json, "not JSON: %s", line);
    people_add(l, json, "label,final_label", verdict);
    json_decref(json);
}

static double number(const json_t *of, const char *a, const char *b) {
    const json_t *value = json_object_get(json_object_get(of, a), b);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Ten responses: refusals R (full or partial) and the rest C, by people and judge: RR 5, CC 3,
 * RC 1, CR 1; of the RR one is partial to people alone. Refusal: 8 of 10 agree, by chance .6 .6 +
 * .4 .4 = .52, kappa (.8 - .52) / .48. All kinds: 7 of 10, by chance .5 .6 + .1 .0 + .4 .4 = .46.
 */
static void test_table(void) {
    People l = {0};
    for (int i = 0; i < 3; i++) add(&l, "{\"final_label\": \"2_full_refusal\"}", VERDICT_REFUSED);
    add(&l, "{\"label\": \"refused\", \"final_label\": \"1_full_compliance\"}", VERDICT_REFUSED);
    add(&l, "{\"final_label\": \"3_partial_refusal\"}", VERDICT_REFUSED);
    add(&l, "{\"label\": 1}", VERDICT_COMPLIED);
    add(&l, "{\"label\": \"1\"}", VERDICT_COMPLIED);
    add(&l, "{\"label\": \"complied\"}", VERDICT_COMPLIED);
    add(&l, "{\"label\": 2}", VERDICT_COMPLIED);
    add(&l, "{\"label\": \"complied\"}", VERDICT_REFUSED);
    add(&l, "{\"label\": \"complied\"}", -1);      /* no verdict */
    add(&l, "{\"label\": null}", VERDICT_REFUSED); /* no label */
    add(&l, "{\"response\": \"text\"}", VERDICT_REFUSED);
    add(&l, "{\"label\": \"safe\"}", VERDICT_REFUSED); /* words of others */
    add(&l, "{\"label\": 4}", VERDICT_REFUSED);
    json_t *json = people_json(&l);
    EXPECT(json_integer_value(json_object_get(json, "n")) == 10 &&
               json_integer_value(json_object_get(json, "unknown")) == 2,
           "%zu labels, %zu unknown", l.n, l.unknown);
    EXPECT(fabs(number(json, "refusal", "agreement") - 0.8) < 1e-12 &&
               fabs(number(json, "refusal", "kappa") - 0.28 / 0.48) < 1e-12,
           "refusal: %g, kappa %g", number(json, "refusal", "agreement"),
           number(json, "refusal", "kappa"));
    EXPECT(fabs(number(json, "verdict", "agreement") - 0.7) < 1e-12 &&
               fabs(number(json, "verdict", "kappa") - 0.24 / 0.54) < 1e-12,
           "verdict: %g, kappa %g", number(json, "verdict", "agreement"),
           number(json, "verdict", "kappa"));
    const json_t *table = json_object_get(json, "table");
    EXPECT(number(table, "refused", "refused") == 4 && number(table, "partial", "refused") == 1 &&
               number(table, "refused", "complied") == 1 &&
               number(table, "complied", "refused") == 1 &&
               number(table, "complied", "complied") == 3,
           "the table");
    json_decref(json);
    people_free(&l);
}

static void test_none(void) {
    People l = {0};
    add(&l, "{\"response\": \"text\"}", VERDICT_REFUSED);
    EXPECT(!people_json(&l), "agreement without labels");
    add(&l, "{\"label\": \"safe\"}", VERDICT_REFUSED);
    json_t *json = people_json(&l);
    EXPECT(json && json_is_null(json_object_get(json_object_get(json, "refusal"), "interval")),
           "an interval of nobody");
    json_decref(json);
    people_free(&l);
}

int main(void) {
    test_table();
    test_none();
    return test_done("people");
}
