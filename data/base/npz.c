/* npz.c - members of a zip as arrays, read from where they lie. */
#include "data/base/npz.h"

#include <stdint.h>
#include <stdio.h>

#include <zip.h>

#include "data/base/mem.h"
#include "data/base/safetensors.h"

enum { MAX_HEADER = 65536, PIECE = 1 << 20, MAX_RANK = 4 };

struct Npz {
    zip_t *zip;
    char *path;
};

/* What a member's .npy header says. */
typedef struct Npy {
    enum StType type; /* F16, F32 or F64 */
    int rank;
    size_t dim[MAX_RANK], count;
    bool fortran; /* the first index runs fastest */
} Npy;

/* A member being read: its bytes are counted against what the archive declares. */
typedef struct Member {
    Npz *z;
    const char *name;
    zip_file_t *file;
    zip_uint64_t left, packed; /* bytes to come, bytes in the archive */
} Member;

/* ---------------------------------------------------------------------------- the archive -- */

bool npz_open(Npz **out, const char *path, Err *err) {
    int code;
    zip_t *zip = zip_open(path, ZIP_RDONLY, &code);
    if (!zip) {
        zip_error_t why;
        zip_error_init_with_code(&why, code);
        err_set(err, EXIT_INPUT, "%s: expected a .npz archive: %s; fetch it again", path,
                zip_error_strerror(&why));
        zip_error_fini(&why);
        return false;
    }
    Npz *z = mem_array(1, sizeof *z);
    z->zip = zip;
    z->path = mem_string(path);
    *out = z;
    return true;
}

void npz_close(Npz *z) {
    if (!z) return;
    zip_discard(z->zip);
    free(z->path);
    free(z);
}

/* Index of NAME.npy, or -1. */
static zip_int64_t locate(const Npz *z, const char *name) {
    char full[256];
    int n = snprintf(full, sizeof full, "%s.npy", name);
    return n < (int)sizeof full ? zip_name_locate(z->zip, full, 0) : -1;
}

bool npz_has(const Npz *z, const char *name) {
    return locate(z, name) >= 0;
}

const char *npz_member(const Npz *z, size_t i) {
    zip_int64_t n = zip_get_num_entries(z->zip, 0);
    if (n < 0 || i >= (size_t)n) return NULL;
    const char *name = zip_get_name(z->zip, i, 0);
    return name ? name : "?";
}

static bool not_there(const Npz *z, const char *name, Err *err) {
    char list[512] = "";
    const char *member;
    for (size_t i = 0; (member = npz_member(z, i)); i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", member);
    }
    return err_set(err, EXIT_INPUT,
                   "%s: expected member %s.npy, the archive holds: %s; is this an SAE?", z->path,
                   name, *list ? list : "nothing");
}

static bool bad(const Member *m, const char *what, Err *err) {
    err_set(err, EXIT_INPUT, "%s: member %s.npy: %s", m->z->path, m->name, what);
    return strchr(what, ';') ? false : err_remedy(err, "fetch or make the file again");
}

static bool member_open(Member *m, Npz *z, const char *name, Err *err) {
    *m = (Member){.z = z, .name = name};
    zip_int64_t i = locate(z, name);
    if (i < 0) return not_there(z, name, err);
    zip_stat_t st;
    zip_uint64_t need =
        ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(z->zip, (zip_uint64_t)i, 0, &st) != 0 || (st.valid & need) != need)
        return bad(m, "its directory entry is broken", err);
    if (st.encryption_method != ZIP_EM_NONE) return bad(m, "expected no encryption", err);
    if (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE)
        return bad(m, "expected a stored or deflated member", err);
    m->left = st.size;
    m->packed = st.comp_size;
    m->file = zip_fopen_index(z->zip, (zip_uint64_t)i, 0);
    return m->file || bad(m, zip_strerror(z->zip), err);
}

static void member_close(Member *m) {
    if (m->file) zip_fclose(m->file);
}

static bool member_read(Member *m, void *to, size_t n, Err *err) {
    if (n > m->left) return bad(m, "it ends too early", err);
    char *at = to;
    for (size_t done = 0; done < n;) {
        zip_int64_t got = zip_fread(m->file, at + done, n - done);
        if (got < 0) return bad(m, zip_file_strerror(m->file), err);
        if (got == 0) return bad(m, "it ends too early", err);
        done += (size_t)got;
    }
    m->left -= n;
    return true;
}

/* Reading up to the end makes libzip compare the checksum. */
static bool member_end(Member *m, Err *err) {
    char more;
    zip_int64_t got = zip_fread(m->file, &more, 1);
    if (got < 0) return bad(m, zip_file_strerror(m->file), err);
    return got == 0 || bad(m, "it is longer than its directory entry says", err);
}

/* --------------------------------------------------------------------------- .npy header -- */

/* The header is a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
 * Only what NumPy itself writes is taken; spaces may stand between tokens. */
typedef struct Text {
    const char *at, *end;
} Text;

static bool take(Text *t, const char *token) {
    while (t->at < t->end && *t->at == ' ') t->at++;
    size_t n = strlen(token);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, token, n) != 0) return false;
    t->at += n;
    return true;
}

static const char *parse_descr(Npy *a, Text *t) {
    if (take(t, "'<f4'"))
        a->type = ST_F32;
    else if (take(t, "'<f2'"))
        a->type = ST_F16;
    else if (take(t, "'<f8'"))
        a->type = ST_F64;
    else
        return "expected little-endian float16, float32 or float64 elements; convert it with "
               "NumPy: "
               "numpy.savez(NEW, **{k: v.astype('<f4') for k, v in numpy.load(FILE).items()})";
    return NULL;
}

static bool parse_size(size_t *to, Text *t) {
    while (t->at < t->end && *t->at == ' ') t->at++;
    const char *start = t->at;
    *to = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        if (__builtin_mul_overflow(*to, (size_t)10, to) ||
            __builtin_add_overflow(*to, (size_t)(*t->at - '0'), to))
            return false;
    }
    return t->at > start && (*start != '0' || t->at == start + 1);
}

static const char *parse_shape(Npy *a, Text *t) {
    static const char expected[] = "expected a shape of at most 4 sizes";
    a->rank = 0;
    a->count = 1;
    if (!take(t, "(")) return expected;
    for (bool comma = true; !take(t, ")"); comma = take(t, ",")) {
        if (!comma || a->rank == MAX_RANK || !parse_size(&a->dim[a->rank], t)) return expected;
        if (__builtin_mul_overflow(a->count, a->dim[a->rank], &a->count))
            return "expected a shape that memory can hold";
        a->rank++;
    }
    size_t bytes;
    if (__builtin_mul_overflow(a->count, st_type_size(a->type), &bytes))
        return "expected a shape that memory can hold";
    return NULL;
}

static const char *parse_dict(Npy *a, Text t) {
    bool descr = false, order = false, shape = false;
    const char *why = NULL;
    if (!take(&t, "{")) return "expected a NumPy header";
    a->type = ST_F64; /* the widest, should the shape come first */
    for (bool comma = true; !take(&t, "}"); comma = take(&t, ",")) {
        if (!comma) return "expected a NumPy header";
        if (!descr && take(&t, "'descr':")) {
            descr = true;
            why = parse_descr(a, &t);
        } else if (!order && take(&t, "'fortran_order':")) {
            order = true;
            a->fortran = take(&t, "True");
            if (!a->fortran && !take(&t, "False")) why = "expected fortran_order True or False";
        } else if (!shape && take(&t, "'shape':")) {
            shape = true;
            why = parse_shape(a, &t);
        } else {
            return "expected a NumPy header of descr, fortran_order and shape";
        }
        if (why) return why;
    }
    if (!descr || !order || !shape) return "expected a NumPy header of descr, fortran_order, shape";
    if (a->fortran && a->rank > 2)
        return "expected C order for an array of more than 2 sizes; convert it with "
               "numpy.ascontiguousarray";
    while (t.at < t.end && (*t.at == ' ' || *t.at == '\n')) t.at++;
    return t.at == t.end ? NULL : "expected nothing behind the NumPy header";
}

static bool read_npy(Npy *a, Member *m, Err *err) {
    unsigned char head[12];
    if (!member_read(m, head, 10, err)) return false;
    if (memcmp(head, "\x93NUMPY", 6) != 0) return bad(m, "expected a NumPy array", err);
    if (head[6] < 1 || head[6] > 3 || head[7] != 0)
        return bad(m, "expected .npy format 1.0, 2.0 or 3.0", err);
    size_t n = head[8] | (size_t)head[9] << 8;
    if (head[6] > 1) {
        if (!member_read(m, head + 10, 2, err)) return false;
        n |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    }
    if (n > MAX_HEADER) return bad(m, "its header is too long", err);
    char *text = mem_array(n, 1);
    const char *why = NULL;
    bool ok = member_read(m, text, n, err);
    if (ok) why = parse_dict(a, (Text){text, text + n});
    free(text);
    if (!ok || why) return ok ? bad(m, why, err) : false;
    if (a->count * st_type_size(a->type) == m->left) return true;
    return err_set(
        err, EXIT_INPUT,
        "%s: member %s.npy: its shape needs %zu bytes, it holds %llu; fetch or make the file again",
        m->z->path, m->name, a->count * st_type_size(a->type), (unsigned long long)m->left);
}

/* -------------------------------------------------------------------------------- reading -- */

bool npz_shape(Npz *z, const char *name, int *rank, size_t dim[4], Err *err) {
    Member m;
    Npy a = {0};
    bool ok = member_open(&m, z, name, err) && read_npy(&a, &m, err);
    member_close(&m);
    if (!ok) return false;
    *rank = a.rank;
    memcpy(dim, a.dim, sizeof a.dim);
    return true;
}

static void to_f32(float *to, const void *from, size_t n, enum StType type) {
    if (type == ST_F64) {
        const double *d = from;
        for (size_t i = 0; i < n; i++) to[i] = (float)d[i];
    } else {
        StTensor t = {.name = "npy", .type = type, .count = n, .data = from};
        st_read_f32(&t, to, 0, n);
    }
}

struct NpzStream {
    Member member;
    Npy npy;
    size_t left; /* elements */
    void *piece;
    float *turned; /* all elements, in C order; NULL: they come from the archive in that order */
};

/* The next n elements as they lie in the archive. */
static bool take_elements(NpzStream *s, float *to, size_t n, Err *err) {
    size_t size = st_type_size(s->npy.type), per = PIECE / size;
    bool ok = true;
    if (s->npy.type == ST_F32) return member_read(&s->member, to, n * sizeof *to, err);
    for (size_t done = 0; ok && done < n; done += per) {
        size_t now = n - done < per ? n - done : per;
        ok = member_read(&s->member, s->piece, now * size, err);
        if (ok) to_f32(to + done, s->piece, now, s->npy.type);
    }
    return ok;
}

/* Reads a matrix in Fortran order column by column. A deflated byte gives at most 1032, so that an
 * archive cannot make us ask for much more than it could hold. */
static bool turn(NpzStream *s, Err *err) {
    size_t rows = s->npy.dim[0], cols = s->npy.dim[1];
    if (s->member.left / 1032 > s->member.packed)
        return bad(&s->member, "it claims more than its bytes can hold", err);
    s->turned = mem_array(s->npy.count, sizeof *s->turned);
    float *column = mem_array(rows, sizeof *column);
    bool ok = true;
    for (size_t c = 0; c < cols && ok; c++) {
        ok = take_elements(s, column, rows, err);
        for (size_t r = 0; r < rows && ok; r++) s->turned[r * cols + c] = column[r];
    }
    free(column);
    return ok;
}

bool npz_stream_open(NpzStream **out, Npz *z, const char *name, Err *err) {
    NpzStream *s = mem_array(1, sizeof *s);
    bool ok = member_open(&s->member, z, name, err) && read_npy(&s->npy, &s->member, err);
    s->left = s->npy.count;
    if (ok && s->npy.type != ST_F32) s->piece = mem_array(PIECE, 1);
    if (ok && s->npy.fortran && s->npy.rank == 2) ok = turn(s, err);
    *out = ok ? s : NULL;
    if (!ok) npz_stream_close(s);
    return ok;
}

void npz_stream_close(NpzStream *s) {
    if (!s) return;
    member_close(&s->member);
    free(s->turned);
    free(s->piece);
    free(s);
}

bool npz_stream_next(NpzStream *s, float *to, size_t n, Err *err) {
    CHECK(n <= s->left, "expected at most %zu elements, asked for %zu", s->left, n);
    bool ok = true;
    if (s->turned)
        memcpy(to, s->turned + (s->npy.count - s->left), n * sizeof *to);
    else
        ok = take_elements(s, to, n, err);
    s->left -= n;
    return ok && (s->left > 0 || member_end(&s->member, err));
}
