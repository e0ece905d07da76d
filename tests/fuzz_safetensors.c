/* Fuzzing of the safetensors reader: any bytes as a file, or, so that the fuzzer need not guess the
 * length in front, as a header and its data. What is accepted must keep the reader's promises. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/base/mem.h"
#include "host/base/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file = -1;
static char path[64];

static void write_file(const uint8_t *data, size_t size) {
    if (file < 0) {
        file = memfd_create("safetensors", 0);
        CHECK(file >= 0, "memfd_create");
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    const uint8_t *end = memchr(data, 0, size); /* a NUL ends the header */
    uint64_t length = end ? (uint64_t)(end - data) : size;
    bool framed = size > 0 && data[0] == '{';
    CHECK(ftruncate(file, 0) == 0 && lseek(file, 0, SEEK_SET) == 0, "memfd");
    CHECK(!framed || write(file, &length, 8) == 8, "memfd");
    CHECK(!framed || write(file, data, length) == (ssize_t)length, "memfd");
    size_t from = framed ? length + (end != NULL) : 0;
    CHECK(write(file, data + from, size - from) == (ssize_t)(size - from), "memfd");
}

static void check_tensor(const StSet *set, const StTensor *t) {
    size_t count = 1;
    const StTensor *same;
    Err err;
    float piece[64];
    CHECK(st_find(set, t->name) == t && t->rank >= 0 && t->rank <= ST_MAX_RANK, "%s", t->name);
    for (int i = 0; i < t->rank; i++) count *= t->dim[i];
    CHECK(t->count == count && t->bytes == count * st_type_size(t->type), "%s: size", t->name);
    if (st_need(set, &same, t->name, t->rank, t->dim, &err)) {
        for (size_t i = 0; i < t->count; i += 64)
            st_read_f32(t, piece, i, t->count - i < 64 ? t->count - i : 64);
    }
    volatile unsigned char byte; /* all of it must be mapped */
    for (size_t i = 0; i < t->bytes; i++) byte = ((const unsigned char *)t->data)[i];
    (void)byte;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    write_file(data, size);
    StSet *set;
    Err err;
    if (!st_open(&set, path, &err)) {
        CHECK(!set && err.code == EXIT_INPUT && strstr(err.text, path) && !strchr(err.text, '\n'),
              "code %d: %s", (int)err.code, err.text);
        return 0;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < st_count(set); i++) {
        check_tensor(set, st_at(set, i));
        CHECK(i == 0 || strcmp(st_at(set, i - 1)->name, st_at(set, i)->name) < 0, "order");
        bytes += st_at(set, i)->bytes;
    }
    CHECK(bytes <= size, "%zu bytes of tensors in %zu", bytes, size);
    st_metadata(set, "format");
    st_close(set);
    return 0;
}
