/* safetensors.h - mapped reader and atomic writer of the safetensors format.
 *
 * Layout: u64 little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
 * then the data. Every number in the header is hostile until checked: the header is at most
 * 100,000,000 bytes and lies in the file, starts with '{', has no duplicate keys; each tensor's
 * size is dtype x shape without overflow and equals its offsets' difference; the tensors cover
 * the data without hole or overlap; __metadata__ maps strings to strings. A failure names file,
 * tensor, what was expected and what was found. */
#ifndef SAILS_SAFETENSORS_H
#define SAILS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "data/base/err.h"
#include "kernels/store.h"

enum { ST_MAX_RANK = 8, ST_MAX_HEADER = 100000000 };
enum StType {
    ST_F64,
    ST_F32,
    ST_F16,
    ST_BF16,
    ST_I64,
    ST_I32,
    ST_I16,
    ST_I8,
    ST_U64,
    ST_U32,
    ST_U16,
    ST_U8,
    ST_BOOL,
    ST_F8_E4M3,
    ST_F8_E5M2,
    ST_F8_E8M0,
    ST_TYPE_COUNT
};
const char *st_type_name(enum StType t); /* "F32": as in the file */
size_t st_type_size(enum StType t);      /* bytes of an element */

typedef struct StTensor {
    const char *name, *file; /* borrowed from the set */
    enum StType type;
    int rank;
    size_t dim[ST_MAX_RANK];
    size_t count, bytes;
    const void *data; /* in the mapping; any alignment */
} StTensor;

/* The tensors of one file, or of all shards of a model. The files stay mapped until st_close and
 * must not be cut short meanwhile by others. */
typedef struct StSet StSet;

bool st_open(StSet **set, const char *path, Err *err);

/* folder/STEM.safetensors, or all shards of folder/STEM.safetensors.index.json (every tensor of
 * the weight_map must be in the file it names, and every tensor of a shard in the map; the shards
 * lie in the folder itself: a name with a slash is refused). */
bool st_open_folder(StSet **set, const char *folder, const char *stem, Err *err);
void st_close(StSet *set); /* NULL is allowed */

size_t st_count(const StSet *set);
const StTensor *st_at(const StSet *set, size_t i);           /* in order of name */
const StTensor *st_find(const StSet *set, const char *name); /* NULL: not there */
const char *st_metadata(const StSet *set, const char *key);  /* NULL: not there */

/* The tensor, checked to have this shape and a float type (F32, BF16, F16 or F64); the message
 * names file, tensor, expected and found. */
bool st_need(const StSet *set, const StTensor **t, const char *name, int rank, const size_t *dim,
             Err *err);

/* The same for exactly one type, for files that sails wrote. */
bool st_need_type(const StSet *set, const StTensor **t, const char *name, enum StType type,
                  int rank, const size_t *dim, Err *err);

/* n elements from `first` on, as f32: those of F32, BF16 and F16 exactly, of F64 rounded. */
void st_read_f32(const StTensor *t, float *to, size_t first, size_t n);

/* Tells the system that these elements have been read for now, so that the file's pages do not
 * count as memory in use. Reading them again works, from the file. */
void st_release(const StTensor *t, size_t first, size_t n);

/* True when the elements are stored as ops store them in `dtype`, so that no conversion is due. */
bool st_stores(const StTensor *t, enum Dtype dtype);

/* Writing: declare all tensors, then stream their data in the same order, then finish. The file
 * appears under its name only when finish returns true (temporary file, fsync, rename). The data
 * starts at a multiple of 64 bytes. Names and keys must be distinct. */
typedef struct StWriter StWriter;
bool st_writer_open(StWriter **w, const char *path, Err *err);
void st_writer_meta(StWriter *w, const char *key, const char *value); /* bytes that are not UTF-8
                                                                         (paths) become '?' */
void st_writer_tensor(StWriter *w, const char *name, enum StType type, int rank, const size_t *dim);
bool st_writer_data(StWriter *w, const void *bytes, size_t n, Err *err); /* any piece size */
bool st_writer_hole(StWriter *w, size_t n, Err *err); /* zeros in its place (files_hole) */
bool st_writer_finish(StWriter *w, Err *err);         /* frees w, also on failure */
void st_writer_abort(StWriter *w);                    /* removes the temporary file and frees w */

#endif
