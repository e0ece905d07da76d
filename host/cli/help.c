/* help.c - what --help prints, and settings written back as a recipe. */
#include <stdlib.h>
#include <string.h>

#include "data/records.h"
#include "host/cli/args.h"
#include "host/cli/command.h"
#include "host/cli/paths.h"
#include "host/cli/recipe.h"
#include "kernels/check.h"

enum { COLUMN = 28 /* of the flags */ };

static const char *const positional_usage[] = {
    [POSITIONAL_RECIPE] = " [RECIPE.yaml]",
    [POSITIONAL_RECIPE_NEEDED] = " RECIPE.yaml",
    [POSITIONAL_PATHS] = " PATH...",
    [POSITIONAL_NONE] = "",
};

static bool needed(const Command *c, int setting) {
    for (const Use *u = c->use; u->key; u++)
        if (u->need == USE_NEEDED && args_find(u->key) == setting) return true;
    return false;
}

/* "--lr X" and so on: the flag with what follows it. */
static void flag_column(const Command *c, int i, char *text, size_t room) {
    static const char *const kind[] = {[SET_INT] = "N", [SET_REAL] = "X",    [SET_FLAG] = "",
                                       [SET_TEXT] = "", [SET_CHOICE] = NULL, [SET_LIST] = "LIST"};
    const Setting *s = &settings_table[i];
    char flag[SETTING_KEY], upper[SETTING_KEY];
    command_flag(c, i, flag);
    const char *k = setting_may_be_auto(s) ? "N|auto" : kind[s->type];
    if (s->type == SET_TEXT) {
        snprintf(upper, sizeof upper, "%s", s->detail);
        for (char *p = upper; *p; p++) *p -= *p >= 'a' && *p <= 'z' ? 'a' - 'A' : 0;
        k = upper;
    }
    snprintf(text, room, "--%s%s%s", flag, k && !*k ? "" : " ", k ? k : s->detail);
}

static bool takes_recipe(const Command *c) {
    return c->positional == POSITIONAL_RECIPE || c->positional == POSITIONAL_RECIPE_NEEDED;
}

/* "[tokens, 2 to 1048576, default 1024]" */
static void print_facts(const Command *c, int i, FILE *f) {
    const Setting *s = &settings_table[i];
    bool number = s->type == SET_INT || s->type == SET_REAL;
    fputc('[', f);
    if (number && *setting_unit(s)) fprintf(f, "%s, ", setting_unit(s));
    if (number) fprintf(f, "%.10g to %.10g, ", s->least, s->most);
    if (s->type == SET_LIST && *s->detail) fprintf(f, "of %s, ", s->detail);
    if (needed(c, i))
        fputs("needed", f);
    else if (*s->fallback)
        fprintf(f, "default %s", s->fallback);
    else
        fputs("default none", f);
    char key[SETTING_KEY];
    setting_key(s, key);
    if (takes_recipe(c)) fprintf(f, "; recipe key %s", key);
    fputc(']', f);
}

/* What a data file may hold. */
static void print_forms(FILE *f) {
    fputs("\nrecords (JSONL, a JSON list or CSV, plain or .gz), the first of:\n", f);
    for (const RecordHelp *h = record_forms; h->fields; h++)
        fprintf(f, "  %-30s  %s\n", h->fields, h->meaning);
}

void args_help(const Command *c, FILE *f) {
    fprintf(f, "sails %s - %s\n\n", c->name, c->summary);
    fprintf(f, "usage: sails %s%s [--flag value]... [--set section.key=value]...\n", c->name,
            positional_usage[c->positional]);
    if (takes_recipe(c))
        fputs(
            "\nPaths in the recipe are seen from the recipe's folder, those of flags from here.\n",
            f);
    if (c->about) fprintf(f, "\n%s\n", c->about);
    const char *section = NULL;
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        if (!command_uses(c, i)) continue;
        if (!section || strcmp(section, s->section) != 0) fputc('\n', f);
        section = s->section;
        char flag[160];
        flag_column(c, i, flag, sizeof flag);
        fprintf(f, "  %-*s ", COLUMN, flag);
        if (strlen(flag) > COLUMN) fprintf(f, "\n%*s", COLUMN + 3, "");
        fprintf(f, "%s\n%*s", s->help, COLUMN + 4, "");
        print_facts(c, i, f);
        fputc('\n', f);
    }
    fputs("\n  --help                       this text\n", f);
    static const char *const reading[] = {"data.path", "data.side", "generate.prompts"};
    bool records = false;
    for (size_t i = 0; i < sizeof reading / sizeof *reading; i++)
        records = records || command_uses(c, args_find(reading[i]));
    if (records) print_forms(f);
}

static void write_value(FILE *f, const Setting *s, const char *text) {
    if (s->type != SET_LIST) {
        recipe_write_scalar(f, text);
        return;
    }
    fputc('[', f);
    size_t room = strlen(text) + 1;
    char *item = malloc(room);
    CHECK(item, "out of memory");
    for (int i = 0; i < list_count(text); i++) {
        list_item(text, i, item, room);
        if (i) fputs(", ", f);
        recipe_write_scalar(f, item);
    }
    free(item);
    fputc(']', f);
}

/* Each method has a rate of its own where none is given: what was given to none is not written. */
static bool left_out(const Args *a, int setting) {
    const Setting *lr = setting_find("train.lr");
    return &settings_table[setting] == lr && a->source[setting] == FROM_DEFAULT &&
           a->s.train.lr == strtod(lr->fallback, NULL);
}

void args_write_recipe(const Args *a, FILE *f) {
    const char *section = "run";
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        if (!command_uses(a->command, i) || s->mark == DISPLAY || left_out(a, i)) continue;
        if (strcmp(section, s->section) != 0) fprintf(f, "%s:\n", s->section);
        section = s->section;
        char name[SETTING_KEY], text[SETTING_KEY];
        setting_name(s, name);
        fprintf(f, "%s%s: ", setting_top_level(s) ? "" : "  ", name);
        const char *value = setting_text(s, &a->s, text);
        char *whole = setting_role(s) == ROLE_NONE ? NULL : path_absolute(value);
        write_value(f, s, whole ? whole : value);
        free(whole);
        fputc('\n', f);
    }
}
