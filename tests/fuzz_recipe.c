/* Fuzzing of recipes: any bytes as YAML, its values as those of every option. What is accepted
 * must read back the same from the recipe that sails writes of it. */
#include <stdlib.h>

#include "host/cli/command.h"
#include "host/cli/paths.h"
#include "host/cli/recipe.h"
#include "tests/fuzz.h"

static const Use everything[] = {
    ONLY("out"),    ONLY("seed"),    ONLY("threads"),     ONLY("json"),    ONLY("model.*"),
    ONLY("data.*"), ONLY("score.*"), ONLY("subspace.*"),  ONLY("train.*"), ONLY("generate.*"),
    ONLY("eval.*"), ONLY("init.*"),  {NULL, USE_OPTIONAL}};
static const Command command = {.name = "fuzz", .use = everything};

static bool parse(Recipe *r, const char *text, size_t n) {
    Err err;
    bool ok = recipe_parse(r, text, n, "fuzz.yaml", &err);
    if (!ok) fuzz_refused(&err, EXIT_USAGE, "fuzz.yaml: ");
    return ok;
}

/* Sets every option that the recipe names, and says how many; those with bad values keep their
 * default. */
static int apply(Args *a, const Recipe *r) {
    int set = 0;
    args_defaults(a);
    a->command = &command;
    for (int i = 0; i < r->n; i++) {
        const RecipeEntry *e = &r->entry[i];
        Err err;
        int setting = args_find(e->key);
        if (setting < 0) continue;
        if (args_set(a, setting, e->value, "here", &err))
            set++;
        else
            fuzz_refused(&err, EXIT_USAGE, "here: ");
    }
    return set;
}

static void same_settings(const Args *a, const Args *b) {
    char x[SETTING_KEY], y[SETTING_KEY], key[SETTING_KEY];
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        setting_key(s, key);
        if (s->mark == DISPLAY || !command_uses(&command, i)) continue; /* not in a recipe */
        const char *was = setting_text(s, &a->s, x), *is = setting_text(s, &b->s, y);
        char *whole = setting_role(s) == ROLE_NONE ? NULL : path_absolute(was);
        CHECK(strcmp(whole ? whole : was, is) == 0, "%s was %s and reads back as %s", key, was, is);
        free(whole);
    }
}

static void check_written(const Args *a) {
    Recipe again;
    Args b;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    CHECK(f, "open_memstream");
    args_write_recipe(a, f);
    CHECK(fclose(f) == 0 && parse(&again, text, n), "cannot read what was written: %s", text);
    apply(&b, &again);
    same_settings(a, &b);
    args_free(&b);
    recipe_free(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Recipe recipe;
    Args a;
    if (!parse(&recipe, (const char *)data, size)) return 0;
    if (apply(&a, &recipe) > 0) check_written(&a);
    args_free(&a);
    recipe_free(&recipe);
    return 0;
}
