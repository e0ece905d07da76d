/* cpu_level.h - the levels of processors that the CPU twins are compiled for (CMakeLists.txt has
 * their options), the least first.
 *
 *   x86-64-v3    AVX2 and FMA: Intel since 2013, AMD since 2017
 *   avx512       AVX-512 F, BW, CD, DQ and VL
 *   avx512+bf16  and its bf16 instructions: pairs are multiplied and added in f32
 *   amx          and AMX's tiles of bf16, if the system permits their use
 *   portable     any processor of another architecture
 *
 * Equal inputs give equal bits within a level and a build, not between levels: wider vectors add in
 * another order. The name of an op table, which manifests and stage keys hold, says the level. One
 * thing is not the level's: OpenBLAS chooses its kernels for `svd` and `qr` by the processor, and
 * manifests and the keys of stages that depend on them hold what it says of itself, too. */
#ifndef SAILS_CPU_LEVEL_H
#define SAILS_CPU_LEVEL_H

#include <stdbool.h>

#include "kernels/choices.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(value, name, id): the id is part of the twins' names, cpu_<id>_<dtype>_<op>. */
#if defined __x86_64__
#define CPU_LEVELS(X)                              \
    X(CPU_V3, "x86-64-v3", x86_64_v3)              \
    X(CPU_AVX512, "avx512", avx512)                \
    X(CPU_AVX512_BF16, "avx512+bf16", avx512_bf16) \
    X(CPU_AMX, "amx", amx)
#else
#define CPU_LEVELS(X) X(CPU_PORTABLE, "portable", portable)
#endif
enum CpuLevel { CPU_AUTO, CPU_LEVELS(CHOICE_ENUM) CPU_LEVEL_COUNT, CPU_LEAST = CPU_AUTO + 1 };

/* Can this processor run the twins of a level, and does the system let it? Asking for AMX requests
 * the permission, which Linux gives to a process once. Not CPU_AUTO. */
bool cpu_level_runs(enum CpuLevel level);

/* The fastest of some levels (bit 1 << level of each): the highest, but avx512+bf16 only in want of
 * a lower one where its instructions for pairs are slow. CPU_AUTO: there is none. */
enum CpuLevel cpu_level_fastest(unsigned levels, bool slow_pairs);

/* What CPU_AUTO means: the fastest of the levels of this build that run here. */
enum CpuLevel cpu_level_best(unsigned built);

#ifdef __cplusplus
}
#endif
#endif
