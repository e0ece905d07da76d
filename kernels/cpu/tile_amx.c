/* tile_amx.c - the state of a thread's tiles, of which only the bf16 twin has any. */
#include "kernels/cpu/gemm_kernel.h"

#if defined UNITS_FOR_AMX
_Thread_local int amx_now;
#endif
