/* overwrite.c - inputs and outputs of a command by device and inode. */
#include "host/cli/overwrite.h"

#include <dirent.h>
#include <fnmatch.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"

/* A file or folder that is read. */
typedef struct Input {
    dev_t device;
    ino_t inode;
    int setting; /* RECIPE: it is the recipe */
    char *path;
} Input;

typedef struct Inputs {
    Input *input;
    size_t n, capacity;
} Inputs;

enum { RECIPE = -1, DEEPEST = 4 /* levels of a folder that are looked into */ };

/* ------------------------------------------------------------------------------- folders -- */

/* Called with every regular file below a folder and with its path from there. */
typedef bool each_file(void *context, const char *path, const char *within, const struct stat *st);

static bool walk(const char *folder, const char *within, int level, each_file *each,
                 void *context) {
    DIR *d = level < DEEPEST ? opendir(folder) : NULL;
    bool ok = true;
    for (struct dirent *e; d && ok && (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = files_join(folder, e->d_name), *name = files_join(within, e->d_name);
        bool there = stat(path, &st) == 0;
        if (there && S_ISDIR(st.st_mode)) ok = walk(path, name, level + 1, each, context);
        if (there && S_ISREG(st.st_mode)) ok = each(context, path, name, &st);
        free(name);
        free(path);
    }
    if (d) closedir(d);
    return ok;
}

/* -------------------------------------------------------------------------------- inputs -- */

static void add(Inputs *in, int setting, const char *path, const struct stat *st) {
    in->input = mem_grow(in->input, &in->capacity, in->n + 1, sizeof *in->input);
    in->input[in->n++] = (Input){st->st_dev, st->st_ino, setting, mem_string(path)};
}

typedef struct Within {
    Inputs *in;
    int setting;
} Within;

static bool add_within(void *context, const char *path, const char *within, const struct stat *st) {
    const Within *w = context;
    (void)within;
    add(w->in, w->setting, path, st);
    return true;
}

static void add_path(Inputs *in, int setting, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return; /* its reader will say so */
    Within w = {in, setting};
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) add(in, setting, path, &st);
    if (S_ISDIR(st.st_mode)) walk(path, "", 0, add_within, &w);
}

/* A path, or a pattern with wildcards and {layer}. */
static void add_pattern(Inputs *in, int setting, const char *pattern) {
    if (files_exists(pattern)) {
        add_path(in, setting, pattern);
        return;
    }
    char *any = mem_string(pattern);
    for (char *p; (p = strstr(any, "{layer}"));) {
        *p = '*';
        memmove(p + 1, p + 7, strlen(p + 7) + 1);
    }
    glob_t g = {0};
    if (glob(any, 0, NULL, &g) == 0)
        for (size_t i = 0; i < g.gl_pathc; i++) add_path(in, setting, g.gl_pathv[i]);
    globfree(&g);
    free(any);
}

static void collect(Inputs *in, const Args *a) {
    for (int i = 0; i < SETTINGS_COUNT; i++) {
        const Setting *s = &settings_table[i];
        if (setting_role(s) != ROLE_INPUT || !command_uses(a->command, i)) continue;
        const char *value = setting_text(s, &a->s, NULL);
        if (*value) add_pattern(in, i, value);
    }
    if (a->recipe) add_path(in, RECIPE, a->recipe);
}

static void inputs_free(Inputs *in) {
    for (size_t i = 0; i < in->n; i++) free(in->input[i].path);
    free(in->input);
}

static const Input *find(const Inputs *in, const struct stat *st) {
    for (size_t i = 0; i < in->n; i++)
        if (in->input[i].device == st->st_dev && in->input[i].inode == st->st_ino)
            return &in->input[i];
    return NULL;
}

/* ------------------------------------------------------------------------------- outputs -- */

/* What an output folder receives; one that is not listed may receive anything. */
static const char *const received[][16] = {
    {"out", "recipe.yaml", "manifest.json", "summary.json", "metrics.jsonl", "scores.safetensors",
     "moments.safetensors", "subspaces/*", "stages/*", "adapters/*", "responses/*", "eval/*",
     "models/*", "verdicts.jsonl", "explain/*", NULL},
    {"train.out", "adapter_config.json", "adapter_model.safetensors", "README.md", "metrics.jsonl",
     "events.out.tfevents.sails", "checkpoints/*", NULL},
};

static bool receives(const char *key, const char *name) {
    for (size_t i = 0; i < sizeof received / sizeof *received; i++) {
        if (strcmp(received[i][0], key) != 0) continue;
        for (const char *const *p = received[i] + 1; *p; p++)
            if (fnmatch(*p, name, 0) == 0) return true;
        return false;
    }
    return true;
}

typedef struct Output {
    const Args *a;
    const Inputs *in;
    int setting;
    const char *path;
    Err *err;
} Output;

static bool refuse(const Output *o, const Input *input, const char *what) {
    char out[SETTING_KEY], in[SETTING_KEY] = "";
    command_flag(o->a->command, o->setting, out);
    if (input->setting != RECIPE) command_flag(o->a->command, input->setting, in);
    return err_set(o->err, EXIT_USAGE,
                   "--%s %s: would write over %s, which is read as %s%s; choose another --%s", out,
                   o->path, what, *in ? "--" : "the recipe", in, out);
}

/* A recipe that lies in its run folder is written again with the same content. */
static bool check_received(void *context, const char *path, const char *within,
                           const struct stat *st) {
    const Output *o = context;
    char key[SETTING_KEY];
    setting_key(&settings_table[o->setting], key);
    const Input *input = receives(key, within) ? find(o->in, st) : NULL;
    return !input || input->setting == RECIPE || refuse(o, input, path);
}

static bool check_output(Output *o) {
    struct stat st;
    if (stat(o->path, &st) != 0) return true; /* what is not there cannot be read */
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return true; /* /dev/stdout */
    const Input *input = find(o->in, &st);
    if (input) return refuse(o, input, input->path);
    return !S_ISDIR(st.st_mode) || walk(o->path, "", 0, check_received, o);
}

bool overwrite_check(const Args *a, Err *err) {
    Inputs in = {0};
    bool ok = true;
    collect(&in, a);
    for (int i = 0; i < SETTINGS_COUNT && ok; i++) {
        const Setting *s = &settings_table[i];
        if (setting_role(s) != ROLE_OUTPUT || !command_uses(a->command, i)) continue;
        Output o = {a, &in, i, setting_text(s, &a->s, NULL), err};
        ok = !*o.path || check_output(&o);
    }
    inputs_free(&in);
    return ok;
}
