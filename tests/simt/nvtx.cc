/* nvtx.cc - a profiler: NVTX loads it as it would load Nsight's. It appends a line to the file that
 * SIMT_RANGES names for each range that begins: the domain and all open ranges, "sails: step 1 /
 * microbatch 1", after a "+" if a profiler that waits for cudaProfilerStart would record it, else
 * a "-". A range that ends without having begun, and one that never ends, stop the process. */
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "tests/simt/simt.h"

using namespace simt;

bool simt::profiler_records = false;

static std::string domain;
static std::vector<std::string> open_ranges;
static FILE *file;

static nvtxDomainHandle_t create(const char *name) {
    domain = name;
    return (nvtxDomainHandle_t)&domain;
}

static int push(nvtxDomainHandle_t, const nvtxEventAttributes_t *event) {
    open_ranges.push_back(event->message.ascii);
    fprintf(file, "%c %s:", profiler_records ? '+' : '-', domain.c_str());
    for (size_t i = 0; i < open_ranges.size(); i++)
        fprintf(file, "%s %s", i ? " /" : "", open_ranges[i].c_str());
    fputc('\n', file);
    return (int)open_ranges.size() - 1;
}

static int pop(nvtxDomainHandle_t) {
    if (open_ranges.empty()) fail("a range ends that has not begun");
    open_ranges.pop_back();
    return (int)open_ranges.size();
}

static void finish() {
    if (!open_ranges.empty()) fail("the range %s has not ended", open_ranges.back().c_str());
    fclose(file);
}

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(
    NvtxGetExportTableFunc_t get_table) {
    auto callbacks = (const NvtxExportTableCallbacks *)get_table(NVTX_ETID_CALLBACKS);
    const char *path = getenv("SIMT_RANGES");
    NvtxFunctionTable core;
    unsigned size = 0;
    if (!path || !callbacks ||
        !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &core, &size))
        return 0;
    file = fopen(path, "a");
    if (!file) fail("%s cannot be written", path);
    *core[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create;
    *core[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
    *core[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
    atexit(finish);
    return 1;
}
