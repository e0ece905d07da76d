/* runtime.c - device, tokenizer, model and adapter, opened as a command needs them. */
#include "host/stage/runtime.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "host/stage/agree.h"
#include "host/stage/chat_template.h"
#include "host/stage/machine.h"
#include "host/stage/result_key.h"
#include "host/stage/same_input.h"
#include "host/stage/wait_policy.h"
#include "kernels/device.h"

static enum Dtype dtype_for(const Settings *s, enum DeviceKind kind, enum CpuLevel level) {
    return s->model.dtype ? (enum Dtype)(s->model.dtype - 1) /* auto stands before them */
                          : machine_auto_dtype(kind, level);
}

static bool open_cpu(Exec *ex, enum CpuLevel level, enum Dtype dtype, Err *err) {
    const char *why = exec_open_cpu(ex, level, dtype);
    char name[SETTING_KEY];
    setting_choice_name(setting_find("cpu")->detail, (int)level, name);
    return !why || err_set(err, EXIT_USAGE, "--cpu %s: %s; sails doctor says more", name, why);
}

bool runtime_cpu(Exec *ex, const Settings *s, Err *err) {
    return open_cpu(ex, (enum CpuLevel)s->run.cpu, DTYPE_F32, err);
}

/* How many ranks of this machine may use just the processors that this one may: 1 where a launcher
 * has given each its own. */
static int sharing(Comm *comm) {
    typedef struct {
        cpu_set_t processors;
        int leader;
    } Place;
    int n = 0, ranks = comm_size(comm), rank = comm_rank(comm);
    Place *place = mem_array((size_t)ranks, sizeof *place);
    sched_getaffinity(0, sizeof place->processors, &place[rank].processors);
    place[rank].leader = comm_seat(comm).leader;
    comm_share(comm, "processors of each rank", place, sizeof *place);
    for (int r = 0; r < ranks; r++) n += memcmp(&place[r], &place[rank], sizeof *place) == 0;
    free(place);
    return n;
}

/* A rank's share of the processors that it may use. */
static int threads_for(const Settings *s, Comm *comm) {
    Machine m;
    machine_read(&m);
    int ranks = sharing(comm), own = m.processors / ranks > 1 ? m.processors / ranks : 1;
    int online = (int)sysconf(_SC_NPROCESSORS_ONLN), each = online / comm_seat(comm).local_size;
    int wanted = s->run.threads ? s->run.threads : each;
    if (comm && comm_root(comm) && ranks == 1 && m.processors < wanted)
        fprintf(stderr,
                "sails: rank 0 is bound to %d of %d processors: mpirun --bind-to none, or --map-by "
                "slot:PE=%d, gives it more\n",
                m.processors, online, wanted);
    return s->run.threads ? s->run.threads : own;
}

/* Equal bits need equal levels. */
static enum CpuLevel level_for(const Settings *s, Comm *comm) {
    if (s->run.cpu != CPU_AUTO || !comm) return (enum CpuLevel)s->run.cpu;
    int *level = mem_array((size_t)comm_size(comm), sizeof *level);
    level[comm_rank(comm)] = (int)exec_cpu_level();
    comm_share(comm, "levels of processors", level, sizeof *level);
    int least = level[0];
    for (int r = 1; r < comm_size(comm); r++)
        if (level[r] < least) least = level[r];
    free(level);
    return (enum CpuLevel)least;
}

/* Has every rank a GPU, or none? `why`: why this one has none, NULL: it has. */
static bool same_kind(Comm *comm, const char *why, Err *err) {
    typedef struct {
        bool has;
        char why[256];
    } Kind;
    if (!comm) return true;
    Kind *kind = mem_array((size_t)comm_size(comm), sizeof *kind), *own = &kind[comm_rank(comm)];
    int r = 1;
    own->has = !why;
    if (why) snprintf(own->why, sizeof own->why, "%s", why);
    comm_share(comm, "kinds of devices", kind, sizeof *kind);
    while (r < comm_size(comm) && kind[r].has == kind[0].has) r++;
    bool ok = r == comm_size(comm);
    if (!ok) {
        int without = kind[0].has ? r : 0;
        err_set(err, EXIT_USAGE,
                "rank %d has a GPU, rank %d has none: %s; --device cpu lets both work",
                kind[0].has ? 0 : r, without, kind[without].why);
        agree_to_fail();
    }
    free(kind);
    return ok;
}

/* Two ranks on one card would share its memory, and NCCL may hang. */
static bool own_card(Exec *ex, Err *err) {
    typedef struct {
        char host[64], card[DEVICE_PLACE];
    } Place;
    int ranks = comm_size(ex->comm), rank = comm_rank(ex->comm);
    Place *place = mem_array((size_t)ranks, sizeof *place);
    gethostname(place[rank].host, sizeof place->host - 1);
    ex->device->place(ex, place[rank].card);
    comm_share(ex->comm, "which card each rank has", place, sizeof *place);
    bool ok = true;
    for (int a = 0; a < ranks && ok; a++)
        for (int b = 0; b < a && ok; b++)
            if (memcmp(&place[a], &place[b], sizeof *place) == 0)
                ok =
                    err_set(err, EXIT_USAGE,
                            "ranks %d and %d have the same GPU, %s of %s; give each one of its own "
                            "(CUDA_VISIBLE_DEVICES, or the launcher's option for it)",
                            b, a, place[a].card, place[a].host);
    free(place);
    return ok;
}

/* Ranks on a device that cannot reach the others' would each train by itself. */
static bool meets(Exec *ex, Err *err) {
    if (!ex->comm) return true;
    if (!ex->device->move)
        return err_set(err, EXIT_USAGE, "--device %s: this device works in one rank alone",
                       ex->device->name);
    if (ex->device->place && !own_card(ex, err)) return false;
    const char *why = comm_join(ex->comm, ex);
    return !why || err_set(err, EXIT_USAGE, "--device %s: %s", ex->device->name, why);
}

bool runtime_device(Runtime *r, const Settings *s, Comm *comm, Err *err) {
    omp_set_num_threads(threads_for(s, comm));
    wait_policy_watch(omp_get_max_threads());
    enum CpuLevel level = level_for(s, comm);
    if (comm) exec_use_card(comm_seat(comm).local_rank);
    enum DeviceKind kind = (enum DeviceKind)s->model.device;
    if (kind == DEVICE_AUTO) { /* not left to exec_open: the storage type depends on the device */
        const char *none = exec_open(&r->ex, DEVICE_CUDA, dtype_for(s, DEVICE_CUDA, level));
        if (!same_kind(comm, none, err)) return false;
        r->ex.comm = comm;
        if (!none) return meets(&r->ex, err);
        kind = DEVICE_CPU;
    }
    const char *why = NULL;
    bool ok = true;
    if (kind == DEVICE_CPU)
        ok = open_cpu(&r->ex, level, dtype_for(s, kind, level), err);
    else if ((why = exec_open(&r->ex, kind, dtype_for(s, kind, level))))
        ok = err_set(err, EXIT_USAGE, "--device cuda: %s; sails doctor says more", why);
    r->ex.comm = comm;
    return ok && meets(&r->ex, err);
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
    char *file = runtime_tokenizer_file(s);
    bool same = same_file(r->ex.comm, "the tokenizer", file, err);
    free(file);
    if (!same) return false;
    if (comm_root(r->ex.comm)) chat_template_notice(path);
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
    if (!agree_same(r->ex.comm, "tokenizer.json, there or not,", &there, sizeof there, EXIT_INPUT,
                    err))
        return false;
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

/* Its configuration says more than the tensors do. */
static bool same_adapter(Comm *c, const char *folder, Err *err) {
    if (!c) return true;
    json_t *key = result_key_new();
    bool ok = result_key_folder(key, &hasher_plain, "adapter", folder, err) &&
              same_key(c, "the adapter", key, err);
    json_decref(key);
    return ok;
}

static bool model_fits(const Runtime *r, const Settings *s, Err *err) {
    return same_model(&r->model, s->model.path, err) &&
           (!r->tokenizer || runtime_ids_fit(r->tokenizer, &r->model.c, s->model.path, err));
}

bool runtime_model(Runtime *r, const Settings *s, int max_positions, Err *err) {
    return model_open(&r->model, &r->ex, s->model.path, max_positions, err) &&
           model_fits(r, s, err);
}

bool runtime_trained_model(Runtime *r, const Settings *s, int max_positions, Err *err) {
    return model_open_trained(&r->model, &r->full, &r->ex, s->model.path, max_positions, err) &&
           model_fits(r, s, err);
}

bool runtime_adapter(Runtime *r, const char *folder, bool training, Err *err) {
    if (!lora_load(&r->lora, &r->ex, &r->model.c, folder, training, err)) {
        memset(&r->lora, 0, sizeof r->lora);
        return false;
    }
    r->model.lora = &r->lora;
    return same_adapter(r->ex.comm, folder, err);
}

void runtime_drop_adapter(Runtime *r) {
    if (r->model.lora) lora_free(r->model.lora);
    r->model.lora = NULL;
}

void runtime_drop_model(Runtime *r) {
    runtime_drop_adapter(r);
    if (r->model.ex) model_close(&r->model);
    full_free(&r->full);
}

void runtime_close(Runtime *r, bool ok) {
    if (ok) comm_part_devices(r->ex.comm, &r->ex);
    runtime_drop_model(r);
    tokenizer_close(r->tokenizer);
    exec_close(&r->ex);
    memset(r, 0, sizeof *r);
}
