/* Fuzzing of the npz reader: any bytes as an archive with members a and b. */
#include "data/base/mem.h"
#include "data/base/npz.h"
#include "tests/fuzz.h"

static FuzzFile file;

static void check_member(Npz *z, const char *name) {
    int rank;
    size_t dim[4], count = 1;
    Err err;
    if (!npz_shape(z, name, &rank, dim, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return;
    }
    CHECK(npz_has(z, name) && rank >= 0 && rank <= 4, "rank %d", rank);
    for (int i = 0; i < rank; i++) count *= dim[i];
    if (count > 1 << 20) return; /* deflate may hold it; the caller's memory must not */
    float *to = mem_array(count, sizeof *to);
    NpzStream *s;
    bool ok = npz_stream_open(&s, z, name, &err);
    if (ok) {
        ok = npz_stream_next(s, to, count / 2, &err) &&
             npz_stream_next(s, to + count / 2, count - count / 2, &err);
        npz_stream_close(s);
    }
    if (!ok) fuzz_refused(&err, EXIT_INPUT, file.path);
    free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!file.path[0]) fuzz_file_open(&file, "npz");
    fuzz_file_set(&file, NULL, 0, data, size);
    Npz *z;
    Err err;
    if (!npz_open(&z, file.path, &err)) {
        fuzz_refused(&err, EXIT_INPUT, file.path);
        return 0;
    }
    check_member(z, "a");
    check_member(z, "b");
    npz_close(z);
    return 0;
}
