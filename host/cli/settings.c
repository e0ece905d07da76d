/* settings.c - the table of settings, and its rows as text. */
#include "host/cli/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

#define ROW(section, TYPE, field, fallback, least, most, detail, mark, help)                 \
    {#section, #field, SET_##TYPE, offsetof(Settings, section.field), fallback, least, most, \
     detail,   mark,   help},

const Setting settings_table[SETTINGS_COUNT] = {SETTINGS_ALL(ROW)};

bool setting_top_level(const Setting *s) {
    return strcmp(s->section, "run") == 0;
}

void setting_name(const Setting *s, char name[SETTING_KEY]) {
    snprintf(name, SETTING_KEY, "%s", s->field);
    for (char *p = name; *p; p++)
        if (*p == '_') *p = '-';
}

void setting_key(const Setting *s, char key[SETTING_KEY]) {
    char name[SETTING_KEY];
    setting_name(s, name);
    if (setting_top_level(s))
        memcpy(key, name, SETTING_KEY);
    else
        snprintf(key, SETTING_KEY, "%.30s.%.30s", s->section, name);
}

void setting_flag(const Setting *s, char flag[SETTING_KEY]) {
    if (strcmp(s->field, "path") == 0)
        snprintf(flag, SETTING_KEY, "%s", s->section);
    else
        setting_name(s, flag);
}

const Setting *setting_find(const char *key) {
    for (const Setting *s = settings_table; s < settings_table + SETTINGS_COUNT; s++) {
        char own[SETTING_KEY];
        setting_key(s, own);
        if (strcmp(own, key) == 0) return s;
    }
    die(__FILE__, __LINE__, __func__, "no setting %s", key);
}

enum SettingRole setting_role(const Setting *s) {
    bool file = strcmp(s->detail, "file") == 0 || strcmp(s->detail, "folder") == 0 ||
                strcmp(s->detail, "path") == 0;
    if (s->type != SET_TEXT || !file) return ROLE_NONE;
    bool written = strcmp(s->field, "out") == 0 || strcmp(s->field, "judge_export") == 0;
    return written ? ROLE_OUTPUT : ROLE_INPUT;
}

bool setting_may_be_auto(const Setting *s) {
    return s->type == SET_INT && strncmp(s->detail, "auto|", 5) == 0;
}

const char *setting_unit(const Setting *s) {
    return s->detail + (setting_may_be_auto(s) ? 5 : 0);
}

int setting_choice(const char *choices, const char *text, size_t n) {
    int i = 0;
    for (const char *p = choices;; i++) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, text, n) == 0) return i;
        if (p[len] == 0) return -1;
        p += len + 1;
    }
}

void setting_choice_name(const char *choices, int i, char name[SETTING_KEY]) {
    const char *p = choices;
    while (i-- > 0) p += strcspn(p, "|") + 1;
    snprintf(name, SETTING_KEY, "%.*s", (int)strcspn(p, "|"), p);
}

const char *setting_text(const Setting *s, const Settings *v, char text[SETTING_KEY]) {
    const char *at = (const char *)v + s->offset;
    switch (s->type) {
        case SET_INT:
            if (setting_may_be_auto(s) && *(const int *)at == 0) return "auto";
            snprintf(text, SETTING_KEY, "%d", *(const int *)at);
            return text;
        case SET_REAL: { /* the shortest form that reads back as the same number */
            double x = *(const double *)at;
            int digits = 6;
            do snprintf(text, SETTING_KEY, "%.*g", digits, x);
            while (digits++ < 17 && strtod(text, NULL) != x);
            return text;
        }
        case SET_FLAG:
            return *(const bool *)at ? "true" : "false";
        case SET_CHOICE:
            setting_choice_name(s->detail, *(const int *)at, text);
            return text;
        case SET_TEXT:
        case SET_LIST:
            break;
    }
    return *(const char *const *)at;
}

static int pack_tokens(const Settings *s, int longest) {
    enum { ROWS = 2048 }; /* enough for GEMMs at full speed, small beside a model */
    if (s->data.pack_tokens) return s->data.pack_tokens;
    return longest > ROWS ? longest : ROWS;
}

bool settings_all_weights(const Settings *s) {
    return s->train.method == METHOD_FULL ||
           (s->train.method == METHOD_DPO && s->train.weights == WEIGHTS_ALL);
}

static int longest_pair(const Settings *s) {
    return (s->train.method == METHOD_DPO ? 2 : 1) * s->data.max_length;
}

int settings_pack_tokens(const Settings *s) {
    return pack_tokens(s, s->data.max_length);
}

int settings_training_pack(const Settings *s) {
    return pack_tokens(s, longest_pair(s));
}

bool settings_check_packs(const Settings *s, Err *err) {
    int rows = settings_pack_tokens(s);
    return rows >= s->data.max_length ||
           err_set(err, EXIT_USAGE, "--pack-tokens: expected at least --max-length %d, got %d",
                   s->data.max_length, rows);
}

bool settings_check_training_pack(const Settings *s, Err *err) {
    int rows = settings_training_pack(s), longest = longest_pair(s);
    return settings_check_packs(s, err) &&
           (rows >= longest ||
            err_set(err, EXIT_USAGE,
                    "--pack-tokens: expected at least %d for pairs, twice --max-length, got %d",
                    longest, rows));
}

int list_count(const char *list) {
    int n = *list != 0;
    for (; *list; list++) n += *list == ',';
    return n;
}

bool list_item(const char *list, int i, char *item, size_t room) {
    while (i-- > 0) list += strcspn(list, ",") + 1;
    size_t n = strcspn(list, ",");
    snprintf(item, room, "%.*s", (int)n, list);
    return n < room;
}
