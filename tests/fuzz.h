/* fuzz.h - what the fuzzers share: a file in memory with a path, and what every refusal must be.
 *
 * A fuzzer feeds any bytes to one reader. Beside memory errors (AddressSanitizer, UBSan) it looks
 * for promises that a reader breaks: a refusal is one line that names the file, and what is
 * accepted is as the header says. */
#ifndef SAILS_TEST_FUZZ_H
#define SAILS_TEST_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/base/err.h"
#include "kernels/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct FuzzFile {
    int fd;
    char path[64];
} FuzzFile;

static inline void fuzz_file_open(FuzzFile *f, const char *name) {
    f->fd = memfd_create(name, 0);
    CHECK(f->fd >= 0, "memfd_create");
    snprintf(f->path, sizeof f->path, "/proc/self/fd/%d", f->fd);
}

/* The file then holds `size` bytes behind the `n` of `head`. */
static inline void fuzz_file_set(const FuzzFile *f, const void *head, size_t n, const void *data,
                                 size_t size) {
    CHECK(ftruncate(f->fd, 0) == 0 && (n == 0 || pwrite(f->fd, head, n, 0) == (ssize_t)n) &&
              (size == 0 || pwrite(f->fd, data, size, (off_t)n) == (ssize_t)size),
          "memfd");
}

/* The refusal of a file the user gave: its code, one line, with `part` in it. */
static inline void fuzz_refused(const Err *err, enum ExitCode code, const char *part) {
    CHECK(err->code == code && strstr(err->text, part) && !strchr(err->text, '\n'), "code %d: %s",
          (int)err->code, err->text);
}

#endif
