/* cuda.h - the CUDA device as the plug-in's own files see it. Nothing outside kernels/ includes
 * this, and nothing of it is in the program: all files that do make up libsails_cuda.so.
 *
 * The plug-in's C files end in _cuda.c. They and the kernels call the CUDA libraries only through
 * the toolkit's headers, so the same objects also link against the stand-ins of tests/simt/. */
#ifndef SAILS_CUDA_H
#define SAILS_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/contracts.h"
#include "kernels/cuda_memory.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The first statement of every twin. */
#define OP_BEGIN OP_SCOPE

/* The twins of one op, by storage type. */
#define X(op) extern op_##op *const cuda_##op[DTYPE_COUNT];
SAILS_TABLE(X)
#undef X

/* What a GPU must grant a block, static and dynamic together: the attention of E = 256 in f32 takes
 * 160 KB. The data-centre generations from compute capability 8.0 on grant 163 KB and more, others
 * of the same numbers 99 KB. */
enum { MIN_SHARED_KB = 163 };

enum { STAGES = 2, STAGE_BYTES = 4 << 20 };

/* Exec.state of this device. */
typedef struct CudaState {
    cudaStream_t stream;              /* all work of the Exec, in call order */
    struct MatmulState *blas;         /* gemm_cuda.c's */
    struct cusolverDnContext *solver; /* linalg.cu's; NULL until it is needed */
    struct Ranges *ranges;            /* ranges_cuda.c's */
    struct CudaRanks *ranks;          /* ranks_cuda.c's; NULL: alone */
    void *stage[STAGES];              /* pinned memory through which copies come in, in turn */
    cudaEvent_t stage_free[STAGES];
    int next_stage;
    cudaEvent_t timer[2]; /* start and stop */
    char card[256];
    bool strict; /* SAILS_STRICT=1: fresh memory is filled with NaN */
} CudaState;

/* The matmul library's handle and fixed workspace. Open returns NULL, or why not. */
const char *matmul_open(CudaState *s);
void matmul_close(CudaState *s);
void linalg_close(CudaState *s);

/* Named ranges: exec.h. */
struct Ranges *ranges_open(void);
void ranges_close(struct Ranges *r);
void ranges_push(Exec *ex, const char *name);
void ranges_pop(Exec *ex);

/* The ranks of a job: device.h. */
typedef struct CudaRanks CudaRanks;
const char *ranks_id(char id[DEVICE_JOB_ID]);
const char *ranks_join(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job);
void ranks_move(Exec *ex, struct Comm *c, const Move *move, int n);
void ranks_wait(CudaState *s); /* for all work so far; this and the next only with ranks */
void ranks_wait_event(CudaState *s, cudaEvent_t event);
void ranks_arrive(Exec *ex);
void ranks_part(Exec *ex);
void ranks_abandon(CudaState *s); /* without the others: they may wait for this rank */

static inline CudaState *cuda_state(Exec *ex) {
    return (CudaState *)ex->state;
}

#define CUDA_CHECK(call)                                                               \
    do {                                                                               \
        cudaError_t error_ = (call);                                                   \
        CHECK(error_ == cudaSuccess, "%s: %s (%s)", #call, cudaGetErrorString(error_), \
              cudaGetErrorName(error_));                                               \
    } while (0)

/* Ends every launch: with SAILS_SYNC=1 a fault is reported here, under the name of its kernel. */
static inline void cuda_launched(Exec *ex, cudaError_t error, const char *kernel) {
    if (error == cudaSuccess && ex->sync_always)
        error = cudaStreamSynchronize(cuda_state(ex)->stream);
    CHECK(error == cudaSuccess, "%s: %s (%s)", kernel, cudaGetErrorString(error),
          cudaGetErrorName(error));
}

#ifdef __cplusplus
}
#endif
#endif
