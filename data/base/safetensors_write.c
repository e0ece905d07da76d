/* safetensors_write.c - the writer. */
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"

enum { DATA_ALIGN = 64 };

struct StWriter {
    OutFile *file;
    json_t *header, *meta;
    size_t declared, written; /* bytes of data */
    bool streaming;           /* the header is out */
};

bool st_writer_open(StWriter **w, const char *path, Err *err) {
    OutFile *file;
    if (!files_create(&file, path, err)) return false;
    *w = mem_array(1, sizeof **w);
    (*w)->file = file;
    (*w)->header = json_object();
    (*w)->meta = json_object();
    CHECK((*w)->header && (*w)->meta, "out of memory");
    return true;
}

/* Paths may hold any bytes, JSON only UTF-8. */
static json_t *lossy_string(const char *s) {
    json_t *j = json_string(s);
    if (j) return j;
    char *ascii = mem_string(s);
    for (char *c = ascii; *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    j = json_string(ascii);
    CHECK(j, "out of memory");
    free(ascii);
    return j;
}

void st_writer_meta(StWriter *w, const char *key, const char *value) {
    CHECK(!w->streaming && !json_object_get(w->meta, key), "metadata %s: late or twice", key);
    CHECK(json_object_set_new(w->meta, key, lossy_string(value)) == 0, "metadata %s", key);
}

void st_writer_tensor(StWriter *w, const char *name, enum StType type, int rank,
                      const size_t *dim) {
    CHECK(!w->streaming && !json_object_get(w->header, name), "tensor %s: late or twice", name);
    CHECK(rank >= 0 && rank <= ST_MAX_RANK, "tensor %s: rank %d", name, rank);
    size_t bytes = st_type_size(type);
    json_t *shape = json_array();
    for (int i = 0; i < rank; i++) {
        CHECK(!__builtin_mul_overflow(bytes, dim[i], &bytes), "tensor %s is too large", name);
        json_array_append_new(shape, json_integer((json_int_t)dim[i]));
    }
    json_t *entry =
        json_pack("{s:s, s:o, s:[I,I]}", "dtype", st_type_name(type), "shape", shape,
                  "data_offsets", (json_int_t)w->declared, (json_int_t)(w->declared + bytes));
    CHECK(entry && json_object_set_new(w->header, name, entry) == 0,
          "tensor %s: expected a UTF-8 name", name);
    w->declared += bytes;
}

/* The header's length counts its padding, which are spaces: still valid JSON. */
static bool write_header(StWriter *w, Err *err) {
    json_t *all = json_object();
    CHECK(all, "out of memory");
    if (json_object_size(w->meta)) json_object_set(all, "__metadata__", w->meta);
    json_object_update(all, w->header);
    char *text = json_dumps(all, JSON_COMPACT);
    json_decref(all);
    CHECK(text, "out of memory");
    size_t n = strlen(text), padded = (n + 8 + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN - 8;
    CHECK(padded <= ST_MAX_HEADER, "a header of %zu bytes", padded);
    char length[8], spaces[DATA_ALIGN];
    for (int i = 0; i < 8; i++) length[i] = (char)(padded >> 8 * i & 0xff);
    memset(spaces, ' ', sizeof spaces);
    w->streaming = files_put(w->file, length, 8, err) && files_put(w->file, text, n, err) &&
                   files_put(w->file, spaces, padded - n, err);
    free(text);
    return w->streaming;
}

/* n more bytes of data are to come. */
static bool take(StWriter *w, size_t n, Err *err) {
    if (!w->streaming && !write_header(w, err)) return false;
    CHECK(n <= w->declared - w->written, "expected at most %zu bytes of data, got %zu more",
          w->declared, n);
    w->written += n;
    return true;
}

bool st_writer_data(StWriter *w, const void *bytes, size_t n, Err *err) {
    return take(w, n, err) && files_put(w->file, bytes, n, err);
}

bool st_writer_hole(StWriter *w, size_t n, Err *err) {
    return take(w, n, err) && files_hole(w->file, n, err);
}

static void release(StWriter *w) {
    json_decref(w->header);
    json_decref(w->meta);
    free(w);
}

bool st_writer_finish(StWriter *w, Err *err) {
    bool ok = w->streaming || write_header(w, err);
    CHECK(!ok || w->written == w->declared, "expected %zu bytes of data, got %zu", w->declared,
          w->written);
    OutFile *file = w->file;
    release(w);
    if (ok) return files_commit(file, err);
    files_abandon(file);
    return false;
}

void st_writer_abort(StWriter *w) {
    files_abandon(w->file);
    release(w);
}
