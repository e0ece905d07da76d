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

/* Of CPUID, subleaf 0: __builtin_cpu_supports does not know all bits with every compiler. */
static unsigned cpuid_bits(unsigned leaf, char reg) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(leaf, 0, &a, &b, &c, &d)) return 0;
    return reg == 'c' ? c : d;
}

static bool has_tiles_of_bf16(void) {
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned has = cpuid_bits(7, 'd');
    return (has & AMX_BF16) && (has & AMX_TILE);
}

/* __builtin_cpu_supports asks the system too: are the registers saved? */
static bool has_v3(void) {
    enum { MOVBE = 1 << 22, POPCNT = 1 << 23, F16C = 1 << 29, LZCNT = 1 << 5 };
    const unsigned need = MOVBE | POPCNT | F16C;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           (cpuid_bits(1, 'c') & need) == need && (cpuid_bits(0x80000001u, 'c') & LZCNT);
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

/* Intel's cores that know pairs of bf16 need as long for a vector of them as for four of f32, which
 * do twice the work (measured on an Emerald Rapids; also where a virtual machine hides AMX). Its
 * first ones, of 2020, had no AMX and other units. */
static bool has_slow_pairs(void) {
    return __builtin_cpu_is("intel") && !__builtin_cpu_is("cooperlake");
}
#else
bool cpu_level_runs(enum CpuLevel level) {
    (void)level;
    return true;
}
static bool has_slow_pairs(void) {
    return false;
}
#endif

enum CpuLevel cpu_level_fastest(unsigned levels, bool slow_pairs) {
#if defined __x86_64__
    const unsigned pairs = 1u << CPU_AVX512_BF16;
    if (slow_pairs && (levels & (pairs - 1))) levels &= ~pairs;
#endif
    (void)slow_pairs;
    for (int l = CPU_LEVEL_COUNT - 1; l > CPU_AUTO; l--)
        if (levels >> l & 1) return (enum CpuLevel)l;
    return CPU_AUTO;
}

enum CpuLevel cpu_level_best(unsigned built) {
    unsigned levels = 0;
    for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT; l++)
        if ((built >> l & 1) && cpu_level_runs((enum CpuLevel)l)) levels |= 1u << l;
    return cpu_level_fastest(levels, has_slow_pairs());
}
