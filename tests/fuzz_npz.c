/* Fuzzing of the npz reader: any bytes as an archive with members a and b. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/base/mem.h"
#include "host/base/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file = -1;
static char path[64];

static void check_err(const Err *err) {
    CHECK(err->code == EXIT_INPUT && strstr(err->text, path) && !strchr(err->text, '\n'),
          "code %d: %s", (int)err->code, err->text);
}

static void check_member(Npz *z, const char *name) {
    int rank;
    size_t dim[4], count = 1;
    Err err;
    if (!npz_shape(z, name, &rank, dim, &err)) {
        check_err(&err);
        return;
    }
    CHECK(npz_has(z, name) && rank >= 0 && rank <= 4, "rank %d", rank);
    for (int i = 0; i < rank; i++) count *= dim[i];
    if (count > 1 << 20) return; /* deflate may hold it; the caller's memory must not */
    float *to = mem_array(count, sizeof *to);
    if (!npz_read_f32(z, name, to, count, &err)) check_err(&err);
    CHECK(!npz_read_f32(z, name, to, count + 1, &err), "another count");
    free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (file < 0) {
        file = memfd_create("npz", 0);
        CHECK(file >= 0, "memfd_create");
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    CHECK(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size, "memfd");
    Npz *z;
    Err err;
    if (!npz_open(&z, path, &err)) {
        check_err(&err);
        return 0;
    }
    check_member(z, "a");
    check_member(z, "b");
    npz_close(z);
    return 0;
}
