/* ops_cpu.c - the CPU device's two op tables, filled from the list. */
#include "kernels/ops.h"

#define X(op) .op = cpu_f32_##op,
const Ops ops_cpu_f32 = {.name = "cpu f32", SAILS_TABLE(X)};
#undef X
#define X(op) .op = cpu_bf16_##op,
const Ops ops_cpu_bf16 = {.name = "cpu bf16", SAILS_TABLE(X)};
#undef X
