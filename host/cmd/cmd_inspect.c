/* cmd_inspect.c - what a file or folder holds: model, adapter, SAE, scores, subspace, run, data. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/cli/command.h"
#include "host/cmd/inspect.h"
#include "host/cli/print.h"

/* What marks each kind of folder; the first that is there decides. */
static const struct {
    const char *file, *kind;
    inspector *inspect;
} folders[] = {
    {"adapter_config.json", "PEFT LoRA adapter", inspect_adapter},
    {"manifest.json", "run of sails align", inspect_run},
    {"cfg.json", "SAELens SAE", inspect_sae},
    {"config.json", "model", inspect_model},
};

static bool named(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

/* A file's kind by its name where that says it, so that a broken one is called by its kind, else
 * by its first bytes: a zip archive, a safetensors header, or text. */
static inspector *choose_file(const char *path, const char **kind, Err *err) {
    unsigned char head[9] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) {
        files_failed(err, path, "open");
        return NULL;
    }
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    const char *slash = strrchr(path, '/');
    if (strcmp(slash ? slash + 1 : path, "config.json") == 0) return *kind = "model", inspect_model;
    if (named(path, ".npz") || (n >= 4 && memcmp(head, "PK\3\4", 4) == 0))
        return *kind = "Gemma Scope SAE", inspect_sae;
    /* u64 header length, far below 2^40, then JSON */
    bool header = n == 9 && head[8] == '{' && !head[5] && !head[6] && !head[7];
    if (header || named(path, ".safetensors")) return *kind = "safetensors", inspect_safetensors;
    return *kind = "records", inspect_records;
}

static inspector *choose(const char *path, const char **kind, Err *err) {
    struct stat st;
    if (stat(path, &st) != 0) {
        files_failed(err, path, "open");
        return NULL;
    }
    if (!S_ISDIR(st.st_mode)) return choose_file(path, kind, err);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *file = files_join(path, folders[i].file);
        bool there = files_exists(file);
        free(file);
        if (!there) continue;
        *kind = folders[i].kind;
        return folders[i].inspect;
    }
    err_set(
        err, EXIT_INPUT,
        "%s: expected a folder with adapter_config.json, manifest.json, cfg.json or config.json; "
        "check the path",
        path);
    return NULL;
}

/* "key: value" lines; objects are indented below their key. */
static void print_facts(json_t *facts, int indent) {
    const char *key;
    json_t *value;
    json_object_foreach (facts, key, value) {
        if (strcmp(key, "_text") == 0) continue;
        printf("%*s%s:", indent, "", key);
        if (json_is_object(value)) {
            putchar('\n');
            print_facts(value, indent + 2);
        } else if (json_is_string(value)) {
            printf(" %s\n", json_string_value(value));
        } else if (json_is_integer(value)) {
            char count[PRINT_ROOM];
            printf(" %s\n", print_count(count, (double)json_integer_value(value)));
        } else if (json_is_real(value)) {
            printf(" %.6g\n", json_real_value(value));
        } else {
            char *list = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
            printf(" %s\n", list ? list : "?");
            free(list);
        }
    }
}

static bool inspect(const char *path, const Settings *s, Err *err) {
    const char *kind;
    inspector *look = choose(path, &kind, err);
    if (!look) return false;
    json_t *facts = json_pack("{s:s, s:s}", "path", path, "kind", kind);
    CHECK(facts, "%s: not UTF-8", path);
    bool ok = look(facts, path, s, err);
    if (ok && s->run.json) {
        json_object_del(facts, "_text");
        print_json(facts);
        return true;
    }
    if (ok) {
        json_t *table = json_object_get(facts, "_text");
        print_facts(facts, 0);
        if (table) fwrite(json_string_value(table), 1, json_string_length(table), stdout);
    }
    json_decref(facts);
    return ok;
}

static bool run(const Args *a, Err *err) {
    for (int i = 0; i < a->npath; i++) {
        if (i && !a->s.run.json) putchar('\n');
        if (!inspect(a->path[i], &a->s, err)) return false;
    }
    return true;
}

static const Use use[] = {{"model.tokenizer", USE_OPTIONAL},
                          {"data.limit", USE_OPTIONAL},
                          {"data.side", USE_OPTIONAL},
                          {"data.max-length", USE_OPTIONAL},
                          {"subspace.top-k", USE_OPTIONAL},
                          {"subspace.by", USE_OPTIONAL},
                          {"cpu", USE_OPTIONAL},
                          {"json", USE_OPTIONAL},
                          {NULL, USE_OPTIONAL}};

const Command cmd_inspect = {
    .name = "inspect",
    .summary = "what a model, adapter, SAE, score, subspace, data file or run holds",
    .about =
        "Records are shown as tokens when --tokenizer is given: pieces separated by |, training\n"
        "targets between [[ and ]], the first three records unless --limit says more.",
    .positional = POSITIONAL_PATHS,
    .use = use,
    .run = run,
};
