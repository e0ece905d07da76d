/* What identifies an input of align is its content, whatever its name, its times and its size say;
 * and a stage belongs to the program and the plug-in that made it. */
#include <fcntl.h>
#include <sys/stat.h>

#include "host/align/run_folder.h"
#include "kernels/lapack.h"
#include "tests/align_run.h"

static void give_time(const char *path, time_t seconds) {
    struct timespec t[2] = {{seconds, 0}, {seconds, 0}};
    CHECK(utimensat(AT_FDCWD, path, t, 0) == 0, "%s", path);
}

static void lead(const char *link, const char *to) {
    unlink(link);
    CHECK(symlink(to, link) == 0, "%s", link);
}

static void copy_changed(const char *to, const char *from, const char *a, const char *b) {
    Buf bytes = file_bytes(from);
    char *at = memmem(bytes.p, bytes.n, a, strlen(a));
    CHECK(at && strlen(a) == strlen(b), "%s", a);
    memcpy(at, b, strlen(b));
    Err err;
    MUST(files_write(to, bytes.p, bytes.n, &err), err);
    buf_free(&bytes);
}

/* The hash that the manifest has for a path. */
static bool manifest_says(const char *path, const char *want) {
    json_t *manifest = read_json("manifest.json");
    json_t *input = json_object_get(json_object_get(manifest, "inputs"), path);
    const char *got = json_string_value(json_object_get(input, "sha256"));
    bool same_hash = got && strcmp(got, want) == 0;
    json_decref(manifest);
    return same_hash;
}

/* As if the run had been hours ago: what the manifest says of its inputs may be believed. */
static void age_hashes(void) {
    json_t *manifest = read_json("manifest.json"), *input;
    const char *path;
    Err err;
    json_object_foreach (json_object_get(manifest, "inputs"), path, input) {
        json_t *state = json_object_get(input, "state");
        json_int_t ctime = json_integer_value(json_object_get(state, "ctime"));
        json_object_set_new(input, "hashed", json_integer(ctime + 3600000000000));
    }
    MUST(files_write_json(in_world("run/manifest.json"), manifest, &err), err);
    json_decref(manifest);
}

/* Two files of one size and one time of change behind one link, then two checkpoints of one shape,
 * then a file written over in place whose time is put back: the content decides. */
static void test_content(void) {
    char line[1500], hex[65];
    Err err;
    const char *const A = "a.jsonl", *const B = "b.jsonl";
    copy_changed(in_world("a.jsonl"), in_world("prompts.jsonl"), "bread", "bread");
    copy_changed(in_world("b.jsonl"), in_world("prompts.jsonl"), "bread", "broth");
    give_time(in_world("a.jsonl"), 1600000000);
    give_time(in_world("b.jsonl"), 1600000000);
    lead(in_world("link.jsonl"), A);
    snprintf(line, sizeof line, "--methods base --prompts %s", in_world("link.jsonl"));
    align(line);
    same("the same link", align(line), "");
    age_hashes();
    lead(in_world("link.jsonl"), B);
    same("a link to a twin", align(line), "generate-base eval-base");
    MUST(files_sha256(hex, in_world("b.jsonl"), &err), err);
    EXPECT(manifest_says(in_world("link.jsonl"), hex), "the manifest has another file's hash");

    CHECK(rename(in_world("model"), in_world("model-a")) == 0, "model");
    MUST(files_mkdirs(in_world("model-b"), &err), err);
    static const char *const part[] = {"config.json", "generation_config.json", "tokenizer.json"};
    for (int i = 0; i < 3; i++)
        copy_changed(in_world("model-b/%s", part[i]), in_world("model-a/%s", part[i]), "{", "{");
    copy_changed(in_world("model-b/model.safetensors"), in_world("model-a/model.safetensors"),
                 "\x3d", "\x3e"); /* a byte of some weight */
    give_time(in_world("model-a/model.safetensors"), 1600000000);
    give_time(in_world("model-b/model.safetensors"), 1600000000);
    lead(in_world("model"), "model-a");
    align(line);
    age_hashes();
    lead(in_world("model"), "model-b");
    same("another checkpoint", align(line), "generate-base perplexity-base");
    lead(in_world("model"), "model-a");
    align(line);

    age_hashes();
    FILE *f = fopen(in_world("b.jsonl"), "r+"); /* in place: the same inode and size */
    CHECK(f && fseek(f, 20, SEEK_SET) == 0 && fputc('x', f) == 'x' && fclose(f) == 0, "b");
    give_time(in_world("b.jsonl"), 1600000000);
    same("a file written over", align(line), "generate-base eval-base");
    CHECK(rename(in_world("b.jsonl"), in_world("moved.jsonl")) == 0, "b");
    snprintf(line, sizeof line, "--methods base --prompts %s", in_world("moved.jsonl"));
    same("the same file elsewhere", align(line), "");
}

/* A hash is taken from the manifest only when the file had been left alone for longer than a tick
 * of its clock when it was read. */
static void test_saved_hash(void) {
    char path[512], hex[65];
    snprintf(path, sizeof path, "%s", in_world("benign.jsonl"));
    Err err;
    MUST(files_sha256(hex, path, &err), err);
    for (int late = 0; late < 2; late++) {
        align("--methods base");
        json_t *manifest = read_json("manifest.json");
        json_t *input = json_object_get(json_object_get(manifest, "inputs"), path);
        json_int_t ctime =
            json_integer_value(json_object_get(json_object_get(input, "state"), "ctime"));
        json_object_set_new(input, "sha256", json_sprintf("%064d", 0));
        json_object_set_new(input, "hashed",
                            json_integer(ctime + (late ? 10000000000 : 1000000000)));
        MUST(files_write_json(in_world("run/manifest.json"), manifest, &err), err);
        json_decref(manifest);
        align("--methods base");
        EXPECT(manifest_says(path, hex) == !late, "late %d: the saved hash was%s taken", late,
               late ? " not" : "");
    }
    CHECK(remove(in_world("run/manifest.json")) == 0, "manifest");
    align("--methods base");
}

/* What a plug-in computes is the plug-in's: a stage belongs to it as it belongs to the program. */
static void test_plugin(void) {
    Args a;
    Run r;
    Stage st;
    Err err;
    char line[256], *argv[] = {line}, hex[65];
    snprintf(line, sizeof line, "%s", in_world("recipe.yaml"));
    MUST(args_parse(&a, &cmd_align, 1, argv, &err), err);
    MUST(run_open(&r, &a, in_world("pairs.jsonl"), &err), err);
    MUST(files_sha256(hex, in_world("pairs.jsonl"), &err), err);
    stage_begin(&st, &r, "x");
    const char *plugin = json_string_value(json_object_get(st.key, "plugin"));
    EXPECT(plugin && strcmp(plugin, hex) == 0, "the plug-in is %s", plugin ? plugin : "absent");
    stage_free(&st);
    run_close(&r);
    EXPECT(!run_open(&r, &a, in_world("none"), &err) && err.code == EXIT_INPUT, "no such plug-in");
    args_free(&a);
}

/* A stamp belongs to the program that made it, and to the library that factorises: a rebuilt one,
 * or another processor's kernels, may give other numbers. */
static void made_by(const char *what, bool setting, const char *now) {
    Err err;
    json_t *stamp = read_json("stages/subspace-sails.json"), *words = json_object_get(stamp, "key");
    if (setting) words = json_object_get(words, "settings");
    const char *is = json_string_value(json_object_get(words, what));
    EXPECT(is && strcmp(is, now) == 0, "%s is %s", what, is ? is : "absent");
    json_object_set_new(words, what, json_string("another"));
    MUST(files_write_json(in_world("run/stages/subspace-sails.json"), stamp, &err), err);
    json_decref(stamp);
    same("a stage of another build", align(""), "subspace-sails");
}

static void test_other_program(void) {
    Err err;
    char hex[65];
    MUST(files_sha256(hex, "/proc/self/exe", &err), err);
    made_by("program", false, hex);
    made_by("openblas", true, openblas_get_config());
}

int main(void) {
    world_make();
    write_recipe("0", "");
    align("");
    test_content();
    test_saved_hash();
    test_plugin();
    test_other_program();
    world_remove();
    return test_done("align_inputs");
}
