/* machine.h - what this process runs on: processor, memory, libraries. */
#ifndef SAILS_MACHINE_H
#define SAILS_MACHINE_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/exec.h"

typedef struct Machine {
    char cpu[128];
    int processors;                  /* that this process may use */
    double memory, available, limit; /* bytes; limit: of the control group, 0: none */
} Machine;

void machine_read(Machine *m);

/* Bytes that a process may use by its control groups (cgroup(7), both versions): the least limit of
 * those that the file `groups` names, as /proc/self/cgroup does, and of all they lie in, in the
 * tree that is mounted at `mount`. A scheduler limits a job, whose steps lie in it. 0: no limit. */
double machine_group_limit(const char *groups, const char *mount);

/* The storage type that `--dtype auto` means on this device kind, at this level of the CPU's. */
enum Dtype machine_auto_dtype(enum DeviceKind kind, enum CpuLevel level);

/* {"sails": "0.1.0", "openblas": ..., ...} */
json_t *machine_versions(void);

/* Resident memory of this process now, in bytes by class, and its peak (VmHWM). */
typedef struct MemoryUse {
    double anonymous, file, shared, peak;
} MemoryUse;
MemoryUse machine_memory_use(void);

#endif
