/* sparse_saes.c - files of SAEs in Gemma Scope's form and true size, whose arrays are zeros that
 * take no room on the disk: for checks of recipes before anything is downloaded.
 *
 *   sparse_saes FOLDER WIDTH FEATURES LAYER:L0...
 *
 * makes FOLDER/layer_LAYER/width_16k/average_l0_L0/params.npz, a zip of stored members, checksums
 * included. Nothing is learnt from such an SAE: none of its features fires. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "data/base/files.h"

enum { HEAD = 128 /* of an .npy */, LOCAL = 30, CENTRAL = 46, END = 22, ARRAYS = 5 };
enum { JANUARY_1980 = 1 << 5 | 1 };

typedef struct Member {
    const char *name;
    size_t rows, cols; /* cols 0: one dimension */
    size_t at, bytes;  /* of its local header in the archive; of its contents */
    unsigned long crc;
} Member;

static unsigned long crc_of_zeros(size_t n) {
    unsigned long half;
    if (n <= 1) return crc32(0, (const unsigned char *)"", (uInt)n);
    half = crc_of_zeros(n / 2);
    half = crc32_combine(half, half, (z_off_t)(n / 2));
    return n % 2 ? crc32_combine(half, crc_of_zeros(1), 1) : half;
}

/* Appends a number, the low byte first; returns what is behind it. */
static unsigned char *put(unsigned char *to, int bytes, size_t value) {
    for (int i = 0; i < bytes; i++) *to++ = (unsigned char)(value >> 8 * i & 0xff);
    return to;
}

/* What the local and the central header have in common, from the flags on. */
static unsigned char *put_common(unsigned char *to, const Member *m) {
    to = put(to, 2, 0), to = put(to, 2, 0), to = put(to, 2, 0); /* flags, stored, time */
    to = put(to, 2, JANUARY_1980);
    to = put(to, 4, m->crc), to = put(to, 4, m->bytes), to = put(to, 4, m->bytes);
    return put(put(to, 2, strlen(m->name)), 2, 0);
}

static bool write_member(OutFile *f, Member *m, size_t *at, Err *err) {
    char head[HEAD], shape[64];
    unsigned char local[LOCAL];
    if (m->cols)
        snprintf(shape, sizeof shape, "(%zu, %zu)", m->rows, m->cols);
    else
        snprintf(shape, sizeof shape, "(%zu,)", m->rows);
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes follow */
    int n = snprintf(head + 10, sizeof head - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    head[10 + n] = ' ', head[HEAD - 1] = '\n';
    size_t zeros = m->rows * (m->cols ? m->cols : 1) * sizeof(float);
    m->bytes = HEAD + zeros;
    m->at = *at;
    m->crc =
        crc32_combine(crc32(0, (unsigned char *)head, HEAD), crc_of_zeros(zeros), (z_off_t)zeros);
    put_common(put(put(local, 4, 0x04034b50), 2, 20), m);
    *at += LOCAL + strlen(m->name) + m->bytes;
    return files_put(f, local, LOCAL, err) && files_put(f, m->name, strlen(m->name), err) &&
           files_put(f, head, HEAD, err) && files_hole(f, zeros, err);
}

/* The directory of the archive, and its end. */
static bool write_directory(OutFile *f, const Member *m, size_t at, Err *err) {
    size_t bytes = 0;
    bool ok = true;
    for (int i = 0; i < ARRAYS && ok; i++) {
        unsigned char entry[CENTRAL] = {0}; /* no comment, first disk, no attributes */
        put_common(put(put(put(entry, 4, 0x02014b50), 2, 20), 2, 20), &m[i]);
        put(entry + CENTRAL - 4, 4, m[i].at);
        ok = files_put(f, entry, CENTRAL, err) && files_put(f, m[i].name, strlen(m[i].name), err);
        bytes += CENTRAL + strlen(m[i].name);
    }
    unsigned char end[END] = {0}, *to = put(put(end, 4, 0x06054b50), 4, 0);
    put(put(put(put(to, 2, ARRAYS), 2, ARRAYS), 4, bytes), 4, at);
    return ok && files_put(f, end, END, err);
}

static bool write_sae(const char *path, size_t D, size_t S, Err *err) {
    Member m[ARRAYS] = {{.name = "W_enc.npy", .rows = D, .cols = S},
                        {.name = "W_dec.npy", .rows = S, .cols = D},
                        {.name = "b_enc.npy", .rows = S},
                        {.name = "b_dec.npy", .rows = D},
                        {.name = "threshold.npy", .rows = S}};
    OutFile *f;
    size_t at = 0;
    bool ok = files_create(&f, path, err);
    if (!ok) return false;
    for (int i = 0; i < ARRAYS && ok; i++) ok = write_member(f, &m[i], &at, err);
    if (ok && write_directory(f, m, at, err)) return files_commit(f, err);
    files_abandon(f);
    return false;
}

int main(int argc, char **argv) {
    Err err;
    char path[4096];
    size_t D = argc > 4 ? strtoul(argv[2], NULL, 10) : 0;
    size_t S = argc > 4 ? strtoul(argv[3], NULL, 10) : 0;
    if (D < 1 || S < 1 || D > 1 << 14 || S > 1 << 14) {
        fputs("usage: sparse_saes FOLDER WIDTH FEATURES LAYER:L0...\n", stderr);
        return EXIT_USAGE;
    }
    for (int i = 4; i < argc; i++) {
        int layer, l0;
        if (sscanf(argv[i], "%d:%d", &layer, &l0) != 2) {
            fprintf(stderr, "sparse_saes: expected LAYER:L0, got %s\n", argv[i]);
            return EXIT_USAGE;
        }
        snprintf(path, sizeof path, "%.3000s/layer_%d/width_16k/average_l0_%d", argv[1], layer, l0);
        bool ok = files_mkdirs(path, &err);
        strcat(path, "/params.npz");
        if (!ok || !write_sae(path, D, S, &err)) {
            fprintf(stderr, "sparse_saes: %s\n", err.text);
            return err.code;
        }
    }
    return 0;
}
