/* cuda_runtime.h - found before the toolkit's own, so that .cu files compile as plain C++.
 *
 * Types and prototypes are the toolkit's, unchanged. This adds what nvcc builds in: the qualifiers
 * (they mean nothing here, save that __shared__ variables are gathered in one section by shared.ld,
 * which every block starts with filled with NaN), and a launch that keeps the kernel's name and
 * types. */
#ifndef SIMT_CUDA_RUNTIME_H
#define SIMT_CUDA_RUNTIME_H

#ifdef __CUDACC__
#error "this header is for host compilers; nvcc must find its own cuda_runtime.h"
#endif

#define __host__
#define __device__
#define __global__
#define __constant__
#define __launch_bounds__(...)
/* One block runs at a time, so one copy of each variable serves every block in turn. */
#define __shared__ static __attribute__((used))

/* The toolkit's template erases the argument types; the name is ours to use below. */
#define cudaLaunchKernelEx simt_unused_cudaLaunchKernelEx
#include_next <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include "tests/simt/device.h"
#include "tests/simt/launch.h"

#define cudaLaunchKernelEx(config, kernel, ...) simt::launch(#kernel, config, kernel, __VA_ARGS__)
#define GPU_DYN_SHARED(T, name) T *name = static_cast<T *>(simt::dynamic_shared())

#endif
