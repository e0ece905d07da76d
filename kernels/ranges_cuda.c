/* ranges_cuda.c - named ranges as profilers see them, and what of a run they record. */
#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda.h"

/* Where a run is that has SAILS_CAPTURE. ALL: it has not. */
enum Stage { ALL, BEFORE, WITHIN, AFTER };

typedef struct Ranges {
    nvtxDomainHandle_t domain;
    enum Stage stage;
    char *first, *last;    /* of SAILS_CAPTURE; one block of memory */
    int depth, last_depth; /* of the open range; of the one called `last`, 0: it has not begun */
} Ranges;

Ranges *ranges_open(void) {
    Ranges *r = calloc(1, sizeof *r);
    CHECK(r, "out of memory");
    r->domain = nvtxDomainCreateA("sails");
    const char *capture = getenv("SAILS_CAPTURE");
    if (!capture) return r;
    r->first = strdup(capture);
    CHECK(r->first, "out of memory");
    r->last = strchr(r->first, ':');
    CHECK(r->last, "expected SAILS_CAPTURE=first:last, got %s", capture);
    *r->last++ = 0;
    r->stage = BEFORE;
    return r;
}

void ranges_close(Ranges *r) {
    CHECK(r->depth == 0, "expected all ranges closed, %d are open", r->depth);
    nvtxDomainDestroy(r->domain);
    free(r->first);
    free(r);
}

/* Work is done later than it is asked for: what lies on the other side of a border must be over. */
static void enter(Exec *ex, enum Stage stage) {
    ex->device->sync(ex);
    CUDA_CHECK(stage == WITHIN ? cudaProfilerStart() : cudaProfilerStop());
    cuda_state(ex)->ranges->stage = stage;
}

void ranges_push(Exec *ex, const char *name) {
    Ranges *r = cuda_state(ex)->ranges;
    nvtxEventAttributes_t event = {.version = NVTX_VERSION,
                                   .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                   .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                   .message.ascii = name};
    r->depth++;
    if (r->stage == BEFORE && strcmp(name, r->first) == 0) enter(ex, WITHIN);
    if (r->stage == WITHIN && strcmp(name, r->last) == 0) r->last_depth = r->depth;
    nvtxDomainRangePushEx(r->domain, &event);
}

void ranges_pop(Exec *ex) {
    Ranges *r = cuda_state(ex)->ranges;
    CHECK(r->depth > 0, "expected a range that is open");
    nvtxDomainRangePop(r->domain);
    if (r->stage == WITHIN && r->depth == r->last_depth) enter(ex, AFTER);
    r->depth--;
}
