/* result_key.c - settings and hashes of files as JSON. */
#include "host/stage/result_key.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/stage/runtime.h"

static bool read_and_hash(void *context, char hex[65], const char *path, Err *err) {
    (void)context;
    return files_sha256(hex, path, err);
}
const Hasher hasher_plain = {read_and_hash, NULL};

json_t *result_key_new(void) {
    json_t *key = json_pack("{s:{}, s:{}}", "settings", "inputs");
    CHECK(key, "a JSON value could not be made");
    return key;
}

void result_key_text(json_t *key, const char *name, const char *value) {
    json_object_set_new(json_object_get(key, "settings"), name, json_string(value));
}

void result_key_setting(json_t *key, const Settings *s, const Setting *row) {
    char name[SETTING_KEY], text[SETTING_KEY];
    setting_key(row, name);
    result_key_text(key, name, setting_text(row, s, text));
}

bool result_key_file(json_t *key, const Hasher *h, const char *role, const char *path, Err *err) {
    char hex[65];
    if (!h->hash(h->context, hex, path, err)) return false;
    json_object_set_new(json_object_get(key, "inputs"), role, json_string(hex));
    return true;
}

static bool matters(const char *name) {
    static const char *const configuration[] = {"config.json", "generation_config.json",
                                                "adapter_config.json"};
    for (size_t i = 0; i < sizeof configuration / sizeof *configuration; i++)
        if (strcmp(name, configuration[i]) == 0) return true;
    const char *dot = strrchr(name, '.');
    bool category = strncmp(name, "category_", strlen("category_")) == 0; /* of a suite */
    return category || (dot && strcmp(dot, ".safetensors") == 0) ||
           strstr(name, ".safetensors.index.json");
}

bool result_key_folder(json_t *key, const Hasher *h, const char *role, const char *folder,
                       Err *err) {
    DIR *d = opendir(folder);
    if (!d) return err_set(err, EXIT_INPUT, "%s: expected a folder", folder);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (!matters(e->d_name)) continue;
        char *path = files_join(folder, e->d_name), *its = files_join(role, e->d_name);
        ok = result_key_file(key, h, its, path, err);
        free(its);
        free(path);
    }
    closedir(d);
    return ok;
}

/* Settings by which a result is worked out and kept: it is the same with others. */
static bool of_working(const char *name) {
    static const char *const names[] = {"threads",
                                        "cpu",
                                        "model.device",
                                        "model.dtype",
                                        "train.keep",
                                        "generate.batch",
                                        "train.checkpoint-every",
                                        "train.checkpoint-minutes",
                                        "train.eval-data",
                                        "train.eval-every"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

bool result_key_input(json_t *key, const Hasher *h, const char *role, const char *path, Err *err) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? result_key_folder(key, h, role, path, err)
                                                       : result_key_file(key, h, role, path, err);
}

/* Under the flag's name. */
static bool add_input(json_t *key, const Hasher *h, const Setting *row, const char *path,
                      Err *err) {
    char role[SETTING_KEY];
    setting_flag(row, role);
    return result_key_input(key, h, role, path, err);
}

/* None where the data are ids and the model has no tokenizer.json. */
static bool add_tokenizer(json_t *key, const Hasher *h, const Settings *s, Err *err) {
    struct stat st;
    char *path = runtime_tokenizer_file(s);
    bool none = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    bool ok = none || result_key_file(key, h, "tokenizer", path, err);
    free(path);
    return ok;
}

bool result_key_command(json_t *key, const Args *a, const Exec *ex, const Hasher *h, Err *err) {
    bool ok = true;
    for (int i = 0; i < SETTINGS_COUNT && ok; i++) {
        const Setting *row = &settings_table[i];
        char name[SETTING_KEY], text[SETTING_KEY];
        setting_key(row, name);
        if (!command_uses(a->command, i) || row->mark == DISPLAY || of_working(name)) continue;
        const char *value = setting_text(row, &a->s, text);
        if (setting_role(row) == ROLE_NONE)
            result_key_setting(key, &a->s, row);
        else if (strcmp(name, "model.tokenizer") == 0)
            ok = add_tokenizer(key, h, &a->s, err);
        else if (setting_role(row) == ROLE_INPUT && *value && strcmp(name, "score.sae") != 0)
            ok = add_input(key, h, row, value, err);
    }
    result_key_text(key, "model.dtype", dtype_name(ex->dtype));
    return ok;
}

/* The first name whose texts differ in a member of both, one that only one of them has included. */
static bool member_differs(const json_t *was, const json_t *is, const char *member, char *first,
                           size_t room) {
    const json_t *a = json_object_get(was, member), *b = json_object_get(is, member);
    const char *name;
    json_t *all = json_object(), *value;
    CHECK(all && json_object_update(all, (json_t *)a) == 0 &&
              json_object_update_missing(all, (json_t *)b) == 0,
          "a key without %s", member);
    bool differs = false;
    json_object_foreach (all, name, value) {
        const char *x = json_string_value(json_object_get(a, name));
        const char *y = json_string_value(json_object_get(b, name));
        differs = !x || !y || strcmp(x, y) != 0;
        if (!differs) continue;
        snprintf(first, room, "%s", name);
        break;
    }
    json_decref(all);
    return differs;
}

bool result_key_differs(const json_t *was, const json_t *is, char *what, size_t room) {
    char name[256];
    if (member_differs(was, is, "settings", name, sizeof name)) {
        const char *x = json_string_value(json_object_get(json_object_get(was, "settings"), name));
        const char *y = json_string_value(json_object_get(json_object_get(is, "settings"), name));
        snprintf(what, room, "%s was %s, is %s", name, x ? x : "not there", y ? y : "not there");
        return true;
    }
    if (!member_differs(was, is, "inputs", name, sizeof name)) return false;
    snprintf(what, room, "the content of %s has changed", name);
    return true;
}

bool result_key_maker_differs(const json_t *was, const json_t *is, char *what, size_t room) {
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)is, name, value) {
        const json_t *before = json_object_get(was, name);
        if (!json_is_string(value) || json_equal(before, value)) continue;
        const char *x = json_string_value(before), *y = json_string_value(value);
        snprintf(what, room, "%s was %.16s, is %.16s", name, x && *x ? x : "none", *y ? y : "none");
        return true;
    }
    return false;
}
