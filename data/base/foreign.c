/* foreign.c - names that tell files of other tools, and the remedy for each. */
#include "data/base/foreign.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Their ends of names; the first that a folder has is named. */
static const struct {
    const char *end, *what;
} kind[] = {{".gguf", "a GGUF file"},          {".bin", "a PyTorch pickle"},
            {".pt", "a PyTorch pickle"},       {".pth", "a PyTorch pickle"},
            {".ckpt", "a PyTorch checkpoint"}, {".msgpack", "a Flax file"},
            {".h5", "a TensorFlow file"}};
enum { KINDS = sizeof kind / sizeof *kind };

static bool is_kind(const char *name, int k) {
    size_t n = strlen(name), m = strlen(kind[k].end);
    return n > m && strcmp(name + n - m, kind[k].end) == 0;
}

/* The file's name, with training_args.bin and its like left alone: they hold no weights. */
static int find_kind(const char *folder, char name[256]) {
    for (int k = 0; k < KINDS; k++) {
        DIR *d = opendir(folder);
        bool found = false;
        for (struct dirent *e; d && !found && (e = readdir(d));) {
            found = is_kind(e->d_name, k) && strcmp(e->d_name, "training_args.bin") != 0 &&
                    strcmp(e->d_name, "optimizer.pt") != 0 &&
                    strcmp(e->d_name, "scheduler.pt") != 0;
            if (found) snprintf(name, 256, "%s", e->d_name);
        }
        if (d) closedir(d);
        if (found) return k;
    }
    return -1;
}

static const char *remedy(const char *stem, bool gguf) {
    if (strcmp(stem, "sae_weights") == 0)
        return "load it where it was trained and save it with SAELens (sae.save_model(NEW))";
    if (strcmp(stem, "adapter_model") == 0)
        return "convert it with PEFT: AutoPeftModelForCausalLM.from_pretrained(FOLDER)"
               ".save_pretrained(NEW, safe_serialization=True)";
    if (gguf)
        return "take the model's own safetensors, or convert it with transformers: "
               "AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME).save_pretrained(NEW)";
    return "convert it with transformers: AutoModelForCausalLM.from_pretrained(FOLDER)"
           ".save_pretrained(NEW, safe_serialization=True)";
}

bool foreign_refuse(const char *path, const char *stem, Err *err) {
    struct stat st;
    char name[256] = "";
    int k = -1;
    if (stat(path, &st) != 0) return true;
    if (S_ISDIR(st.st_mode))
        k = find_kind(path, name);
    else
        for (int i = 0; i < KINDS && k < 0; i++)
            if (is_kind(path, i)) k = i;
    if (k < 0) return true;
    err_set(err, EXIT_INPUT, "%s%s%s: expected safetensors, this is %s", path, *name ? "/" : "",
            name, kind[k].what);
    return err_remedy(err, remedy(stem, k == 0));
}
