/* nccl_fault.cc - faults of machines and networks, for whoever watches over ranks.
 *
 * SAILS_NCCL_FAULT=rank:call:kind, several after commas. `call` counts what the rank launches, from
 * 0, groups as one. Kinds:
 *   dies           the process is killed
 *   stops          the process is stopped, as by SIGSTOP
 *   error          the communicator fails with ncclRemoteError; the call never ends
 *   late:SECONDS   the rank comes that much later
 *   init           the communicator never starts; `call` is not used
 *   abort-hangs    ncclCommAbort never returns; likewise */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/simt/nccl_comm.h"

namespace simt {

namespace {

struct Fault {
    int rank;
    uint64_t call;
    std::string kind;
    double seconds;
};

FaultAt point_of(const std::string &kind) {
    return kind == "init" ? AT_START : kind == "abort-hangs" ? AT_ABORT : AT_CALL;
}

std::vector<Fault> read_faults() {
    std::vector<Fault> all;
    const char *text = getenv("SAILS_NCCL_FAULT");
    for (const char *at = text; at && *at;) {
        size_t length = strcspn(at, ",");
        std::string one(at, length);
        at += length + (at[length] == ',');
        unsigned long long call;
        char kind[16];
        Fault f = {};
        int fields = sscanf(one.c_str(), "%d:%llu:%15[^:]:%lf", &f.rank, &call, kind, &f.seconds);
        f.call = call, f.kind = fields < 3 ? "" : kind;
        bool known = f.kind == "dies" || f.kind == "stops" || f.kind == "error" ||
                     f.kind == "init" || f.kind == "abort-hangs" || f.kind == "late";
        if (!known || (fields == 4) != (f.kind == "late"))
            fail("SAILS_NCCL_FAULT: expected rank:call:kind, got %s", one.c_str());
        all.push_back(f);
    }
    return all;
}

}  // namespace

bool fault(FaultAt at, int rank, uint64_t call) {
    static const std::vector<Fault> faults = read_faults();
    for (const Fault &f : faults) {
        if (f.rank != rank || point_of(f.kind) != at || (at == AT_CALL && f.call != call)) continue;
        if (f.kind == "dies") raise(SIGKILL);
        if (f.kind == "stops") raise(SIGSTOP);
        if (f.kind == "late") usleep((useconds_t)(1e6 * f.seconds));
        if (f.kind == "abort-hangs")
            for (;;) pause();
        if (f.kind == "init" || f.kind == "error") return true;
    }
    return false;
}

}  // namespace simt
