/* The recipe's YAML subset: what it reads, and that everything else is refused with its line. */
#include <string.h>

#include "host/cli/recipe.h"
#include "tests/test.h"

static bool parse(Recipe *r, const char *text, Err *err) {
    return recipe_parse(r, text, strlen(text), "r.yaml", err);
}

static void test_reads(void) {
    Recipe r;
    Err err = {0};
    bool ok = parse(&r,
                    "# comment\nout: a b  # behind\nempty: \"\"\ntrain:\n  lr: 1e-4\n"
                    "  on: [q, 'k']\nscore:\n  layers:\n    - 5\n    - 10\nnone: []\n",
                    &err);
    EXPECT(ok, "%s", err.text);
    if (!ok) return;
    static const RecipeEntry want[] = {
        {"out", "a b", 2, false},          {"empty", "", 3, false},
        {"train.lr", "1e-4", 5, false},    {"train.on", "q,k", 6, true},
        {"score.layers", "5,10", 9, true}, {"none", "", 11, true}};
    EXPECT(r.n == 6, "%d entries", r.n);
    for (int i = 0; i < r.n && i < 6; i++)
        EXPECT(strcmp(r.entry[i].key, want[i].key) == 0 &&
                   strcmp(r.entry[i].value, want[i].value) == 0 &&
                   r.entry[i].line == want[i].line && r.entry[i].list == want[i].list,
               "entry %d: %s=%s line %d", i, r.entry[i].key, r.entry[i].value, r.entry[i].line);
    recipe_free(&r);
    EXPECT(parse(&r, "", &err) && r.n == 0, "an empty recipe sets nothing");
    recipe_free(&r);
    EXPECT(parse(&r, "# only a comment\n", &err) && r.n == 0, "nor does a comment");
    recipe_free(&r);
}

static void test_refuses(void) {
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"a: 1\nb: 2\na: 3\n", "line 3: a is already set on line 1"},
        {"s:\n  a: 1\n  a: 2\n", "line 3: s.a is already set"},
        {"s:\n  a: 1\ns.a: 2\n", "line 3: s.a is already set"},
        {"a:\nb: 1\n", "line 1: a has no value"},
        {"a: null\n", "line 1: a has no value"},
        {"a: &x 1\n", "line 1: anchors"},
        {"a: &x {b: 1}\n", "line 1: anchors"},
        {"a: &x [b]\n", "line 1: anchors"},
        {"a: *x\n", "line 1: aliases"},
        {"<<: *x\n", "line 1: aliases"},
        {"a: !!str 1\n", "line 1: tags"},
        {"a: {b: {c: 1}}\n", "line 1: expected a value"},
        {"a: [[1]]\n", "line 1: expected a list of plain values"},
        {"a: [{b: 1}]\n", "line 1: expected a list of plain values"},
        {"a: ['x,y']\n", "line 1: expected a list of plain values"},
        {"a: [x, ]\nb: [~]\n", "line 2: expected a list of plain values"},
        {"- a\n- b\n", "line 1: expected `key: value`"},
        {"word\n", "line 1: expected `key: value`"},
        {"? [a]\n: b\n", "line 1: expected a plain key"},
        {"a: 1\n---\nb: 1\n", "expected one document"},
        {"a: \"x\\0y\"\n", "NUL"},
        {"a: [1, 2\nb: 1\n", "not YAML"},
        {"\ta: 1\n", "not YAML"},
        {"a: \xff\n", "not YAML"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Recipe r;
        Err err = {0};
        bool ok = parse(&r, bad[i].text, &err);
        EXPECT(!ok && err.code == EXIT_USAGE && strstr(err.text, bad[i].says),
               "recipe %zu gave: %s", i, ok ? "no error" : err.text);
        EXPECT(ok || strncmp(err.text, "r.yaml: ", 8) == 0, "%s", err.text);
        recipe_free(&r);
    }
}

int main(void) {
    test_reads();
    test_refuses();
    return test_done("recipe");
}
