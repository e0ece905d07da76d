/* exec_open.c - choosing a device: the CPU's is linked in, CUDA's is loaded when it is asked for.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device.h"
#include "kernels/ops.h"

static char why_text[512];      /* what exec_open returns when it fails */
static const char *plugin_path; /* owned by the loader, which never lets go of the plug-in */

static int card_wanted = -1;

void exec_use_card(int card) {
    card_wanted = card;
}

static bool flag(const char *name) {
    const char *value = getenv(name);
    return value && strcmp(value, "1") == 0;
}

/* dlerror names the file that is missing: the plug-in, or what the plug-in needs. */
static const char *remedy(const char *path, const char *error) {
    if (!strstr(error, "cannot open shared object file")) return "";
    if (strncmp(error, path, strlen(path)) == 0) return "; build sails where CUDA's compiler is";
    return "; put the folder of " SAILS_CUDA_RELEASE "'s libraries in LD_LIBRARY_PATH";
}

/* The plug-in stays open for the life of the process: CUDA libraries do not unload cleanly. */
static const Device *load_cuda(void) {
    const char *path = getenv("SAILS_CUDA_PLUGIN");
    if (!path) path = "libsails_cuda.so";
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        const char *error = dlerror();
        snprintf(why_text, sizeof why_text, "the CUDA plug-in does not load (%s)%s", error,
                 remedy(path, error));
        return NULL;
    }
    sails_cuda_device_fn *get;
    void *symbol = dlsym(lib, "sails_cuda_device");
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function pointer */
    const Device *d = symbol ? get(DEVICE_ABI) : NULL;
    if (!d) snprintf(why_text, sizeof why_text, "the CUDA plug-in is of another sails version");
    Dl_info info;
    if (d && dladdr(symbol, &info)) plugin_path = info.dli_fname;
    return d;
}

static const char *try_device(Exec *ex, const Device *d, enum Dtype dtype) {
    memset(ex, 0, sizeof *ex);
    ex->device = d;
    ex->dtype = dtype;
    ex->op = d->ops[dtype];
    ex->sync_always = flag("SAILS_SYNC");
    const char *why = d->open(ex, card_wanted);
    if (why)
        memset(ex, 0, sizeof *ex); /* so that exec_close does nothing */
    else if (d->scratch)
        exec_scratch(ex, d->scratch);
    return why;
}

const char *exec_plugin(const Exec *ex) {
    return strcmp(ex->device->name, "cpu") == 0 ? NULL : plugin_path;
}

const char *exec_open_cpu(Exec *ex, enum CpuLevel level, enum Dtype dtype) {
    const Device *d = device_cpu(level);
    if (d) return try_device(ex, d, dtype);
    memset(ex, 0, sizeof *ex); /* so that exec_close does nothing */
    if (level != CPU_AUTO && !cpu_level_runs(level))
        return "this processor cannot run that level, or the system does not let it";
    if (level != CPU_AUTO) return "this build has no such level (SAILS_CPU_LEVELS)";
    if (cpu_level_runs(CPU_LEAST))
        return "this build has no level that this processor runs (SAILS_CPU_LEVELS)";
    return "this processor is too old: sails needs AVX2 and FMA (x86-64-v3, Intel since 2013, AMD "
           "since 2017)";
}

const char *exec_open(Exec *ex, enum DeviceKind kind, enum Dtype dtype) {
    if (kind != DEVICE_CPU) {
        const Device *cuda = load_cuda();
        if (!cuda) memset(ex, 0, sizeof *ex);
        const char *why = cuda ? try_device(ex, cuda, dtype) : why_text;
        if (!why || kind == DEVICE_CUDA) return why;
    }
    return exec_open_cpu(ex, CPU_AUTO, dtype);
}
