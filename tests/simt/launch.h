/* launch.h - a kernel launch: the arguments are converted to the parameters' types, checked, and
 * kept until the stream runs the grid. Part of simt.h; included by the .cu files only. */
#ifndef SIMT_LAUNCH_H
#define SIMT_LAUNCH_H

#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/simt/simt.h"

namespace simt {

template <class T>
static inline void check_argument(const char *kernel, int i, const T &v) {
    if constexpr (std::is_pointer_v<T>)
        if (v && !live_range((const void *)v, 1))
            fail("%s: argument %d is not device memory: %p", kernel, i, (const void *)v);
}

template <class... Params, class... Args>
static inline cudaError_t launch(const char *name, const cudaLaunchConfig_t *c,
                                 void (*kernel)(Params...), Args &&...args) {
    cudaError_t error = check_launch(*c, (const void *)kernel);
    if (error != cudaSuccess) return error;
    std::tuple<std::decay_t<Params>...> kept(
        static_cast<std::decay_t<Params>>(std::forward<Args>(args))...);
    int i = 0;
    std::apply([&](const auto &...v) { (check_argument(name, i++, v), ...); }, kept);
    Grid grid{name, c->gridDim, c->blockDim, c->dynamicSmemBytes};
    enqueue(c->stream, [grid, kernel, kept] { run_grid(grid, [&] { std::apply(kernel, kept); }); });
    return cudaSuccess;
}

}  // namespace simt

#endif
