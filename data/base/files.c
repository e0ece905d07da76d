/* files.c - files written beside their place and renamed, folders, hashes. */
#include "data/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/base/mem.h"
#include "data/base/sha256.h"
#include "data/base/temporary.h"

struct OutFile {
    FILE *stream;
    char *path, *temporary; /* temporary NULL: written in place */
};

static char *format2(const char *fmt, const char *a, const char *b) {
    size_t n = strlen(fmt) + strlen(a) + strlen(b) + 1;
    char *s = mem_array(n, 1);
    snprintf(s, n, fmt, a, b);
    return s;
}

char *files_join(const char *folder, const char *name) {
    size_t n = strlen(folder);
    return format2(n == 0 || folder[n - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
}

bool files_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool files_failed(Err *err, const char *path, const char *doing) {
    bool machine = false;
    const char *remedy = "check the path";
    switch (errno) {
        case ENOSPC:
        case EDQUOT:
            machine = true;
            remedy = "free some space and run again";
            break;
        case EFBIG:
            machine = true;
            remedy = "raise the limit on the size of files (ulimit -f)";
            break;
        case EIO:
            machine = true;
            remedy = "check the disk";
            break;
        case EACCES:
        case EPERM:
        case EROFS:
            remedy = "choose another place, or get the permission";
            break;
        default:
            break;
    }
    err_set(err, machine ? EXIT_INTERNAL : EXIT_INPUT, "%.800s: cannot %s: %s", path, doing,
            strerror(errno)); /* of a path too long for the line, the reason still shows */
    return err_remedy(err, remedy);
}

static OutFile *out_open(const char *target, bool in_place) {
    OutFile *f = mem_array(1, sizeof *f);
    f->path = mem_string(target);
    int fd;
    if (in_place) {
        fd = open(target, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        char pid[32];
        snprintf(pid, sizeof pid, "%ld", (long)getpid());
        f->temporary = format2("%s.tmp.%s", target, pid);
        unlink(f->temporary); /* left by an earlier process of this number */
        fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    if (fd >= 0) f->stream = fdopen(fd, "wb");
    if (f->stream && f->temporary) temporary_note(f->temporary);
    if (f->stream) return f;
    int why = errno;
    if (fd >= 0) close(fd);
    files_abandon(f);
    errno = why;
    return NULL;
}

bool files_create(OutFile **f, const char *path, Err *err) {
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        return err_set(err, EXIT_INPUT,
                       "%s: expected a file to write, this is a folder; add a file's name", path);
    char *real = there && S_ISREG(st.st_mode) ? realpath(path, NULL) : NULL;
    *f = out_open(real ? real : path, there && !S_ISREG(st.st_mode));
    if (!*f) files_failed(err, path, "write");
    free(real);
    return *f != NULL;
}

bool files_can_create(const char *path, Err *err) {
    struct stat st; /* a pipe opened and closed again would have ended for its reader */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return true;
    OutFile *f;
    if (!files_create(&f, path, err)) return false;
    files_abandon(f);
    return true;
}

FILE *files_stream(OutFile *f) {
    return f->stream;
}

bool files_put(OutFile *f, const void *data, size_t n, Err *err) {
    return n == 0 || fwrite(data, 1, n, f->stream) == n || files_failed(err, f->path, "write");
}

bool files_hole(OutFile *f, size_t n, Err *err) {
    int fd = fileno(f->stream);
    off_t at = fflush(f->stream) == 0 ? lseek(fd, 0, SEEK_CUR) : -1;
    bool ok =
        at >= 0 && ftruncate(fd, at + (off_t)n) == 0 && fseeko(f->stream, (off_t)n, SEEK_CUR) == 0;
    return ok || files_failed(err, f->path, "write");
}

bool files_no_hub_id(const char *path, Err *err) {
    size_t owner = strcspn(path, "/");
    bool id = owner > 0 && path[0] != '.' && path[0] != '~' && path[owner] == '/' &&
              path[owner + 1] && !strchr(path + owner + 1, '/') && !files_exists(path);
    if (!id) return true;
    err_set(err, EXIT_INPUT, "%s: no such file or folder, and sails fetches nothing", path);
    return err_remedy(err,
                      "if that is a name on the Hugging Face hub, fetch it (hf download NAME "
                      "--local-dir FOLDER) and give the folder");
}

bool files_need_folder(const char *path, const char *holding, Err *err) {
    struct stat st;
    if (!files_no_hub_id(path, err)) return false;
    if (stat(path, &st) != 0)
        return err_set(err, EXIT_INPUT, "%s: expected a folder with %s: %s; check the path", path,
                       holding, strerror(errno));
    return S_ISDIR(st.st_mode) ||
           err_set(err, EXIT_INPUT,
                   "%s: expected a folder with %s, this is a file; give the folder", path, holding);
}

size_t files_existing_part(const char *path) {
    char *part = mem_string(path);
    size_t n = strlen(part);
    while (n > 0 && !files_exists(part)) {
        while (n > 0 && part[n - 1] != '/') n--;
        while (n > 0 && part[n - 1] == '/') n--;
        part[n] = 0;
    }
    free(part);
    return n;
}

void files_take_back(const char *path, size_t found) {
    char *part = mem_string(path);
    for (size_t n = strlen(part); n > found; n--) {
        if (part[n] != 0 && part[n] != '/') continue;
        part[n] = 0;
        if (rmdir(part) != 0 && errno != ENOENT) break;
    }
    free(part);
}

bool files_can_make_folder(const char *path, Err *err) {
    struct stat st;
    char *part = mem_string(path);
    part[files_existing_part(path)] = 0;
    const char *within = *part ? part : *path == '/' ? "/" : ".";
    bool there = stat(within, &st) == 0, folder = there && S_ISDIR(st.st_mode);
    if (there && !folder) errno = ENOTDIR;
    bool ok =
        (folder && access(within, W_OK | X_OK) == 0) || files_failed(err, path, "make this folder");
    free(part);
    return ok;
}

bool files_sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
    int why = errno;
    close(fd);
    errno = why;
    return ok;
}

/* A path becomes that of the folder which it is in. */
static void to_folder_of(char *path) {
    char *slash = strrchr(path, '/');
    if (slash)
        slash[slash == path] = 0;
    else
        strcpy(path, ".");
}

bool files_sync_path(const char *folder) {
    char *path = mem_string(folder);
    bool ok = files_sync_folder(path);
    while (ok && strcmp(path, ".") != 0 && strcmp(path, "/") != 0) {
        to_folder_of(path);
        /* One that may not be opened, or is on another kind of disk, was there before. */
        ok = files_sync_folder(path) || (errno != EIO && errno != ENOSPC && errno != EDQUOT);
    }
    int why = errno;
    free(path);
    errno = why;
    return ok;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

bool files_remove_tree(const char *path) {
    enum { FOLDERS_OPEN = 8 };
    return nftw(path, remove_one, FOLDERS_OPEN, FTW_DEPTH | FTW_PHYS) == 0;
}

/* The rename itself must reach the disk. A folder may be for writing only: then nobody can ask. */
static bool sync_folder_of(const char *path) {
    char *folder = mem_string(path);
    to_folder_of(folder);
    bool ok = files_sync_folder(folder) || errno == EACCES;
    int why = errno;
    free(folder);
    errno = why;
    return ok;
}

bool files_commit(OutFile *f, Err *err) {
    errno = 0;
    bool ok = fflush(f->stream) == 0 && !ferror(f->stream);
    if (ok && f->temporary) ok = fsync(fileno(f->stream)) == 0;
    int why = errno ? errno : EIO; /* an earlier write failed and its reason is gone */
    if (fclose(f->stream) != 0 && ok) ok = false, why = errno;
    f->stream = NULL;
    if (ok && f->temporary) {
        ok = rename(f->temporary, f->path) == 0 && sync_folder_of(f->path);
        why = errno;
    }
    errno = why;
    if (!ok) files_failed(err, f->path, "write");
    if (ok && f->temporary) {
        temporary_forget(f->temporary);
        free(f->temporary), f->temporary = NULL;
    }
    files_abandon(f);
    return ok;
}

void files_abandon(OutFile *f) {
    if (!f) return;
    if (f->stream) fclose(f->stream);
    if (f->temporary) {
        unlink(f->temporary);
        temporary_forget(f->temporary);
    }
    free(f->temporary);
    free(f->path);
    free(f);
}

bool files_write(const char *path, const void *data, size_t n, Err *err) {
    OutFile *f;
    if (!files_create(&f, path, err)) return false;
    if (files_put(f, data, n, err)) return files_commit(f, err);
    files_abandon(f);
    return false;
}

static FILE *open_to_read(struct stat *st, const char *path, Err *err) {
    FILE *in = fopen(path, "rbe");
    if (!in || fstat(fileno(in), st) != 0) {
        files_failed(err, path, "open");
        if (in) fclose(in);
        return NULL;
    }
    if (!S_ISDIR(st->st_mode)) return in;
    err_set(err, EXIT_INPUT, "%s: expected a file, this is a folder; name a file in it", path);
    fclose(in);
    return NULL;
}

static bool too_large(const char *path, size_t limit, Err *err) {
    return err_set(err, EXIT_INPUT,
                   "%s: expected at most %zu bytes, the file is larger; is it another's?", path,
                   limit);
}

bool files_read(char **data, size_t *n, const char *path, size_t limit, Err *err) {
    struct stat st;
    FILE *in = open_to_read(&st, path, err);
    if (!in) return false;
    bool ok = !S_ISREG(st.st_mode) || (uintmax_t)st.st_size <= limit;
    size_t capacity = 0, used = 0;
    char *buffer =
        mem_grow(NULL, &capacity, ok && S_ISREG(st.st_mode) ? (size_t)st.st_size + 2 : 4096, 1);
    while (ok) {
        size_t room = capacity - used - 1, got = fread(buffer + used, 1, room, in);
        used += got;
        ok = used <= limit;
        if (got < room) break;
        if (ok) buffer = mem_grow(buffer, &capacity, capacity + 1, 1);
    }
    if (!ok)
        too_large(path, limit, err);
    else if (ferror(in))
        ok = files_failed(err, path, "read");
    fclose(in);
    if (!ok) {
        free(buffer);
        return false;
    }
    buffer[used] = 0;
    *data = buffer;
    *n = used;
    return true;
}

bool files_mkdirs(const char *path, Err *err) {
    char *p = mem_string(path);
    size_t n = strlen(p);
    bool ok = true;
    for (size_t i = 1; ok && i <= n; i++) {
        char after = p[i];
        if (after != '/' && after != 0) continue;
        p[i] = 0;
        struct stat st;
        int why = mkdir(p, 0777) == 0 ? 0 : errno;
        ok = why == 0 || (stat(p, &st) == 0 && S_ISDIR(st.st_mode));
        errno = why;
        if (!ok) files_failed(err, p, "make this folder");
        p[i] = after;
    }
    free(p);
    return ok;
}

bool files_sha256(char hex[65], const char *path, Err *err) {
    struct stat st;
    FILE *in = open_to_read(&st, path, err);
    if (!in) return false;
    enum { PIECE = 1 << 20 };
    char *piece = mem_array(PIECE, 1);
    Sha256 s;
    sha256_init(&s);
    for (size_t got; (got = fread(piece, 1, PIECE, in)) > 0;) sha256_add(&s, piece, got);
    bool ok = !ferror(in);
    if (!ok) files_failed(err, path, "read");
    unsigned char digest[32];
    sha256_done(&s, digest);
    sha256_hex(hex, digest);
    free(piece);
    fclose(in);
    return ok;
}

/* Where a string does not fit, jansson's reader calls it invalid JSON, and would blame the file. */
static void *json_memory(size_t n) {
    void *p = malloc(n);
    CHECK(p, "out of memory: %zu bytes for JSON", n);
    return p;
}

__attribute__((constructor)) static void json_never_without_memory(void) {
    json_set_alloc_funcs(json_memory, free);
}

bool files_parse_json(json_t **value, const char *text, size_t n, enum JsonNul nul,
                      const char *where, Err *err) {
    json_error_t e;
    size_t flags = JSON_REJECT_DUPLICATES | (nul == JSON_NUL_ALLOWED ? JSON_ALLOW_NUL : 0);
    *value = json_loadb(text, n, flags, &e);
    if (*value) return true;
    return err_set(err, EXIT_INPUT,
                   "%s: line %d, column %d: expected valid JSON: %s; mend the file or replace it",
                   where, e.line, e.column, e.text);
}

bool files_read_json(json_t **value, const char *path, size_t limit, Err *err) {
    char *text;
    size_t n;
    if (!files_read(&text, &n, path, limit, err)) return false;
    bool ok = files_parse_json(value, text, n, JSON_NUL_REFUSED, path, err);
    free(text);
    return ok;
}

bool files_write_json(const char *path, const json_t *value, Err *err) {
    OutFile *f;
    if (!files_create(&f, path, err)) return false;
    int rc = json_dumpf(value, f->stream, JSON_INDENT(2) | JSON_ENCODE_ANY);
    CHECK(rc == 0 || ferror(f->stream), "%s: expected a value that JSON can hold", path);
    fputc('\n', f->stream);
    return files_commit(f, err);
}
