/* cpu_level.c - what this processor can run. */
#include "kernels/cpu_level.h"

#if defined __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* AMX's tiles, 8 KB more to be saved for each thread, are the process's only once it has asked. The
 * numbers are Linux's: arch_prctl(ARCH_REQ_XCOMP_PERM, the tiles' data). */
static bool may_use_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

static bool has_tiles_of_bf16(void) {
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d & AMX_BF16) && (d & AMX_TILE);
}

/* __builtin_cpu_supports asks the system too: are the registers saved? */
static bool has_v3(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

bool cpu_level_runs(enum CpuLevel level) {
    __builtin_cpu_init();
    return has_v3() && (level < CPU_AVX512 || has_avx512()) &&
           (level < CPU_AVX512_BF16 || __builtin_cpu_supports("avx512bf16")) &&
           (level < CPU_AMX || (has_tiles_of_bf16() && may_use_tiles()));
}

/* Intel's processors need as long for a bf16 instruction as for four of f32, which do twice the
 * work: their second best is without. */
static bool bf16_is_slow(void) {
    return __builtin_cpu_is("intel");
}
#else
bool cpu_level_runs(enum CpuLevel level) {
    (void)level;
    return true;
}
#endif

enum CpuLevel cpu_level_best(unsigned built) {
    for (int level = CPU_LEVEL_COUNT - 1; level > CPU_AUTO; level--) {
#if defined __x86_64__
        if (level == CPU_AVX512_BF16 && bf16_is_slow()) continue;
#endif
        if (built >> level & 1 && cpu_level_runs((enum CpuLevel)level)) return (enum CpuLevel)level;
    }
    return CPU_AUTO;
}
