/* The real NCCL, if it is installed: it loads beside the stand-in, has the calls that ranks_cuda.c
 * makes, gives an id without a GPU, and says in words why it cannot begin where there is none. */
#include <dlfcn.h>
#include <nccl.h>
#include <stdio.h>
#include <string.h>

#include "kernels/check.h"

template <class F>
static F *symbol(void *lib, const char *name) {
    void *p = dlsym(lib, name);
    CHECK(p, "NCCL has no %s", name);
    return (F *)p;
}

int main() {
    void *lib = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!lib) lib = dlopen(SAILS_NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!lib) {
        printf("nccl_library: there is none here (%s)\n", dlerror());
        return 77;
    }
    for (const char *name : {"ncclCommGetAsyncError", "ncclGroupStart", "ncclGroupEnd", "ncclSend",
                             "ncclRecv", "ncclCommFinalize", "ncclCommDestroy"})
        symbol<void>(lib, name);
    int version = 0;
    ncclUniqueId id;
    ncclComm_t comm = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    CHECK(symbol<decltype(ncclGetVersion)>(lib, "ncclGetVersion")(&version) == ncclSuccess &&
              version >= 21400,
          "version %d", version);
    ncclResult_t r = symbol<decltype(ncclGetUniqueId)>(lib, "ncclGetUniqueId")(&id);
    CHECK(r == ncclSuccess, "no id without a GPU: %d", r);
    r = symbol<decltype(ncclCommInitRankConfig)>(lib, "ncclCommInitRankConfig")(&comm, 1, id, 0,
                                                                                &config);
    if (r == ncclSuccess || r == ncclInProgress) {
        printf("nccl_library: version %d begins here: a GPU\n", version);
        return 0;
    }
    const char *what = symbol<decltype(ncclGetErrorString)>(lib, "ncclGetErrorString")(r);
    const char *why = symbol<decltype(ncclGetLastError)>(lib, "ncclGetLastError")(nullptr);
    CHECK(what && *what && why && *why, "NCCL gives no reason for %d", r);
    printf("nccl_library: version %d: %s: %s\n", version, what, why);
    return 0;
}
