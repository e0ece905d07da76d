/* safetensors.c - the reader: mapping, header checks, shards, conversion. */
#include "data/base/safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/files.h"
#include "data/base/foreign.h"
#include "data/base/mem.h"

typedef struct StFile {
    char *path;
    const char *map;
    size_t size;
    json_t *header; /* owns the tensors' names and the metadata */
} StFile;

struct StSet {
    StFile *file;
    size_t nfile;
    StTensor *tensor; /* in order of name */
    size_t n, capacity;
    char *where; /* path or folder, for messages */
};

static const struct {
    const char *name;
    size_t size;
} TYPE[ST_TYPE_COUNT] = {
    [ST_F64] = {"F64", 8},         [ST_F32] = {"F32", 4},         [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2},       [ST_I64] = {"I64", 8},         [ST_I32] = {"I32", 4},
    [ST_I16] = {"I16", 2},         [ST_I8] = {"I8", 1},           [ST_U64] = {"U64", 8},
    [ST_U32] = {"U32", 4},         [ST_U16] = {"U16", 2},         [ST_U8] = {"U8", 1},
    [ST_BOOL] = {"BOOL", 1},       [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1},
    [ST_F8_E8M0] = {"F8_E8M0", 1},
};

const char *st_type_name(enum StType t) {
    return TYPE[t].name;
}
size_t st_type_size(enum StType t) {
    return TYPE[t].size;
}
static bool is_float(enum StType t) {
    return t == ST_F64 || t == ST_F32 || t == ST_F16 || t == ST_BF16;
}

/* ------------------------------------------------------------------------------- header -- */

static bool bad(Err *err, const char *path, const char *tensor, const char *what) {
    return err_set(err, EXIT_INPUT, "%s: tensor %.200s: %s", path, tensor, what);
}

/* A JSON integer >= 0 as size_t. Fractions, strings and anything beyond 2^63 are no integers. */
static bool get_size(size_t *to, const json_t *j) {
    if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
    *to = (size_t)json_integer_value(j);
    return true;
}

static bool read_shape(StTensor *t, const json_t *shape, const char *path, Err *err) {
    if (!json_is_array(shape)) return bad(err, path, t->name, "expected \"shape\" to be a list");
    if (json_array_size(shape) > ST_MAX_RANK)
        return err_set(err, EXIT_INPUT, "%s: tensor %.200s: expected at most %d dims, found %zu",
                       path, t->name, ST_MAX_RANK, json_array_size(shape));
    t->rank = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->rank; i++) {
        if (!get_size(&t->dim[i], json_array_get(shape, (size_t)i)))
            return bad(err, path, t->name, "expected dims to be integers >= 0");
        if (__builtin_mul_overflow(t->count, t->dim[i], &t->count))
            return bad(err, path, t->name, "expected a shape that memory can hold");
    }
    if (__builtin_mul_overflow(t->count, TYPE[t->type].size, &t->bytes))
        return bad(err, path, t->name, "expected a shape that memory can hold");
    return true;
}

/* The tensor's entry, except that its data is still an offset: *begin. */
static bool read_entry(StTensor *t, size_t *begin, size_t data_size, const json_t *entry,
                       const char *path, Err *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(entry))
        return bad(err, path, t->name, "expected {dtype, shape, data_offsets}");
    json_object_foreach ((json_t *)(uintptr_t)entry, key, value) {
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
            return err_set(err, EXIT_INPUT,
                           "%s: tensor %.200s: expected dtype, shape and data_offsets, found "
                           "\"%.100s\"",
                           path, t->name, key);
    }
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    int type = 0;
    while (dtype && type < ST_TYPE_COUNT && strcmp(dtype, TYPE[type].name) != 0) type++;
    if (!dtype || type == ST_TYPE_COUNT)
        return err_set(err, EXIT_INPUT, "%s: tensor %.200s: expected a known dtype, found %.100s",
                       path, t->name, dtype ? dtype : "none");
    t->type = (enum StType)type;
    if (!read_shape(t, json_object_get(entry, "shape"), path, err)) return false;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t end;
    if (json_array_size(offsets) != 2 || !get_size(begin, json_array_get(offsets, 0)) ||
        !get_size(&end, json_array_get(offsets, 1)))
        return bad(err, path, t->name, "expected data_offsets to be two integers >= 0");
    if (*begin > end || end > data_size)
        return err_set(err, EXIT_INPUT,
                       "%s: tensor %.200s: bytes %zu to %zu do not lie in the %zu bytes of data",
                       path, t->name, *begin, end, data_size);
    if (end - *begin != t->bytes)
        return err_set(err, EXIT_INPUT,
                       "%s: tensor %.200s: its shape needs %zu bytes, its data_offsets hold %zu",
                       path, t->name, t->bytes, end - *begin);
    return true;
}

static bool check_metadata(const json_t *meta, const char *path, Err *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(meta))
        return err_set(err, EXIT_INPUT, "%s: expected __metadata__ to be an object", path);
    json_object_foreach ((json_t *)(uintptr_t)meta, key, value) {
        if (!json_is_string(value))
            return err_set(err, EXIT_INPUT, "%s: __metadata__: expected \"%.200s\" to be a string",
                           path, key);
    }
    return true;
}

/* Orders by where the data lies; an empty tensor comes before the one that starts there too. */
static int by_data(const void *a, const void *b) {
    const StTensor *x = a, *y = b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

/* Data that no tensor owns could hide another file's content; shared data would be read twice. */
static bool check_cover(StTensor *t, size_t n, const char *data, size_t size, const char *path,
                        Err *err) {
    if (n) qsort(t, n, sizeof *t, by_data);
    const char *at = data;
    for (size_t i = 0; i < n; i++) {
        const char *begin = t[i].data;
        if (begin < at)
            return err_set(err, EXIT_INPUT, "%s: expected tensors apart, %.200s and %.200s overlap",
                           path, t[i - 1].name, t[i].name);
        if (begin > at)
            return err_set(err, EXIT_INPUT,
                           "%s: expected no hole, found %zu bytes before tensor %.200s", path,
                           (size_t)(begin - at), t[i].name);
        at += t[i].bytes;
    }
    if (at != data + size)
        return err_set(err, EXIT_INPUT,
                       "%s: expected nothing behind the last tensor's data, found %zu bytes", path,
                       (size_t)(data + size - at));
    return true;
}

static bool read_header(StSet *set, StFile *f, Err *err) {
    uint64_t n = 0;
    for (int i = 0; i < 8 && f->size >= 8; i++) n |= (uint64_t)(unsigned char)f->map[i] << 8 * i;
    if (f->size < 8 || n > f->size - 8)
        return err_set(err, EXIT_INPUT,
                       "%s: expected a safetensors header of %llu bytes, the file has %zu", f->path,
                       (unsigned long long)n, f->size);
    if (n > ST_MAX_HEADER)
        return err_set(err, EXIT_INPUT, "%s: expected a header of at most %d bytes, found %llu",
                       f->path, ST_MAX_HEADER, (unsigned long long)n);
    const char *text = f->map + 8, *data = text + n;
    size_t size = f->size - 8 - (size_t)n, first = set->n, begin = 0;
    if (n == 0 || text[0] != '{')
        return err_set(err, EXIT_INPUT, "%s: expected the header to start with '{'", f->path);
    if (!files_parse_json(&f->header, text, (size_t)n, JSON_NUL_REFUSED, f->path, err))
        return err_prefix(err, "safetensors header");
    const char *name;
    json_t *entry;
    json_object_foreach (f->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            if (!check_metadata(entry, f->path, err)) return false;
            continue;
        }
        StTensor t = {.name = name, .file = f->path};
        if (!read_entry(&t, &begin, size, entry, f->path, err)) return false;
        t.data = data + begin;
        set->tensor = mem_grow(set->tensor, &set->capacity, set->n + 1, sizeof t);
        set->tensor[set->n++] = t;
    }
    StTensor *own = set->tensor ? set->tensor + first : NULL;
    return check_cover(own, set->n - first, data, size, f->path, err);
}

/* -------------------------------------------------------------------------- files, shards -- */

static bool map_file(StFile *f, Err *err) {
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not hang on a pipe */
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        files_failed(err, f->path, "open");
        if (fd >= 0) close(fd);
        return false;
    }
    bool ok = S_ISREG(st.st_mode) && st.st_size > 0;
    if (S_ISDIR(st.st_mode))
        err_set(err, EXIT_INPUT, "%s: expected a file, this is a folder; name a file in it",
                f->path);
    else if (!ok)
        err_set(err, EXIT_INPUT,
                "%s: expected a safetensors file that is not empty; fetch it again", f->path);
    if (ok) {
        f->size = (size_t)st.st_size;
        void *map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
        ok = map != MAP_FAILED;
        if (ok)
            f->map = map;
        else
            files_failed(err, f->path, "map");
    }
    close(fd);
    return ok;
}

static bool add_file(StSet *set, StFile *f, char *path, Err *err) {
    f->path = path;
    set->nfile++;
    return map_file(f, err) &&
           (read_header(set, f, err) || err_remedy(err, "fetch or make the file again"));
}

static StSet *new_set(const char *where, size_t files) {
    StSet *set = mem_array(1, sizeof *set);
    set->where = mem_string(where);
    set->file = mem_array(files, sizeof *set->file);
    return set;
}

static void sort_names(StSet *set) {
    if (set->n) qsort(set->tensor, set->n, sizeof *set->tensor, by_name);
}

/* Hands out the set, or gives up one that could not be read. */
static bool end_open(StSet **out, StSet *set, bool ok) {
    *out = ok ? set : NULL;
    if (!ok) st_close(set);
    return ok;
}

bool st_open(StSet **out, const char *path, Err *err) {
    StSet *set = new_set(path, 1);
    bool ok = add_file(set, &set->file[0], mem_string(path), err);
    sort_names(set);
    return end_open(out, set, ok);
}

/* The shard that a weight_map's value names, without "./"; NULL: none within the folder. */
static const char *shard_of(const json_t *value) {
    const char *s = json_string_value(value);
    while (s && s[0] == '.' && s[1] == '/')
        for (s += 2; *s == '/';) s++;
    bool plain = s && *s && !strchr(s, '/') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
    return plain ? s : NULL;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of a weight_map, sorted (malloc; borrowed from the map). */
static bool shard_names(const char ***out, size_t *n, const json_t *map, const char *path,
                        Err *err) {
    size_t total = json_object_size(map), kept = 0;
    const char **name = mem_array(total, sizeof *name), *tensor;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)map, tensor, value) {
        const char *shard = shard_of(value), *said = json_string_value(value);
        if (!shard) {
            free(name);
            return err_set(
                err, EXIT_INPUT,
                "%s: weight_map: expected %.200s in a file of this folder, found %.200s; "
                "fetch the index again",
                path, tensor, said ? said : "no file name");
        }
        name[kept++] = shard;
    }
    qsort(name, kept, sizeof *name, by_text);
    size_t distinct = 0;
    for (size_t i = 0; i < kept; i++)
        if (i == 0 || strcmp(name[i], name[i - 1]) != 0) name[distinct++] = name[i];
    *out = name;
    *n = distinct;
    return true;
}

/* Every tensor of a shard is named by the map, and with this shard, and the other way round. */
static bool check_map(const StSet *set, const json_t *map, const char *path, Err *err) {
    for (size_t i = 0; i < set->n; i++) {
        const StTensor *t = &set->tensor[i];
        const char *shard = shard_of(json_object_get(map, t->name));
        const char *slash = strrchr(t->file, '/'), *file = slash ? slash + 1 : t->file;
        if (!shard || strcmp(shard, file) != 0)
            return err_set(
                err, EXIT_INPUT,
                "%s: tensor %.200s is in %s, the weight_map says %.200s; fetch all files of "
                "one version",
                path, t->name, file, shard ? shard : "nothing");
    }
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)map, name, value) {
        if (!st_find(set, name))
            return err_set(err, EXIT_INPUT,
                           "%s: tensor %.200s is not in %.200s; fetch all files of one version",
                           path, name, json_string_value(value));
    }
    return true;
}

static bool open_shards(StSet **out, const char *folder, const char *index, Err *err) {
    json_t *root;
    if (!files_read_json(&root, index, ST_MAX_HEADER, err)) return false;
    const json_t *map = json_object_get(root, "weight_map");
    const char **name = NULL;
    size_t n = 0;
    bool ok = json_is_object(map) && json_object_size(map) > 0;
    if (!ok)
        err_set(err, EXIT_INPUT,
                "%s: expected a \"weight_map\" of tensors to files; fetch the index again", index);
    ok = ok && shard_names(&name, &n, map, index, err);
    StSet *set = new_set(folder, n);
    for (size_t i = 0; ok && i < n; i++)
        ok = add_file(set, &set->file[i], files_join(folder, name[i]), err);
    sort_names(set);
    ok = ok && check_map(set, map, index, err);
    free(name);
    json_decref(root);
    return end_open(out, set, ok);
}

bool st_open_folder(StSet **set, const char *folder, const char *stem, Err *err) {
    char *base = files_join(folder, stem), *path[2];
    size_t n = strlen(base) + sizeof ".safetensors.index.json";
    for (int i = 0; i < 2; i++) {
        path[i] = mem_array(n, 1);
        snprintf(path[i], n, "%s.safetensors%s", base, i ? ".index.json" : "");
    }
    bool ok;
    if (files_exists(path[0]))
        ok = st_open(set, path[0], err);
    else if (files_exists(path[1]))
        ok = open_shards(set, folder, path[1], err);
    else
        ok = foreign_refuse(folder, stem, err) &&
             err_set(err, EXIT_INPUT,
                     "%s: expected %s.safetensors or %s.safetensors.index.json in this folder; "
                     "check the "
                     "path",
                     folder, stem, stem);
    free(base), free(path[0]), free(path[1]);
    return ok;
}

void st_close(StSet *set) {
    if (!set) return;
    for (size_t i = 0; i < set->nfile; i++) {
        StFile *f = &set->file[i];
        if (f->map) munmap((void *)(uintptr_t)f->map, f->size);
        json_decref(f->header);
        free(f->path);
    }
    free(set->file), free(set->tensor), free(set->where), free(set);
}

/* ------------------------------------------------------------------------------- reading -- */

size_t st_count(const StSet *set) {
    return set->n;
}

const StTensor *st_at(const StSet *set, size_t i) {
    CHECK(i < set->n, "tensor %zu of %zu", i, set->n);
    return &set->tensor[i];
}

const StTensor *st_find(const StSet *set, const char *name) {
    StTensor key = {.name = name};
    return set->n ? bsearch(&key, set->tensor, set->n, sizeof key, by_name) : NULL;
}

const char *st_metadata(const StSet *set, const char *key) {
    for (size_t i = 0; i < set->nfile; i++) {
        const json_t *meta = json_object_get(set->file[i].header, "__metadata__");
        const char *value = json_string_value(json_object_get(meta, key));
        if (value) return value;
    }
    return NULL;
}

static void shape_text(char *to, size_t size, int rank, const size_t *dim) {
    size_t used = (size_t)snprintf(to, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(to + used, size - used, "%s%zu", i ? ", " : "", dim[i]);
    if (used < size) snprintf(to + used, size - used, "]");
}

static bool find_shape(const StSet *set, const StTensor **t, const char *name, int rank,
                       const size_t *dim, Err *err) {
    const StTensor *found = st_find(set, name);
    if (!found)
        return err_set(err, EXIT_INPUT, "%s: expected tensor %.200s, it is not there", set->where,
                       name);
    bool same = found->rank == rank;
    for (int i = 0; same && i < rank; i++) same = found->dim[i] == dim[i];
    *t = found;
    if (same) return true;
    char want[192], got[192];
    shape_text(want, sizeof want, rank, dim);
    shape_text(got, sizeof got, found->rank, found->dim);
    return err_set(err, EXIT_INPUT, "%s: tensor %.200s: expected shape %s, found %s", found->file,
                   name, want, got);
}

bool st_need(const StSet *set, const StTensor **t, const char *name, int rank, const size_t *dim,
             Err *err) {
    if (!find_shape(set, t, name, rank, dim, err))
        return err_remedy(err, "is this another model's file?");
    enum StType type = (*t)->type;
    if (is_float(type)) return true;
    return err_set(
        err, EXIT_INPUT,
        "%s: tensor %.200s: expected F32, BF16, F16 or F64, found %s: quantised; give the "
        "model as it was before, or dequantise it in transformers (model.dequantize()) "
        "and save_pretrained it",
        (*t)->file, name, TYPE[type].name);
}

bool st_need_type(const StSet *set, const StTensor **t, const char *name, enum StType type,
                  int rank, const size_t *dim, Err *err) {
    if (!find_shape(set, t, name, rank, dim, err)) return false;
    if ((*t)->type == type) return true;
    return err_set(err, EXIT_INPUT, "%s: tensor %.200s: expected %s, found %s", (*t)->file, name,
                   TYPE[type].name, TYPE[(*t)->type].name);
}
