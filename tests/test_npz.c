/* npz: archives made here with chosen header bytes, stored and deflated; the fixture of
 * test_sae_files comes from NumPy itself. */
#include "data/base/npz.h"

#include <math.h>

#include <zip.h>

#include "tests/files.h"

typedef struct Bytes {
    char p[70000];
    size_t n;
} Bytes;

static void put(Bytes *b, const void *p, size_t n) {
    CHECK(b->n + n <= sizeof b->p, "%zu bytes", n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

/* magic, version, length of the dict, dict, data */
static Bytes npy(int version, const char *dict, const void *data, size_t n) {
    Bytes b = {.n = 0};
    size_t length = strlen(dict);
    char head[12] = {
        (char)0x93,         'N', 'U', 'M', 'P', 'Y', (char)version, 0, (char)(length & 0xff),
        (char)(length >> 8)};
    put(&b, head, version == 1 ? 10 : 12);
    put(&b, dict, length);
    put(&b, data, n);
    return b;
}

/* An archive with one member, x.npy. */
static const char *archive(const char *name, const Bytes *b, int method) {
    const char *path = test_path(name);
    int code;
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    CHECK(z, "zip %d", code);
    zip_int64_t i = zip_file_add(z, "x.npy", zip_source_buffer(z, b->p, b->n, 0), 0);
    CHECK(i >= 0 && zip_set_file_compression(z, (zip_uint64_t)i, method, 0) == 0, "add");
    CHECK(zip_close(z) == 0, "%s", zip_strerror(z));
    return path;
}

static bool read_x(float *to, size_t count, const char *path, Err *err) {
    Npz *z;
    if (!npz_open(&z, path, err)) return false;
    int rank;
    size_t dim[4], n = 1;
    NpzStream *s;
    bool ok = npz_shape(z, "x", &rank, dim, err) && npz_stream_open(&s, z, "x", err);
    if (ok) {
        for (int i = 0; i < rank; i++) n *= dim[i];
        CHECK(n <= count, "%zu elements where %zu are expected", n, count);
        ok = npz_stream_next(s, to, n, err);
        npz_stream_close(s);
    }
    npz_close(z);
    return ok;
}

#define D(descr, order, shape) \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }  \n"

static const struct {
    int version;
    const char *dict;
    size_t data;
    const char *message;
} HOSTILE[] = {
    {0, D("<f4", "False", "(3,)"), 12, "format 1.0, 2.0 or 3.0"},
    {4, D("<f4", "False", "(3,)"), 12, "format 1.0, 2.0 or 3.0"},
    {1, "", 12, "expected a NumPy header"},
    {1, "{}", 12, "descr, fortran_order, shape"},
    {1, "{'descr': '<f4', 'fortran_order': False}", 12, "descr, fortran_order, shape"},
    {1, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", 12,
     "of descr, fortran_order and shape"},
    {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': 1}", 12,
     "of descr, fortran_order and shape"},
    {1, "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}", 12, "expected a NumPy header"},
    {1, D("<f4", "False", "(3,)") "x", 12, "nothing behind the NumPy header"},
    {1, D("<f4", "True", "(1,1,3)"), 12, "numpy.ascontiguousarray"},
    {1, D("<f4", "0", "(3,)"), 12, "fortran_order True or False"},
    {1, D(">f4", "False", "(3,)"), 12, "v.astype('<f4')"},
    {1, D("|V2", "False", "(6,)"), 12, "v.astype('<f4')"},
    {1, D("|O", "False", "(3,)"), 12, "little-endian float16, float32 or float64"},
    {1, D(">f4", "False", "(3,)"), 12, "little-endian"},
    {1, D("<i4", "False", "(3,)"), 12, "little-endian"},
    {1, D("<f16", "False", "(3,)"), 48, "little-endian"},
    {1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", 12, "little-endian"},
    {1, D("<f4", "False", "3"), 12, "expected a shape"},
    {1, D("<f4", "False", "(3"), 12, "expected a shape"},
    {1, D("<f4", "False", "(-3,)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(3.0,)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(03,)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(,3)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(3 1)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(1,1,1,1,3)"), 12, "at most 4 sizes"},
    {1, D("<f4", "False", "(99999999999999999999,)"), 12, "expected a shape"},
    {1, D("<f4", "False", "(4294967296,4294967296)"), 12, "a shape that memory can hold"},
    {1, D("<f4", "False", "(4611686018427387907,)"), 12, "a shape that memory can hold"},
    {1, D("<f4", "False", "(4,)"), 12, "needs 16 bytes, it holds 12"},
    {1, D("<f4", "False", "(2,)"), 12, "needs 8 bytes, it holds 12"},
    {1, D("<f4", "False", "()"), 12, "needs 4 bytes, it holds 12"},
    {1, D("<f4", "False", "(0,)"), 12, "needs 0 bytes, it holds 12"},
    {1, D("<f8", "False", "(3,)"), 12, "needs 24 bytes, it holds 12"},
    {1, D("<f4", "False", "(1,3)"), 12, NULL}, /* good: the table itself can be trusted */
};

static void test_hostile(void) {
    float data[12] = {1, 2, 3}, got[3];
    Err err;
    for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++) {
        Bytes b = npy(HOSTILE[i].version, HOSTILE[i].dict, data, HOSTILE[i].data);
        const char *path = archive("hostile.npz", &b, ZIP_CM_STORE);
        if (HOSTILE[i].message) {
            EXPECT_REFUSED(read_x(got, 3, path, &err), err, EXIT_INPUT, HOSTILE[i].message);
            EXPECT(strstr(err.text, "member x.npy"), "expected the member in: %s", err.text);
        } else {
            EXPECT(read_x(got, 3, path, &err) && got[2] == 3, "%s", err.text);
        }
    }
    Bytes b = npy(1, D("<f4", "False", "(3,)"), data, 12);
    b.p[1] = 'X';
    EXPECT_REFUSED(read_x(got, 3, archive("x.npz", &b, ZIP_CM_STORE), &err), err, EXIT_INPUT,
                   "expected a NumPy array");
    for (size_t n = 0; n < 10; n++) {
        b.n = n;
        EXPECT_REFUSED(read_x(got, 3, archive("x.npz", &b, ZIP_CM_STORE), &err), err, EXIT_INPUT,
                       "ends too early");
    }
    b = npy(2, D("<f4", "False", "(3,)"), data, 12);
    b.p[11] = 0x7f; /* a header of 2 GB */
    EXPECT_REFUSED(read_x(got, 3, archive("x.npz", &b, ZIP_CM_STORE), &err), err, EXIT_INPUT,
                   "its header is too long");
    b.p[11] = 0, b.p[10] = 1;
    EXPECT_REFUSED(read_x(got, 3, archive("x.npz", &b, ZIP_CM_STORE), &err), err, EXIT_INPUT,
                   "its header is too long");
    b.p[10] = 0, b.p[9] = (char)0xff;
    EXPECT_REFUSED(read_x(got, 3, archive("x.npz", &b, ZIP_CM_STORE), &err), err, EXIT_INPUT,
                   "ends too early");
}

static void test_values(void) {
    float f4[6] = {1, -2, 3, 0x1p-149f, -0.0f, 1e38f}, got[6];
    double f8[6] = {1, -2, 3, 1 + 0x1p-24 + 0x1p-40, 1e-300, 0.1};
    uint16_t f2[6] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x8000, 0x3555};
    const float half[6] = {1, -2, 0x1p-24f, 65504, -0.0f, 0x1.554p-2f};
    Err err;
    for (int deflate = 0; deflate < 2; deflate++) {
        int method = deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE;
        for (int version = 1; version <= 3; version++) {
            Bytes b = npy(version, D("<f4", "False", "(2, 3)"), f4, sizeof f4);
            EXPECT(read_x(got, 6, archive("v.npz", &b, method), &err), "%s", err.text);
            EXPECT(memcmp(got, f4, sizeof f4) == 0, "f4, version %d, method %d", version, method);
        }
        Bytes b = npy(1, D("<f8", "False", "(6,)"), f8, sizeof f8);
        EXPECT(read_x(got, 6, archive("v.npz", &b, method), &err), "%s", err.text);
        for (int i = 0; i < 6; i++) EXPECT(got[i] == (float)f8[i], "f8 %d", i);
        b = npy(1, D("<f2", "False", "(1, 2, 1, 3)"), f2, sizeof f2);
        EXPECT(read_x(got, 6, archive("v.npz", &b, method), &err), "%s", err.text);
        EXPECT(memcmp(got, half, sizeof half) == 0, "f2");
    }
    const float turned[6] = {1, 3, -0.0f, -2, 0x1p-149f, 1e38f};
    Bytes b = npy(1, D("<f4", "True", "(2, 3)"), f4, sizeof f4);
    EXPECT(read_x(got, 6, archive("v.npz", &b, ZIP_CM_DEFLATE), &err), "%s", err.text);
    EXPECT(memcmp(got, turned, sizeof turned) == 0, "f4 in Fortran order");
    b = npy(1, D("<f8", "True", "(3, 2)"), f8, sizeof f8);
    EXPECT(read_x(got, 6, archive("v.npz", &b, ZIP_CM_STORE), &err), "%s", err.text);
    for (int i = 0; i < 6; i++)
        EXPECT(got[i] == (float)f8[i % 2 * 3 + i / 2], "f8 %d in Fortran order", i);
    b = npy(1, D("<f4", "True", "(6,)"), f4, sizeof f4);
    EXPECT(read_x(got, 6, archive("v.npz", &b, ZIP_CM_STORE), &err), "%s", err.text);
    EXPECT(memcmp(got, f4, sizeof f4) == 0, "a vector has one order");
    b = npy(1, D("<f4", "False", "(2, 3)"), f4, sizeof f4);
    const char *path = archive("v.npz", &b, ZIP_CM_DEFLATE);
    Npz *z;
    int rank;
    size_t dim[4];
    CHECK(npz_open(&z, path, &err), "%s", err.text);
    EXPECT(npz_has(z, "x") && !npz_has(z, "y") && !npz_has(z, "x.npy"), "has");
    EXPECT(npz_shape(z, "x", &rank, dim, &err), "%s", err.text);
    EXPECT(rank == 2 && dim[0] == 2 && dim[1] == 3 && dim[2] == 0, "shape");
    EXPECT_REFUSED(npz_shape(z, "y", &rank, dim, &err), err, EXIT_INPUT,
                   "expected member y.npy, the archive holds: x.npy");
    npz_close(z);
    npz_close(NULL);
}

/* Each byte of an archive flipped, and the archive cut at each byte: refused, or read as it was
 * (a byte that carries no meaning), never another value and never a crash. */
static void test_damage(int method) {
    float data[40], got[40];
    for (int i = 0; i < 40; i++) data[i] = (float)test_noise(1, (uint64_t)i / 3);
    Bytes b = npy(1, D("<f4", "False", "(40,)"), data, sizeof data);
    char *bytes;
    size_t n, refused = 0;
    Err err;
    CHECK(files_read(&bytes, &n, archive("d.npz", &b, method), 4096, &err), "%s", err.text);
    for (size_t i = 0; i < 2 * n; i++) {
        if (i < n) bytes[i] ^= 0x55;
        memset(got, 0, sizeof got);
        bool ok = read_x(got, 40, test_file("d.npz", bytes, i < n ? n : i - n), &err);
        EXPECT(!ok || memcmp(got, data, sizeof data) == 0, "byte %zu of %zu changed a value", i, n);
        refused += !ok;
        if (i < n) bytes[i] ^= 0x55;
    }
    EXPECT(refused > n + sizeof data / 2, "only %zu of %zu damaged archives refused", refused,
           2 * n);
    free(bytes);
}

static void test_no_archive(void) {
    Npz *z;
    Err err;
    EXPECT_REFUSED(npz_open(&z, test_path("none"), &err), err, EXIT_INPUT, "No such file");
    EXPECT_REFUSED(npz_open(&z, test_file("text", "hello", 5), &err), err, EXIT_INPUT,
                   "expected a .npz archive: ");
    EXPECT_REFUSED(npz_open(&z, test_file("void", "", 0), &err), err, EXIT_INPUT,
                   "expected a .npz archive");
}

int main(void) {
    test_hostile();
    test_values();
    test_damage(ZIP_CM_STORE);
    test_damage(ZIP_CM_DEFLATE);
    test_no_archive();
    return test_done("test_npz");
}
