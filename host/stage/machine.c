/* machine.c - processor, memory and libraries, from /proc and their own version calls. */
#include "host/stage/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>
#include <zip.h>
#include <zlib.h>

#include "kernels/device.h"
#include "kernels/lapack.h"
#include "kernels/ops.h"

/* The value behind "NAME   :" in a /proc file of such lines; "" when it is not there. */
static void proc_value(const char *path, const char *name, char *value, size_t room) {
    char line[8192];
    *value = 0;
    FILE *f = fopen(path, "r");
    if (!f) return;
    size_t n = strlen(name);
    while (fgets(line, sizeof line, f)) {
        const char *p = line + n;
        if (strncmp(line, name, n) != 0) continue;
        p += strspn(p, " \t");
        if (*p != ':') continue;
        p += 1 + strspn(p + 1, " \t");
        snprintf(value, room, "%.*s", (int)strcspn(p, "\n"), p);
        break;
    }
    fclose(f);
}

static double proc_kb(const char *path, const char *name) {
    char value[64];
    proc_value(path, name, value, sizeof value);
    return strtod(value, NULL) * 1024;
}

/* The control group's limit (version 2, then 1); "max" and absurdly large values mean none. */
static double memory_limit(double memory) {
    static const char *const path[] = {"/sys/fs/cgroup/memory.max",
                                       "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (int i = 0; i < 2; i++) {
        double limit = 0;
        FILE *f = fopen(path[i], "r");
        if (!f) continue;
        int got = fscanf(f, "%lf", &limit);
        fclose(f);
        if (got == 1 && limit > 0 && limit < memory) return limit;
    }
    return 0;
}

void machine_read(Machine *m) {
    memset(m, 0, sizeof *m);
    proc_value("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu);
    cpu_set_t set;
    m->processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    m->memory = proc_kb("/proc/meminfo", "MemTotal");
    m->available = proc_kb("/proc/meminfo", "MemAvailable");
    m->limit = memory_limit(m->memory);
}

/* On a CPU that multiplies bf16 it is the faster one, elsewhere only the smaller. */
enum Dtype machine_auto_dtype(enum DeviceKind kind, enum CpuLevel level) {
    if (kind == DEVICE_CUDA) return DTYPE_BF16;
    const Device *d = device_cpu(level);
    return d && d->ops[DTYPE_BF16]->rounds ? DTYPE_BF16 : DTYPE_F32;
}

json_t *machine_versions(void) {
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "sails", SAILS_VERSION, "openblas",
                     openblas_get_config(), "jansson", jansson_version_str(), "libzip",
                     zip_libzip_version(), "zlib", zlibVersion(), "libyaml",
                     yaml_get_version_string());
}

MemoryUse machine_memory_use(void) {
    static const char status[] = "/proc/self/status";
    return (MemoryUse){proc_kb(status, "RssAnon"), proc_kb(status, "RssFile"),
                       proc_kb(status, "RssShmem"), proc_kb(status, "VmHWM")};
}
