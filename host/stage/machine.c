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

/* The number in a file of a control group; 0: there is no such, or "max". */
static double number_in(const char *folder, const char *file) {
    char path[4352];
    double number = 0;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%lf", &number) != 1) number = 0;
    fclose(f);
    return number;
}

static double lesser(double a, double b) {
    return a > 0 && (b <= 0 || a < b) ? a : b;
}

/* The least of a group and of all that it lies in. Within a container a group may have another name
 * than without: folders that are not there have no limit. */
static double least_of(const char *root, const char *group, const char *file) {
    char folder[4096];
    double least = 0;
    size_t n = strlen(root);
    snprintf(folder, sizeof folder, "%s%s", root, group);
    for (char *end = folder + strlen(folder); end; end = strrchr(folder + n, '/')) {
        *end = 0;
        least = lesser(number_in(folder, file), least);
    }
    return least;
}

double machine_group_limit(const char *groups, const char *mount) {
    char line[4096], root[256];
    double least = 0;
    FILE *f = fopen(groups, "r");
    while (f && fgets(line, sizeof line, f)) { /* "0::/job", or of version 1 "9:memory:/job" */
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        line[strcspn(line, "\n")] = 0;
        bool old = strncmp(controllers, ":memory:", 8) == 0;
        if (!old && group != controllers + 1) continue; /* of other resources */
        snprintf(root, sizeof root, "%s%s", mount, old ? "/memory" : "");
        const char *file = old ? "memory.limit_in_bytes" : "memory.max";
        least = lesser(least_of(root, group + 1, file), least);
    }
    if (f) fclose(f);
    return least;
}

void machine_read(Machine *m) {
    memset(m, 0, sizeof *m);
    proc_value("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu);
    cpu_set_t set;
    m->processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    m->memory = proc_kb("/proc/meminfo", "MemTotal");
    m->available = proc_kb("/proc/meminfo", "MemAvailable");
    double limit = machine_group_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    m->limit = limit < m->memory ? limit : 0; /* version 1 has a huge one for none */
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
