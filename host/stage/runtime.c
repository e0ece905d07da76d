/* runtime.c - device, tokenizer, model and adapter, opened as a command needs them. */
#include "host/stage/runtime.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/chat_template.h"
#include "host/stage/machine.h"
#include "host/stage/wait_policy.h"

static enum Dtype dtype_for(const Settings *s, enum DeviceKind kind) {
    return s->model.dtype ? (enum Dtype)(s->model.dtype - 1) /* auto stands before them */
                          : machine_auto_dtype(kind, (enum CpuLevel)s->run.cpu);
}

static bool open_cpu(Exec *ex, const Settings *s, enum Dtype dtype, Err *err) {
    const char *why = exec_open_cpu(ex, (enum CpuLevel)s->run.cpu, dtype);
    char level[SETTING_KEY];
    setting_choice_name(setting_find("cpu")->detail, s->run.cpu, level);
    return !why || err_set(err, EXIT_USAGE, "--cpu %s: %s; sails doctor says more", level, why);
}

bool runtime_cpu(Exec *ex, const Settings *s, Err *err) {
    return open_cpu(ex, s, DTYPE_F32, err);
}

bool runtime_device(Runtime *r, const Settings *s, Err *err) {
    Machine m;
    machine_read(&m);
    omp_set_num_threads(s->run.threads ? s->run.threads : m.processors);
    wait_policy_watch(omp_get_max_threads());
    enum DeviceKind kind = (enum DeviceKind)s->model.device;
    if (kind == DEVICE_AUTO) { /* not left to exec_open: the storage type depends on the device */
        if (!exec_open(&r->ex, DEVICE_CUDA, dtype_for(s, DEVICE_CUDA))) return true;
        kind = DEVICE_CPU;
    }
    if (kind == DEVICE_CPU) return open_cpu(&r->ex, s, dtype_for(s, kind), err);
    const char *why = exec_open(&r->ex, kind, dtype_for(s, kind));
    return !why || err_set(err, EXIT_USAGE, "--device cuda: %s; sails doctor says more", why);
}

/* Asked before its tokenizer: a folder of another kind is called by that. */
static bool is_model(const char *path, Err *err) {
    Config c;
    bool ok = config_load(&c, path, err);
    if (ok) config_free(&c);
    return ok;
}

bool runtime_tokenizer(Runtime *r, const Settings *s, Err *err) {
    const char *path = *s->model.tokenizer ? s->model.tokenizer : s->model.path;
    if (!*s->model.tokenizer && !is_model(path, err)) return false;
    if (!tokenizer_open(&r->tokenizer, path, err)) return false;
    chat_template_notice(path);
    return true;
}

char *runtime_tokenizer_file(const Settings *s) {
    const char *path = *s->model.tokenizer ? s->model.tokenizer : s->model.path;
    char *within = files_join(path, "tokenizer.json"); /* may be given as a file */
    if (files_exists(within)) return within;
    free(within);
    return mem_string(path);
}

bool runtime_ids(Runtime *r, const Settings *s, Err *err) {
    Config c;
    char *file = files_join(s->model.path, "tokenizer.json"), why[600];
    bool there = *s->model.tokenizer || files_exists(file);
    snprintf(why, sizeof why,
             "text needs a tokenizer, and there is no %.400s; add it or give --tokenizer", file);
    free(file);
    if (there) return runtime_tokenizer(r, s, err);
    if (!config_load(&c, s->model.path, err)) return false;
    r->tokenizer = tokenizer_ids_only(c.V, c.bos, why);
    config_free(&c);
    return true;
}

bool runtime_ids_fit(const Tokenizer *t, const Config *c, const char *model, Err *err) {
    return tokenizer_vocab(t) <= c->V ||
           err_set(err, EXIT_INPUT,
                   "%s: the tokenizer has ids up to %d, the model %d rows; use the model's own",
                   model, tokenizer_vocab(t) - 1, c->V);
}

bool runtime_model(Runtime *r, const Settings *s, int max_positions, Err *err) {
    if (!model_open(&r->model, &r->ex, s->model.path, max_positions, err)) {
        memset(&r->model, 0, sizeof r->model);
        return false;
    }
    return !r->tokenizer || runtime_ids_fit(r->tokenizer, &r->model.c, s->model.path, err);
}

bool runtime_adapter(Runtime *r, const char *folder, bool training, Err *err) {
    if (!lora_load(&r->lora, &r->ex, &r->model.c, folder, training, err)) {
        memset(&r->lora, 0, sizeof r->lora);
        return false;
    }
    r->model.lora = &r->lora;
    return true;
}

void runtime_drop_adapter(Runtime *r) {
    if (r->model.lora) lora_free(r->model.lora);
    r->model.lora = NULL;
}

void runtime_close(Runtime *r) {
    runtime_drop_adapter(r);
    if (r->model.ex) model_close(&r->model);
    tokenizer_close(r->tokenizer);
    exec_close(&r->ex);
    memset(r, 0, sizeof *r);
}
