/* nccl_sums.cc - reductions of values from all ranks, in an order of their own.
 *
 * NCCL promises no order, and its own depends on size, machine and version. Here the part of rank r
 * is added up as r, r+1, .., and with SIMT_NCCL_SUMS=random in another order at every call: whoever
 * relies on sums in the order of a tree fails from 3 ranks on. In bf16 every step rounds. */
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "kernels/bf16.h"
#include "tests/simt/nccl_comm.h"

namespace simt {

namespace {

const struct {
    ncclDataType_t type;
    size_t bytes;
    const char *name;
} types[] = {
    {ncclInt8, 1, "int8"},
    {ncclUint8, 1, "uint8"},
    {ncclInt32, 4, "int32"},
    {ncclUint32, 4, "uint32"},
    {ncclInt64, 8, "int64"},
    {ncclUint64, 8, "uint64"},
    {ncclFloat16, 2, "float16"},
    {ncclFloat32, 4, "float32"},
    {ncclFloat64, 8, "float64"},
    {ncclBfloat16, 2, "bfloat16"},
    {ncclFloat8e4m3, 1, "float8e4m3"},
    {ncclFloat8e5m2, 1, "float8e5m2"},
};

template <class T>
T step(ncclRedOp_t op, T a, T b) {
    return op == ncclSum ? (T)(a + b) : op == ncclMax ? std::max(a, b) : std::min(a, b);
}
template <>
bf16 step(ncclRedOp_t op, bf16 a, bf16 b) {
    return bf16_from_f32(step(op, bf16_to_f32(a), bf16_to_f32(b)));
}

/* The ranks in the order in which the part of rank `first` is added up. */
std::vector<int> order_of(const Op &op, int first) {
    int n = op.comm->size;
    std::vector<int> order(n);
    for (int i = 0; i < n; i++) order[i] = (first + i) % n;
    static const char *const mode = getenv("SIMT_NCCL_SUMS");
    if (!mode || strcmp(mode, "rotated") == 0) return order;
    if (strcmp(mode, "random") != 0)
        fail("SIMT_NCCL_SUMS: expected rotated or random, got %s", mode);
    /* The same on all ranks, which must end with the same values. */
    uint64_t drawn = mix(op.comm->shared->id() ^ mix(op.number));
    for (int i = n; i > 1; i--, drawn = mix(drawn)) std::swap(order[i - 1], order[drawn % i]);
    return order;
}

template <class T>
void fold(const Op &op, size_t from, size_t to, int first) {
    std::vector<int> order = order_of(op, first);
    size_t n = op.signature.count;
    const T *x = (const T *)op.arrived.data();
    T *y = (T *)op.recv;
    for (size_t i = from; i < to; i++) {
        T sum = x[order[0] * n + i];
        for (size_t k = 1; k < order.size(); k++)
            sum = step((ncclRedOp_t)op.signature.redop, sum, x[order[k] * n + i]);
        y[i] = sum;
    }
}

template <class T>
void reduce_as(const Op &op) {
    size_t n = op.signature.count, size = (size_t)op.comm->size, part = (n + size - 1) / size;
    if (op.kind == REDUCE_SCATTER) return fold<T>(op, 0, n, op.comm->rank);
    for (size_t r = 0; r < size; r++)
        fold<T>(op, std::min(n, r * part), std::min(n, (r + 1) * part), (int)r);
}

}  // namespace

size_t type_bytes(ncclDataType_t type) {
    for (const auto &t : types)
        if (t.type == type) return t.bytes;
    return 0;
}

const char *type_name(ncclDataType_t type) {
    for (const auto &t : types)
        if (t.type == type) return t.name;
    return "an unknown type";
}

bool can_reduce(ncclDataType_t type, ncclRedOp_t op) {
    return (type == ncclFloat32 || type == ncclFloat64 || type == ncclBfloat16 ||
            type == ncclInt32 || type == ncclInt64) &&
           (op == ncclSum || op == ncclMax || op == ncclMin);
}

void reduce(const Op &op) {
    switch (op.signature.type) {
        case ncclFloat32:
            return reduce_as<float>(op);
        case ncclFloat64:
            return reduce_as<double>(op);
        case ncclBfloat16:
            return reduce_as<bf16>(op);
        case ncclInt32:
            return reduce_as<int32_t>(op);
        default:
            return reduce_as<int64_t>(op);
    }
}

}  // namespace simt
