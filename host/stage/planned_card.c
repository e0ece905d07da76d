/* planned_card.c - the CPU device with a card's memory in place of its own. */
#include "host/stage/planned_card.h"

#include "kernels/cuda_memory.h"
#include "kernels/device.h"

static Device card;
static double card_bytes;

/* What the driver and the workspace have left. */
static bool card_memory(Exec *ex, size_t *available, size_t *all) {
    double taken = (double)CONTEXT_BYTES + MATMUL_BYTES + SCRATCH_BYTES;
    (void)ex;
    *all = (size_t)card_bytes;
    *available = card_bytes > taken ? (size_t)(card_bytes - taken) : 0;
    return true;
}

/* Cards move bytes behind their work: that is what a device with a `join` says. */
static const char *card_join(Exec *ex, const char id[DEVICE_JOB_ID], const DeviceJob *job) {
    (void)ex, (void)id, (void)job;
    return "a card that is planned for joins no other";
}

bool planned_card_open(Exec *ex, double bytes, enum Dtype dtype, Err *err) {
    const char *why = exec_open_cpu(ex, CPU_AUTO, dtype);
    if (why) return err_set(err, EXIT_USAGE, "--gpu-memory: %s", why);
    card_bytes = bytes;
    card = *ex->device;
    card.memory = card_memory;
    card.maps_host = false;
    card.join = card_join;
    card.lazy_kernels = LAZY_KERNEL_BYTES;
    card.lazy_libraries = LAZY_LIBRARY_BYTES;
    card.lazy_peer = PEER_BYTES;
    ex->device = &card;
    return true;
}

bool planned_card(const Exec *ex) {
    return ex->device == &card;
}

bool planned_device(Runtime *r, const Settings *s, Comm *comm, Err *err) {
    if (!(s->plan.gpu_memory > 0)) return runtime_device(r, s, comm, err);
    enum Dtype dtype = s->model.dtype ? (enum Dtype)(s->model.dtype - 1) : DTYPE_BF16;
    return planned_card_open(&r->ex, 1e9 * s->plan.gpu_memory, dtype, err);
}
