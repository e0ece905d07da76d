/* linalg.cu - small dense factorisations in double, by cuSOLVER. Contracts: ops.h.
 *
 * Math: cuSOLVER's matrices are column major, and its SVD wants at least as many rows as columns. A
 * row-major A (M,N) is a column-major A^T. If M <= N, its A^T = V s U^T is the SVD asked for with
 * the factors swapped, in place. Else, and for QR, A is transposed first, and Q or U and V after.
 * Work split: transposition by tiles of 32 x 32 through shared memory; the rest is the library's.
 * Traffic, FLOPs and derived time on an H100 (3.35 TB/s, 33.5 TFLOP/s in double: half of f32) for
 *   20 directions of 9B, M = 3584 and N = 20:
 *   qr   16MN bytes         1.1 MB   4MN^2 FLOP  5.7 MFLOP  0.3 us
 *   svd  16MN + 8N^2        1.2 MB   6MN^2       8.6 MFLOP  0.3 us
 *   and 16MN, 0.3 us, for each transposition of A. What bounds them is the latency of the library's
 *   steps, of which each column takes several. Once per subspace.
 * Limits: the library's sizes are int. Its default mode gives equal bits for equal inputs. */
#include "kernels/gpu.h"

#include <cusolverDn.h>

enum { TILE = 32, TILE_ROWS = 8 };
static const size_t ALIGNMENT = 256; /* of what is carved from the scratch */

#define SOLVER_CHECK(call)                                                                   \
    do {                                                                                     \
        cusolverStatus_t status_ = (call);                                                   \
        CHECK(status_ == CUSOLVER_STATUS_SUCCESS, "%s: cuSOLVER status %d", #call, status_); \
    } while (0)

/* Made at the first factorisation: most commands need none, and it costs memory. */
static cusolverDnHandle_t solver(Exec *ex) {
    CudaState *s = cuda_state(ex);
    if (!s->solver) {
        SOLVER_CHECK(cusolverDnCreate(&s->solver));
        SOLVER_CHECK(cusolverDnSetStream(s->solver, s->stream));
    }
    return s->solver;
}

extern "C" void linalg_close(CudaState *s) {
    if (s->solver) SOLVER_CHECK(cusolverDnDestroy(s->solver));
}

/* y (N,M) = x (M,N)^T. One block per tile. */
static __global__ void __launch_bounds__(TILE *TILE_ROWS)
    k_transpose(double *y, const double *x, int M, int N) {
    __shared__ double tile[TILE][TILE + 1]; /* one more: columns fall on different banks */
    int t = threadIdx.x % TILE, u = threadIdx.x / TILE;
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    for (int i = u; i < TILE; i += TILE_ROWS)
        if (m0 + i < M && n0 + t < N) tile[i][t] = x[(size_t)(m0 + i) * N + n0 + t];
    __syncthreads();
    for (int i = u; i < TILE; i += TILE_ROWS)
        if (n0 + i < N && m0 + t < M) y[(size_t)(n0 + i) * M + m0 + t] = tile[t][i];
}

static void transpose(Exec *ex, double *y, const double *x, int M, int N) {
    dim3 grid(ceil_div(N, TILE), ceil_div(M, TILE));
    GPU_LAUNCH(ex, k_transpose, grid, TILE * TILE_ROWS, 0, y, x, M, N);
}

/* The library's workspace and its verdict, with two matrices before them. */
typedef struct Scratch {
    double *first, *second, *work;
    int *info;
} Scratch;

static size_t padded(size_t doubles) {
    return (doubles * sizeof(double) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Numbers of each part. */
typedef struct Room {
    size_t first, second;
    int work;
} Room;

static size_t room_bytes(Room r) {
    return padded(r.first) + padded(r.second) + padded((size_t)r.work) + sizeof(int);
}

static Scratch scratch(Exec *ex, Room r) {
    size_t at_work = padded(r.first) + padded(r.second), at_info = at_work + padded((size_t)r.work);
    char *p = static_cast<char *>(exec_scratch(ex, room_bytes(r)));
    Scratch s = {reinterpret_cast<double *>(p), reinterpret_cast<double *>(p + padded(r.first)),
                 reinterpret_cast<double *>(p + at_work), reinterpret_cast<int *>(p + at_info)};
    return s;
}

/* Asked for its workspace, the library looks at sizes alone. */
static Room svd_room(Exec *ex, int M, int N) {
    bool tall = M > N;
    int rows = tall ? M : N, m = tall ? N : M, work;
    SOLVER_CHECK(cusolverDnDgesvd_bufferSize(solver(ex), rows, m, &work));
    return {tall ? (size_t)M * N : 0, tall ? (size_t)m * m : 0, work};
}
static Room qr_room(Exec *ex, int M, int N, int *factor, int *build) {
    SOLVER_CHECK(cusolverDnDgeqrf_bufferSize(solver(ex), M, N, NULL, M, factor));
    SOLVER_CHECK(cusolverDnDorgqr_bufferSize(solver(ex), M, N, N, NULL, M, NULL, build));
    return {(size_t)M * N, (size_t)N, *factor > *build ? *factor : *build};
}

static size_t svd_scratch(Exec *ex, int M, int N) {
    return room_bytes(svd_room(ex, M, N));
}
static size_t qr_scratch(Exec *ex, int M, int N) {
    int factor, build;
    return room_bytes(qr_room(ex, M, N, &factor, &build));
}

/* Waits, and stops if the library could not do it. */
static void check_info(Exec *ex, const char *what, const int *info, int M, int N) {
    int host;
    exec_copy_out(ex, &host, info, sizeof host);
    CHECK(host == 0, "%s of %d x %d: info %d", what, M, N, host);
}

static void svd(Exec *ex, double *U, double *s, double *Vt, double *A, int M, int N) {
    OP_BEGIN(ex, svd, M, N);
    bool tall = M > N;
    int rows = tall ? M : N, m = tall ? N : M;
    Room r = svd_room(ex, M, N);
    Scratch b = scratch(ex, r);
    if (tall) transpose(ex, b.first, A, M, N);
    double *left = tall ? A : Vt, *right = tall ? b.second : U; /* A is free once transposed */
    SOLVER_CHECK(cusolverDnDgesvd(solver(ex), 'S', 'S', rows, m, tall ? b.first : A, rows, s, left,
                                  rows, right, m, b.work, r.work, NULL, b.info));
    check_info(ex, "cusolverDnDgesvd", b.info, M, N);
    if (!tall) return;
    transpose(ex, U, left, m, M);
    transpose(ex, Vt, right, m, m);
}

static void qr(Exec *ex, double *A, int M, int N) {
    OP_BEGIN(ex, qr, M, N);
    int factor, build;
    Scratch b = scratch(ex, qr_room(ex, M, N, &factor, &build));
    transpose(ex, b.first, A, M, N);
    SOLVER_CHECK(cusolverDnDgeqrf(solver(ex), M, N, b.first, M, b.second, b.work, factor, b.info));
    check_info(ex, "cusolverDnDgeqrf", b.info, M, N);
    SOLVER_CHECK(
        cusolverDnDorgqr(solver(ex), M, N, N, b.first, M, b.second, b.work, build, b.info));
    check_info(ex, "cusolverDnDorgqr", b.info, M, N);
    transpose(ex, A, b.first, N, M);
}

/* Always in double: one function for both storage types. */
op_svd *const cuda_svd[DTYPE_COUNT] = {svd, svd};
op_qr *const cuda_qr[DTYPE_COUNT] = {qr, qr};
op_svd_scratch *const cuda_svd_scratch[DTYPE_COUNT] = {svd_scratch, svd_scratch};
op_qr_scratch *const cuda_qr_scratch[DTYPE_COUNT] = {qr_scratch, qr_scratch};
