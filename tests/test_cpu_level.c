/* Which level a processor runs at: the best of those that a build has, or the one that is asked
 * for, and what is said of one that it cannot run. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/check.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/test.h"

static const char *const level_name[CPU_LEVEL_COUNT] = {"auto", CPU_LEVELS(CHOICE_TEXT)};

#if defined __x86_64__
/* What /proc/cpuinfo says must be there for a level. */
static const char *const wanted_flags[] = {"avx2", "avx512vl", "avx512_bf16", "amx_bf16"};

static bool processor_has(const char *flag) {
    char line[16384], word[64];
    bool has = false;
    snprintf(word, sizeof word, " %s ", flag);
    FILE *f = fopen("/proc/cpuinfo", "r");
    CHECK(f, "no /proc/cpuinfo");
    while (!has && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = ' ';
        has = strncmp(line, "flags", 5) == 0 && strstr(line, word);
    }
    fclose(f);
    return has;
}

/* Does Linux give tiles to those that ask? It says so by another call than the one that asks. */
static bool system_gives_tiles(void) {
    enum { SUPPORTED = 0x1021, TILE_DATA = 18 };
    uint64_t features = 0;
    return syscall(SYS_arch_prctl, SUPPORTED, &features) == 0 && (features >> TILE_DATA & 1);
}

static bool processor_has_slow_pairs(void) {
    enum { COOPER_LAKE = 85 };
    char line[256];
    bool intel = false, cooper_lake = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    CHECK(f, "no /proc/cpuinfo");
    while (fgets(line, sizeof line, f)) {
        int model;
        intel = intel || (strncmp(line, "vendor_id", 9) == 0 && strstr(line, "GenuineIntel"));
        if (sscanf(line, "model : %d", &model) == 1) cooper_lake = model == COOPER_LAKE;
    }
    fclose(f);
    return intel && !cooper_lake;
}
#endif

/* As the system lists them; that AMX may be used is the system's to say. */
static void test_runs(void) {
#if defined __x86_64__
    bool below = true;
    for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT; l++) {
        bool here = below && processor_has(wanted_flags[l - CPU_V3]);
        if (l == CPU_AMX) here = here && system_gives_tiles();
        bool runs = cpu_level_runs((enum CpuLevel)l);
        EXPECT(runs == here, "%s: runs %d, in /proc/cpuinfo %d", level_name[l], runs, here);
        below = here;
    }
#endif
}

static void test_best(void) {
    enum CpuLevel best = cpu_level_best(~0u);
    EXPECT(cpu_level_best(0) == CPU_AUTO, "a level of a build that has none");
    EXPECT(best != CPU_AUTO && cpu_level_runs(best), "best is %d", best);
    for (int l = CPU_LEAST; l < CPU_LEVEL_COUNT; l++) {
        enum CpuLevel alone = cpu_level_best(1u << l), want = CPU_AUTO;
        if (cpu_level_runs((enum CpuLevel)l)) want = (enum CpuLevel)l;
        EXPECT(alone == want, "%s alone: %d", level_name[l], alone);
    }
}

/* The highest, unless that is the one whose instructions are slow. */
static void test_fastest(void) {
#if defined __x86_64__
    const unsigned v3 = 1u << CPU_V3, wide = 1u << CPU_AVX512, pairs = 1u << CPU_AVX512_BF16,
                   amx = 1u << CPU_AMX;
    EXPECT(cpu_level_fastest(v3 | wide | pairs | amx, true) == CPU_AMX, "AMX is not the fastest");
    EXPECT(cpu_level_fastest(v3 | wide | pairs, true) == CPU_AVX512, "slow pairs are chosen");
    EXPECT(cpu_level_fastest(v3 | wide | pairs, false) == CPU_AVX512_BF16, "fast pairs are not");
    EXPECT(cpu_level_fastest(v3 | pairs, true) == CPU_V3, "slow pairs are chosen before AVX2");
    EXPECT(cpu_level_fastest(pairs, true) == CPU_AVX512_BF16, "slow pairs are all that there is");
    const unsigned below = v3 | wide | pairs;
    if (cpu_level_runs(CPU_AVX512_BF16)) /* as this processor is, too */
        EXPECT(cpu_level_best(below) == cpu_level_fastest(below, processor_has_slow_pairs()),
               "second best is %s", level_name[cpu_level_best(below)]);
#endif
}

/* Each level that this build has and this processor runs can be had, under its name; what is said
 * of another tells the two causes apart. */
static void test_open(void) {
    char want[64];
    for (int l = CPU_AUTO; l < CPU_LEVEL_COUNT; l++)
        for (int t = 0; t < DTYPE_COUNT; t++) {
            Exec ex;
            memset(&ex, 0xff, sizeof ex);
            const char *why = exec_open_cpu(&ex, (enum CpuLevel)l, (enum Dtype)t);
            int is = l == CPU_AUTO ? (int)exec_cpu_level() : l;
            snprintf(want, sizeof want, "cpu %s %s", level_name[is], dtype_name((enum Dtype)t));
            if (!why)
                EXPECT(strcmp(ex.op->name, want) == 0, "%s is called %s", want, ex.op->name);
            else if (cpu_level_runs((enum CpuLevel)is))
                EXPECT(strstr(why, "this build has no such level"), "%s: %s", want, why);
            else
                EXPECT(strstr(why, "this processor cannot run that level"), "%s: %s", want, why);
            exec_close(&ex);
        }
}

/* Linux refuses AMX to a process whose signal handlers have a stack too small to save the tiles on:
 * then the next level is the best. Before anything else asks, since a permission lasts. */
static void test_refused(void) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        static char small[4096]; /* the tiles alone are 8 KB */
        stack_t stack = {.ss_sp = small, .ss_size = sizeof small};
        CHECK(sigaltstack(&stack, NULL) == 0, "sigaltstack");
#if defined __x86_64__
        EXPECT(!cpu_level_runs(CPU_AMX), "AMX runs without the system's permission");
        EXPECT(!device_cpu(CPU_AMX) && exec_cpu_level() < CPU_AMX, "AMX is taken all the same");
#endif
        EXPECT(exec_cpu_level() != CPU_AUTO, "no level is left");
        fflush(stdout);
        _exit(test_failures);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child, "waitpid");
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "refused AMX: status %d", status);
}

int main(void) {
    test_refused();
    test_runs();
    test_best();
    test_fastest();
    test_open();
    return test_done("cpu_level");
}
