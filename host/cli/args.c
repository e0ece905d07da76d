/* args.c - the command line and the recipe to settings, each value checked by its row of the
 * table. */
#include "host/cli/args.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/cli/overwrite.h"
#include "host/cli/paths.h"
#include "host/cli/recipe.h"
#include "kernels/check.h"

/* Takes over a text from malloc. */
static const char *take_text(Args *a, char *text) {
    a->text = realloc(a->text, ((size_t)a->ntext + 1) * sizeof *a->text);
    CHECK(a->text, "out of memory");
    return a->text[a->ntext++] = text;
}

/* What a path stands for: the user's home, a version in the hub's cache. */
static bool take_path(Args *a, const char **to, const char *path, Err *err) {
    char *at_home = path_home(path), *whole;
    bool ok = path_snapshot(&whole, at_home, err);
    free(at_home);
    if (ok) *to = take_text(a, whole);
    return ok;
}

void args_free(Args *a) {
    for (int i = 0; i < a->ntext; i++) free(a->text[i]);
    free(a->text);
    free(a->path);
    memset(a, 0, sizeof *a);
}

/* ------------------------------------------------------------------------------- values -- */

static bool parse_number(const Setting *s, const char *value, double *x) {
    char *end;
    errno = 0;
    *x = s->type == SET_INT ? (double)strtol(value, &end, 10) : strtod(value, &end);
    bool decimal = strspn(value, "+-0123456789.eE") == strlen(value); /* no hex, inf, nan, space */
    return errno == 0 && end != value && *end == 0 && decimal;
}

static bool set_number(const Setting *s, void *to, const char *value, const char *where, Err *err) {
    double x = 0;
    const char *unit = setting_unit(s);
    bool automatic = setting_may_be_auto(s);
    if (!(automatic && strcmp(value, "auto") == 0) && !parse_number(s, value, &x))
        return err_set(err, EXIT_USAGE, "%s: expected %s%s (%s), got '%s'", where,
                       s->type == SET_INT ? "a whole number" : "a number",
                       automatic ? " or auto" : "", *unit ? unit : "number", value);
    if (!(x >= s->least && x <= s->most))
        return err_set(err, EXIT_USAGE, "%s: expected %.10g to %.10g (%s), got %s", where, s->least,
                       s->most, *unit ? unit : "number", value);
    if (s->type == SET_INT)
        *(int *)to = (int)x;
    else
        *(double *)to = x;
    return true;
}

static bool set_choice(const Setting *s, int *to, const char *value, const char *where, Err *err) {
    int i = setting_choice(s->detail, value, strlen(value));
    if (i < 0)
        return err_set(err, EXIT_USAGE, "%s: expected one of %s, got '%s'", where, s->detail,
                       value);
    *to = i;
    return true;
}

/* Texts go into recipes and JSON, and these hold UTF-8 alone. */
static bool check_text(const char *value, const char *where, Err *err) {
    size_t n = strlen(value), valid = utf8_valid(value, n);
    return valid == n ||
           err_set(err, EXIT_USAGE,
                   "%s: expected UTF-8, byte offset %zu of the value is not; rename the file",
                   where, valid);
}

static bool check_list(const Setting *s, const char *value, const char *where, Err *err) {
    for (const char *p = value; *value;) {
        size_t n = strcspn(p, ",");
        if (n == 0)
            return err_set(err, EXIT_USAGE, "%s: expected a list without empty elements, got '%s'",
                           where, value);
        if (*s->detail && setting_choice(s->detail, p, n) < 0)
            return err_set(err, EXIT_USAGE, "%s: expected a list of %s, got '%.*s'", where,
                           s->detail, (int)n, p);
        if (p[n] == 0) break;
        p += n + 1;
    }
    return true;
}

bool args_set(Args *a, int setting, const char *value, const char *where, Err *err) {
    const Setting *s = &settings_table[setting];
    void *to = (char *)&a->s + s->offset;
    switch (s->type) {
        case SET_INT:
        case SET_REAL:
            return set_number(s, to, value, where, err);
        case SET_CHOICE:
            return set_choice(s, to, value, where, err);
        case SET_FLAG: {
            bool yes = strcmp(value, "true") == 0;
            if (!yes && strcmp(value, "false") != 0)
                return err_set(err, EXIT_USAGE, "%s: expected true or false, got '%s'", where,
                               value);
            *(bool *)to = yes;
            return true;
        }
        case SET_LIST:
            if (!check_text(value, where, err) || !check_list(s, value, where, err)) return false;
            break;
        case SET_TEXT:
            if (!check_text(value, where, err)) return false;
            if (setting_role(s) != ROLE_NONE) return take_path(a, to, value, err);
            break;
    }
    *(const char **)to = take_text(a, mem_string(value));
    return true;
}

void args_defaults(Args *a) {
    memset(a, 0, sizeof *a);
    Err err;
    for (int i = 0; i < SETTINGS_COUNT; i++)
        CHECK(args_set(a, i, settings_table[i].fallback, "default", &err), "%s.%s: %s",
              settings_table[i].section, settings_table[i].field, err.text);
}

/* -------------------------------------------------------------------------------- names -- */

int args_find(const char *key) {
    char k[SETTING_KEY];
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        setting_key(&settings_table[i], k);
        if (strcmp(k, key) == 0) return i;
        /* `model: X` is short for model: {path: X} */
        if (strcmp(settings_table[i].field, "path") == 0 &&
            strcmp(settings_table[i].section, key) == 0)
            return i;
    }
    return -1;
}

/* "--NAME is a key of several sections; write --A.NAME or --B.NAME" */
static bool ambiguous(const Command *c, const char *name, Err *err) {
    char text[256] = "";
    size_t n = 0;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        char flag[SETTING_KEY];
        setting_flag(&settings_table[i], flag);
        if (!command_uses(c, i) || strcmp(flag, name) != 0) continue;
        command_flag(c, i, flag);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s--%s", n ? " or " : "", flag);
        CHECK(n < sizeof text, "%s is a key of very many sections", name);
    }
    return err_set(err, EXIT_USAGE, "--%s is a key of several sections; write %s", name, text);
}

/* Names that this command knows, as flags and as dotted keys, for a suggestion. */
static const char *suggest(const Command *c, const char *word, bool dotted) {
    static char names[2 * SETTINGS_COUNT + 2][SETTING_KEY];
    const char *candidate[2 * SETTINGS_COUNT + 2];
    int n = 0;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        if (!command_uses(c, i)) continue;
        setting_key(&settings_table[i], names[n++]);
        /* right key in the wrong section: the most likely mistake, and far by edit distance */
        const char *dot = strrchr(word, '.');
        char name[SETTING_KEY];
        setting_name(&settings_table[i], name);
        if (dotted && strcmp(dot ? dot + 1 : word, name) == 0) return names[n - 1];
        if (!dotted) setting_flag(&settings_table[i], names[n++]);
    }
    if (!dotted) {
        strcpy(names[n++], "help");
        strcpy(names[n++], "set");
    }
    for (int i = 0; i < n; i++) candidate[i] = names[i];
    return nearest_name(word, candidate, n);
}

static bool unknown(const Command *c, const char *where, const char *what, const char *word,
                    bool dotted, Err *err) {
    const char *near = suggest(c, word, dotted);
    const char *dashes = dotted ? "" : "--";
    if (near)
        return err_set(err, EXIT_USAGE, "%sunknown %s %s%.200s; did you mean %s%s?", where, what,
                       dashes, word, dashes, near);
    return err_set(err, EXIT_USAGE, "%sunknown %s %s%.200s; sails %s --help lists them", where,
                   what, dashes, word, c->name);
}

/* ---------------------------------------------------------------------------- the recipe -- */

static bool is_section(const char *word) {
    for (int i = 0; i < SETTINGS_COUNT; i++)
        if (!setting_top_level(&settings_table[i]) && strcmp(settings_table[i].section, word) == 0)
            return true;
    return false;
}

static bool apply_entry(Args *a, const RecipeEntry *e, Err *err) {
    char where[512];
    snprintf(where, sizeof where, "%.300s: line %d: ", a->recipe, e->line);
    int i = args_find(e->key);
    if (i < 0 && is_section(e->key))
        return err_set(err, EXIT_USAGE,
                       "%s%s is a section: expected indented keys under it, got %s", where, e->key,
                       e->list ? "a list" : "a value");
    if (i < 0) return unknown(a->command, where, "key", e->key, true, err);
    if (!command_uses(a->command, i)) {
        if (!a->command->whole_recipe) return true;
        return err_set(err, EXIT_USAGE, "%s%s is set by %s itself; remove it", where, e->key,
                       a->command->name);
    }
    snprintf(where, sizeof where, "%.300s: line %d: %.100s", a->recipe, e->line, e->key);
    if (a->source[i] == FROM_RECIPE)
        return err_set(err, EXIT_USAGE, "%s: set twice, in its short and its long form", where);
    if (e->list && settings_table[i].type != SET_LIST)
        return err_set(err, EXIT_USAGE, "%s: expected one value, got a list", where);
    Settings before = a->s;
    bool path = setting_role(&settings_table[i]) != ROLE_NONE;
    char *value = path ? path_beside(a->recipe, e->value) : mem_string(e->value);
    bool ok = args_set(a, i, value, where, err);
    free(value);
    if (!ok) return false;
    if (a->source[i] == FROM_FLAG)
        a->s = before; /* a flag wins, but the recipe must still be right */
    else
        a->source[i] = FROM_RECIPE;
    return true;
}

static bool apply_recipe(Args *a, Err *err) {
    Recipe r;
    if (!recipe_read(&r, a->recipe, err)) return false;
    bool ok = true;
    for (int i = 0; i < r.n && ok; i++) ok = apply_entry(a, &r.entry[i], err);
    recipe_free(&r);
    return ok;
}

/* ----------------------------------------------------------------------- the command line -- */

static bool set_from_flag(Args *a, int i, const char *name, const char *value, Err *err) {
    char where[160];
    snprintf(where, sizeof where, "--%.150s", name);
    if (a->source[i] == FROM_FLAG)
        return err_set(err, EXIT_USAGE, "%s: given twice; keep one", where);
    a->source[i] = FROM_FLAG;
    return args_set(a, i, value, where, err);
}

/* --set section.key=value: dotted keys only, as in a recipe. */
static bool set_dotted(Args *a, const char *pair, Err *err) {
    const char *eq = pair ? strchr(pair, '=') : NULL;
    if (!eq || eq == pair || eq - pair >= SETTING_KEY)
        return err_set(err, EXIT_USAGE, "--set: expected section.key=value, got '%.200s'",
                       pair ? pair : "nothing");
    char key[SETTING_KEY];
    snprintf(key, sizeof key, "%.*s", (int)(eq - pair), pair);
    int i = args_find(key);
    if (i < 0 || !command_uses(a->command, i))
        return unknown(a->command, "--set: ", "key", key, true, err);
    return set_from_flag(a, i, key, eq + 1, err);
}

/* argv[*at] starts with "--"; leaves *at at the last word used. */
static bool take_flag(Args *a, int argc, char **argv, int *at, Err *err) {
    const char *word = argv[*at] + 2, *eq = strchr(word, '=');
    char name[SETTING_KEY];
    size_t n = eq ? (size_t)(eq - word) : strlen(word);
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    if (n >= sizeof name) return unknown(a->command, "", "flag", word, false, err);
    const char *value = eq ? eq + 1 : *at + 1 < argc ? argv[*at + 1] : NULL;
    if (strcmp(name, "set") == 0) {
        *at += !eq;
        return set_dotted(a, value, err);
    }
    int i = command_find(a->command, name);
    if (i == FLAG_AMBIGUOUS) return ambiguous(a->command, name, err);
    if (i < 0) return unknown(a->command, "", "flag", name, false, err);
    if (settings_table[i].type == SET_FLAG && !eq) {
        bool given = value && (strcmp(value, "true") == 0 || strcmp(value, "false") == 0);
        *at += given;
        return set_from_flag(a, i, name, given ? value : "true", err);
    }
    if (!value || (!eq && strncmp(value, "--", 2) == 0))
        return err_set(err, EXIT_USAGE, "--%s: expected a value", name);
    *at += !eq;
    return set_from_flag(a, i, name, value, err);
}

static bool take_positional(Args *a, const char *word, Err *err) {
    const Command *c = a->command;
    if (word[0] == '-' && word[1])
        return err_set(err, EXIT_USAGE, "unknown flag %.200s; flags are long, as in --help", word);
    if (!check_text(word, "path", err)) return false;
    if (c->positional == POSITIONAL_PATHS) {
        a->path = realloc(a->path, ((size_t)a->npath + 1) * sizeof *a->path);
        CHECK(a->path, "out of memory");
        return take_path(a, &a->path[a->npath++], word, err);
    }
    if (c->positional == POSITIONAL_NONE || a->recipe)
        return err_set(err, EXIT_USAGE, "unexpected word '%.200s'; sails %s takes %s", word,
                       c->name, c->positional == POSITIONAL_NONE ? "flags only" : "one recipe");
    a->recipe = word;
    return true;
}

static bool check_needed(const Args *a, Err *err) {
    const Command *c = a->command;
    if (c->positional == POSITIONAL_RECIPE_NEEDED && !a->recipe)
        return err_set(err, EXIT_USAGE, "%s: expected a recipe: sails %s RECIPE.yaml", c->name,
                       c->name);
    if (c->positional == POSITIONAL_PATHS && !a->npath)
        return err_set(err, EXIT_USAGE, "%s: expected a path: sails %s PATH...", c->name, c->name);
    for (const Use *u = c->use; u->key; u++) {
        if (u->need != USE_NEEDED) continue;
        int i = args_find(u->key);
        CHECK(i >= 0, "%s needs %s, which no setting is called", c->name, u->key);
        if (**(const char *const *)((const char *)&a->s + settings_table[i].offset)) continue;
        char flag[SETTING_KEY];
        command_flag(c, i, flag);
        return err_set(err, EXIT_USAGE, "%s: --%s is needed: %s", c->name, flag,
                       settings_table[i].help);
    }
    return true;
}

/* Files are written at the end of what may be hours of work: their places are tried now. */
static bool check_outputs(const Args *a, Err *err) {
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        if (setting_role(s) != ROLE_OUTPUT || !command_uses(a->command, i)) continue;
        const char *path = *(const char *const *)((const char *)&a->s + s->offset);
        bool file = strcmp(s->detail, "file") == 0;
        if (*path && !(file ? files_can_create : files_can_make_folder)(path, err)) return false;
    }
    return true;
}

bool args_parse(Args *a, const Command *c, int argc, char **argv, Err *err) {
    args_defaults(a);
    a->command = c;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return a->help = true;
    bool ok = true;
    for (int i = 0; i < argc && ok; i++)
        ok = strncmp(argv[i], "--", 2) == 0 ? take_flag(a, argc, argv, &i, err)
                                            : take_positional(a, argv[i], err);
    if (ok && a->recipe) ok = apply_recipe(a, err); /* its path stands among the flags */
    ok = ok && check_needed(a, err) && overwrite_check(a, err) && check_outputs(a, err);
    if (!ok) args_free(a);
    return ok;
}
