/* safetensors: files written byte by byte here, so that reader and writer cannot share a mistake;
 * a table of hostile headers, each with the message that it must get. */
#include "data/base/safetensors.h"

#include <math.h>

#include "tests/files.h"

static const char *raw(const char *name, const char *header, uint64_t length, const void *data,
                       size_t n) {
    size_t text = strlen(header);
    char *bytes = malloc(8 + text + n + 1);
    CHECK(bytes, "out of memory");
    for (int i = 0; i < 8; i++) bytes[i] = (char)(length >> 8 * i & 0xff);
    memcpy(bytes + 8, header, text);
    if (n) memcpy(bytes + 8 + text, data, n);
    const char *path = test_file(name, bytes, 8 + text + n);
    free(bytes);
    return path;
}

static const char *file(const char *name, const char *header, const void *data, size_t n) {
    return raw(name, header, strlen(header), data, n);
}

#define T(name, dtype, shape, begin, end)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end \
    "]}"

static const struct {
    const char *header;
    size_t data;
    const char *message;
} HOSTILE[] = {
    {"", 0, "start with '{'"},
    {" {}", 0, "start with '{'"},
    {"[]", 0, "start with '{'"},
    {"{", 0, "valid JSON"},
    {"{}x", 0, "valid JSON"},
    {"{\"a\":{},\"a\":{}}", 0, "duplicate object key"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "4", "8") "}", 8,
     "duplicate object key"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
     "duplicate object key"},
    {"{\"a\\u0000b\":{}}", 0, "valid JSON"},
    {"{\"\xff\":{}}", 0, "valid JSON"},
    {"{\"a\":1}", 0, "tensor a: expected {dtype, shape, data_offsets}"},
    {"{\"a\":{}}", 0, "tensor a: expected a known dtype, found none"},
    {"{" T("a", "F33", "[1]", "0", "4") "}", 4, "expected a known dtype, found F33"},
    {"{\"a\":{\"dtype\":4,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "found none"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":0}}", 4, "found \"x\""},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\" to be a list"},
    {"{" T("a", "F32", "4", "0", "4") "}", 4, "\"shape\" to be a list"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "at most 8 dims, found 9"},
    {"{" T("a", "F32", "[-1]", "0", "4") "}", 4, "dims to be integers"},
    {"{" T("a", "F32", "[1.0]", "0", "4") "}", 4, "dims to be integers"},
    {"{" T("a", "F32", "[\"1\"]", "0", "4") "}", 4, "dims to be integers"},
    {"{" T("a", "F32", "[true]", "0", "4") "}", 4, "dims to be integers"},
    {"{" T("a", "F32", "[4294967296,4294967296]", "0", "4") "}", 4, "a shape that memory can hold"},
    {"{" T("a", "F32", "[4611686018427387905,1]", "0", "4") "}", 4, "a shape that memory can hold"},
    {"{" T("a", "F32", "[9223372036854775808]", "0", "4") "}", 4, "too big integer"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets to be two integers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "two integers"},
    {"{" T("a", "F32", "[1]", "-4", "0") "}", 4, "two integers >= 0"},
    {"{" T("a", "F32", "[1]", "0.0", "4.0") "}", 4, "two integers >= 0"},
    {"{" T("a", "F32", "[1]", "1e400", "4") "}", 4, "overflow"},
    {"{" T("a", "F32", "[1]", "4", "0") "}", 4, "do not lie in the 4 bytes"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 3, "do not lie in the 3 bytes"},
    {"{" T("a", "F32", "[1]", "9223372036854775803", "9223372036854775807") "}", 4, "do not lie"},
    {"{" T("a", "F32", "[1]", "0", "8") "}", 8, "needs 4 bytes, its data_offsets hold 8"},
    {"{" T("a", "F32", "[2]", "0", "4") "}", 4, "needs 8 bytes, its data_offsets hold 4"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "2", "6") "}", 6,
     "a and b overlap"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "0", "4") "}", 4, "overlap"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[0]", "2", "2") "}", 4, "overlap"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "5", "9") "}", 9,
     "found 1 bytes before tensor b"},
    {"{" T("a", "F32", "[1]", "1", "5") "}", 5, "found 1 bytes before tensor a"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 7, "found 3 bytes"},
    {"{}", 1, "found 1 bytes"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ to be an object"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\" to be a string"},
    {"{\"__metadata__\":{\"k\":{}}}", 0, "\"k\" to be a string"},
};

static void test_hostile(void) {
    char data[16] = {0};
    StSet *set;
    Err err;
    for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++) {
        const char *path = file("hostile", HOSTILE[i].header, data, HOSTILE[i].data);
        EXPECT_REFUSED(st_open(&set, path, &err), err, EXIT_INPUT, HOSTILE[i].message);
        EXPECT(!set, "a set was left behind");
        EXPECT(strstr(err.text, path), "expected the file's name in: %s", err.text);
    }
}

static void test_lengths(void) {
    StSet *set;
    Err err;
    static const uint64_t length[] = {3, 1 << 20, 0xffffffffffffffffu, 0x8000000000000000u};
    for (int i = 0; i < 4; i++)
        EXPECT_REFUSED(st_open(&set, raw("length", "{}", length[i], NULL, 0), &err), err,
                       EXIT_INPUT, "; fetch or make the file again");
    for (size_t n = 1; n < 8; n++)
        EXPECT_REFUSED(st_open(&set, test_file("short", "\2\0\0\0\0\0\0", n), &err), err,
                       EXIT_INPUT, "; fetch or make the file again");
    EXPECT_REFUSED(st_open(&set, test_file("none", "", 0), &err), err, EXIT_INPUT, "not empty");
    EXPECT_REFUSED(st_open(&set, test_path(""), &err), err, EXIT_INPUT, "a folder");
    EXPECT_REFUSED(st_open(&set, test_path("absent"), &err), err, EXIT_INPUT, "No such file");

    const char *path = raw("large", "{", ST_MAX_HEADER + 1u, NULL, 0); /* and sparse up to there */
    CHECK(truncate(path, ST_MAX_HEADER + 100L) == 0, "truncate");
    EXPECT_REFUSED(st_open(&set, path, &err), err, EXIT_INPUT, "header of at most 100000000 bytes");
}

/* A file cut anywhere is refused: every byte of it is accounted for. */
static void test_truncated(void) {
    float data[4] = {1, 2, 3, 4};
    const char *path = file("whole", "{" T("a", "F32", "[2,2]", "0", "16") "}", data, sizeof data);
    StSet *set;
    Err err;
    char *bytes;
    size_t n;
    CHECK(files_read(&bytes, &n, path, 4096, &err), "%s", err.text);
    for (size_t cut = 0; cut < n; cut++)
        EXPECT_REFUSED(st_open(&set, test_file("cut", bytes, cut), &err), err, EXIT_INPUT, "cut: ");
    EXPECT(st_open(&set, test_file("cut", bytes, n), &err), "%s", err.text);
    st_close(set);
    free(bytes);
}

static void test_valid(void) {
    float data[3] = {1, -2, 3};
    StSet *set;
    Err err;
    /* Declared against the order of the data and of the names, padded with spaces. */
    const char *path =
        file("valid",
             "{" T("b", "F32", "[2]", "4", "12") ",\"__metadata__\":{\"k\":\"v\"}," T(
                 "a", "F32", "[]", "0", "4") "," T("e", "I64", "[7,0]", "4", "4") "}   ",
             data, sizeof data);
    if (!st_open(&set, path, &err)) {
        EXPECT(0, "%s", err.text);
        return;
    }
    EXPECT(st_count(set) == 3, "%zu", st_count(set));
    EXPECT(strcmp(st_at(set, 0)->name, "a") == 0 && strcmp(st_at(set, 2)->name, "e") == 0, "order");
    EXPECT(strcmp(st_metadata(set, "k"), "v") == 0 && !st_metadata(set, "x"), "metadata");
    EXPECT(!st_find(set, "c") && !st_find(set, "__metadata__"), "found what is not there");
    const StTensor *t = st_find(set, "b");
    float got[2];
    st_read_f32(t, got, 0, 2);
    EXPECT(got[0] == -2 && got[1] == 3, "%g %g", (double)got[0], (double)got[1]);
    st_read_f32(t, got, 1, 1);
    EXPECT(got[0] == 3, "%g", (double)got[0]);
    EXPECT(st_find(set, "a")->rank == 0 && st_find(set, "a")->count == 1, "scalar");
    EXPECT(st_find(set, "e")->count == 0 && st_find(set, "e")->bytes == 0, "empty");

    size_t two = 2, three = 3, none[2] = {7, 0};
    EXPECT(st_need(set, &t, "b", 1, &two, &err), "%s", err.text);
    EXPECT_REFUSED(st_need(set, &t, "c", 1, &two, &err), err, EXIT_INPUT, "tensor c, it is not");
    EXPECT_REFUSED(st_need(set, &t, "b", 1, &three, &err), err, EXIT_INPUT,
                   "tensor b: expected shape [3], found [2]");
    EXPECT_REFUSED(st_need(set, &t, "b", 0, NULL, &err), err, EXIT_INPUT, "shape [], found [2]");
    EXPECT_REFUSED(st_need(set, &t, "e", 2, none, &err), err, EXIT_INPUT,
                   "expected F32, BF16, F16 or F64, found I64");
    EXPECT_REFUSED(st_need_type(set, &t, "b", ST_F64, 1, &two, &err), err, EXIT_INPUT,
                   "expected F64, found F32");
    st_close(set);
    double wide[3] = {1 + 0x1p-24 + 0x1p-40, -1e300};
    EXPECT(st_open(&set,
                   file("wide",
                        "{" T("q", "F8_E4M3", "[2]", "16", "18") "," T("w", "F64", "[2]", "0",
                                                                       "16") "}",
                        wide, 18),
                   &err),
           "%s", err.text);
    EXPECT(st_need(set, &t, "w", 1, &two, &err), "%s", err.text);
    st_read_f32(t, got, 0, 2);
    EXPECT(got[0] == 1 + 0x1p-23f && isinf(got[1]), "%g %g", (double)got[0], (double)got[1]);
    st_read_f32(t, got, 1, 1);
    EXPECT(isinf(got[0]), "%g", (double)got[0]);
    EXPECT_REFUSED(st_need(set, &t, "q", 1, &two, &err), err, EXIT_INPUT,
                   "found F8_E4M3: quantised; give the model as it was before");
    st_close(set);
    EXPECT(st_open(&set, file("empty", "{}", NULL, 0), &err), "%s", err.text);
    EXPECT(st_count(set) == 0 && !st_find(set, "a"), "an empty file");
    st_close(set);
}

/* All 65536 halves and brain floats, against their definition in double. */
static void test_conversion(void) {
    uint16_t *bits = malloc(65536 * 2);
    float *got = malloc(65536 * 4);
    CHECK(bits && got, "out of memory");
    for (int i = 0; i < 65536; i++) bits[i] = (uint16_t)i;
    for (int bf = 0; bf < 2; bf++) {
        /* The data starts at an odd address. */
        const char *header = bf ? "{" T("x", "BF16", "[65536]", "0", "131072") "} "
                                : "{" T("x", "F16", "[65536]", "0", "131072") "}  ";
        StSet *set;
        Err err;
        CHECK(st_open(&set, file("all", header, bits, 131072), &err), "%s", err.text);
        st_read_f32(st_at(set, 0), got, 0, 65536);
        int fraction = bf ? 7 : 10, bias = bf ? 127 : 15, top = bf ? 255 : 31, wrong = 0;
        for (int i = 0; i < 65536; i++) {
            int e = (i & 0x7fff) >> fraction, f = i & ((1 << fraction) - 1);
            double want =
                e ? ldexp((1 << fraction) + f, e - bias - fraction) : ldexp(f, 1 - bias - fraction);
            if (e == top) want = f ? NAN : INFINITY;
            if (i & 0x8000) want = -want;
            double g = (double)got[i];
            wrong += isnan(want) ? !isnan(g) : !(g == want && signbit(g) == signbit(want));
        }
        EXPECT(wrong == 0, "%d of 65536 values differ, bf16 %d", wrong, bf);
        st_close(set);
    }
    free(bits), free(got);
}

static void test_writer(void) {
    const char *path = test_path("written");
    StWriter *w;
    StSet *set;
    Err err;
    double d[3] = {1, 2, 3};
    size_t three = 3, none[2] = {0, 5};
    CHECK(st_writer_open(&w, path, &err), "%s", err.text);
    st_writer_meta(w, "path", "a\xff\"\n");
    st_writer_tensor(w, "z", ST_F64, 1, &three);
    st_writer_tensor(w, "a", ST_F32, 2, none);
    st_writer_tensor(w, "b", ST_U8, 1, &three);
    for (size_t i = 0; i < sizeof d; i++) /* any piece size */
        CHECK(st_writer_data(w, (char *)d + i, 1, &err), "%s", err.text);
    CHECK(st_writer_data(w, "xyz", 3, &err), "%s", err.text);
    EXPECT(!files_exists(path), "there before it is finished");
    EXPECT(st_writer_finish(w, &err), "%s", err.text);
    CHECK(st_open(&set, path, &err), "%s", err.text);
    EXPECT(st_count(set) == 3, "%zu", st_count(set));
    EXPECT(strcmp(st_metadata(set, "path"), "a?\"\n") == 0, "%s", st_metadata(set, "path"));
    EXPECT(memcmp(st_find(set, "z")->data, d, sizeof d) == 0, "data of z");
    EXPECT(memcmp(st_find(set, "b")->data, "xyz", 3) == 0, "data of b");
    EXPECT((uintptr_t)st_find(set, "z")->data % 64 == 0, "alignment");
    EXPECT(!st_stores(st_find(set, "z"), DTYPE_F32), "F64 is no f32");
    st_close(set);

    CHECK(st_writer_open(&w, path, &err), "%s", err.text);
    st_writer_abort(w);
    EXPECT(files_exists(path), "an abort must leave the old file");
    CHECK(st_writer_open(&w, path, &err), "%s", err.text);
    EXPECT(st_writer_finish(w, &err), "%s", err.text);
    CHECK(st_open(&set, path, &err), "%s", err.text);
    EXPECT(st_count(set) == 0, "an empty file has %zu tensors", st_count(set));
    st_close(set);
    EXPECT_REFUSED(st_writer_open(&w, test_path("no/folder"), &err), err, EXIT_INPUT,
                   "No such file");
    CHECK(st_writer_open(&w, "/dev/full", &err), "%s", err.text);
    EXPECT_REFUSED(st_writer_finish(w, &err), err, EXIT_INTERNAL, "No space left");
}

static const char *index_file(const char *json) {
    return test_file("s/m.safetensors.index.json", json, strlen(json));
}

static void test_shards(void) {
    float data[2] = {1, 2};
    StSet *set;
    Err err;
    CHECK(files_mkdirs(test_path("s"), &err), "%s", err.text);
    EXPECT_REFUSED(st_open_folder(&set, test_path("s"), "m", &err), err, EXIT_INPUT,
                   "expected m.safetensors or m.safetensors.index.json");
    file("s/1", "{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "4", "8") "}", data, 8);
    file("s/2", "{" T("c", "F32", "[1]", "0", "4") "}", data, 4);
    index_file("{\"metadata\":{},\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"2\"}}");
    if (st_open_folder(&set, test_path("s"), "m", &err)) {
        EXPECT(st_count(set) == 3 && st_find(set, "c"), "%zu tensors", st_count(set));
        EXPECT(strstr(st_find(set, "c")->file, "/s/2"), "%s", st_find(set, "c")->file);
        st_close(set);
    } else {
        EXPECT(0, "%s", err.text);
    }
    index_file("{\"weight_map\":{\"a\":\"./1\",\"b\":\"1\",\"c\":\".//./2\"}}");
    EXPECT(st_open_folder(&set, test_path("s"), "m", &err) && st_count(set) == 3, "%s", err.text);
    st_close(set);
    static const struct {
        const char *json, *message;
    } BAD[] = {
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"./../s/2\"}}", "found ./../s/2"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"./\"}}", "in a file of this folder"},
        {"{}", "expected a \"weight_map\""},
        {"{\"weight_map\":[]}", "expected a \"weight_map\""},
        {"{\"weight_map\":{}}", "expected a \"weight_map\""},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"../s/2\"}}", "found ../s/2"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"/2\"}}", "found /2"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"..\"}}", "found .."},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"\"}}", "in a file of this folder"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":2}}", "found no file name"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"3\"}}", "No such file"},
        {"{\"weight_map\":{\"a\":\"1\",\"c\":\"2\"}}",
         "tensor b is in 1, the weight_map says nothing"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"2\"}}",
         "tensor b is in 1, the weight_map says 2"},
        {"{\"weight_map\":{\"a\":\"1\",\"b\":\"1\",\"c\":\"2\",\"d\":\"2\"}}",
         "tensor d is not in 2"},
        {"{\"weight_map\":{\"a\":\"1\",\"a\":\"1\"}}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        index_file(BAD[i].json);
        EXPECT_REFUSED(st_open_folder(&set, test_path("s"), "m", &err), err, EXIT_INPUT,
                       BAD[i].message);
    }
    file("s/m.safetensors", "{}", NULL, 0); /* one file wins over an index */
    EXPECT(st_open_folder(&set, test_path("s"), "m", &err) && st_count(set) == 0, "one file");
    st_close(set);
}

int main(void) {
    test_hostile();
    test_lengths();
    test_truncated();
    test_valid();
    test_conversion();
    test_writer();
    test_shards();
    return test_done("test_safetensors");
}
