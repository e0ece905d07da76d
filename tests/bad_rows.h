/* bad_rows.h - tables of bad input: one file of a sound world is damaged, a command that reads it
 * is run, and the row says how it must end: exit code and the words of its one line.
 *
 * Each command of a table is first run on the sound world, so that a row cannot fail for another
 * reason. Then, for every row: the exit code; one line on stderr that names the damaged file, holds
 * the row's words, and (but for usage, where that is clear) says what to do about it; no file in
 * the world is made, changed, removed or left half written. Commands write into new/: every other
 * row finds there what the sound run made, the others find it empty, as do all of merge, which
 * overwrites no model. */
#ifndef SAILS_TEST_BAD_ROWS_H
#define SAILS_TEST_BAD_ROWS_H

#include "data/buf.h"
#include "tests/program.h"

/* How a file is damaged: changes its bytes, or takes it away (false). */
typedef struct Damage {
    const char *file;
    bool (*apply)(Buf *bytes, const struct Damage *d);
    const char *a, *b;
    long at;
    size_t n;
} Damage;

typedef struct Row {
    int code;
    Damage damage;
    const char *command, *words;
} Row;

/* --------------------------------------------------------------------------------- damages -- */

static inline bool damage_gone(Buf *bytes, const Damage *d) {
    (void)bytes, (void)d;
    return false;
}

/* Cut to n bytes; n SIZE_MAX: to half. */
static inline bool damage_cut(Buf *bytes, const Damage *d) {
    size_t n = d->n == SIZE_MAX ? bytes->n / 2 : d->n;
    CHECK(n <= bytes->n, "%s has %zu bytes", d->file, bytes->n);
    bytes->n = n;
    return true;
}

/* n bytes at offset `at`, from the end when it is below 0. */
static inline bool damage_put(Buf *bytes, const Damage *d) {
    size_t at = d->at < 0 ? bytes->n - (size_t)-d->at : (size_t)d->at;
    CHECK(at + d->n <= bytes->n, "%s has %zu bytes", d->file, bytes->n);
    memcpy(bytes->p + at, d->a, d->n);
    return true;
}

/* The n bytes of a are the whole file. */
static inline bool damage_is(Buf *bytes, const Damage *d) {
    bytes->n = 0;
    buf_add(bytes, d->a, d->n);
    return true;
}

/* The first a becomes b. */
static inline bool damage_swap(Buf *bytes, const Damage *d) {
    size_t na = strlen(d->a), nb = strlen(d->b);
    const char *from = memmem(bytes->p, bytes->n, d->a, na);
    CHECK(from, "%s does not hold %s", d->file, d->a);
    size_t at = (size_t)(from - bytes->p), n = bytes->n - na + nb;
    char *out = mem_array(n, 1);
    memcpy(out, bytes->p, at);
    memcpy(out + at, d->b, nb);
    memcpy(out + at + nb, from + na, n - at - nb);
    buf_free(bytes);
    *bytes = (Buf){out, n, n};
    return true;
}

/* As many times a as make n bytes. */
static inline bool damage_many(Buf *bytes, const Damage *d) {
    bytes->n = 0;
    while (bytes->n < d->n) buf_add(bytes, d->a, strlen(d->a));
    return true;
}

/* A safetensors file of header a and n zeros. */
static inline bool damage_tensors(Buf *bytes, const Damage *d) {
    uint64_t length = strlen(d->a);
    bytes->n = 0;
    buf_add(bytes, (const char *)&length, 8);
    buf_add(bytes, d->a, length);
    for (size_t i = 0; i < d->n; i++) buf_byte(bytes, 0);
    return true;
}

#define GONE(file) \
    { file, damage_gone, NULL, NULL, 0, 0 }
#define EMPTY(file) \
    { file, damage_cut, NULL, NULL, 0, 0 }
#define HALF(file) \
    { file, damage_cut, NULL, NULL, 0, SIZE_MAX }
#define PUT(file, at, bytes) \
    { file, damage_put, bytes, NULL, at, sizeof bytes - 1 }
#define IS(file, text) \
    { file, damage_is, text, NULL, 0, sizeof text - 1 }
#define SWAP(file, from, to) \
    { file, damage_swap, from, to, 0, 0 }
#define MANY(file, text, size) \
    { file, damage_many, text, NULL, 0, size }
#define TENSORS(file, header, size) \
    { file, damage_tensors, header, NULL, 0, size }

/* NaN as the last element of a file of f32, and as a double. */
#define NAN_F32 "\0\0\xc0\x7f"
#define NAN_F64 "\0\0\0\0\0\0\xf8\x7f"

/* ------------------------------------------------------------------------------ the world -- */

/* Reads a file of the world; false when it is not there. */
static inline bool read_bytes(Buf *bytes, const char *path) {
    Err err;
    *bytes = (Buf){0};
    if (!files_exists(path)) return false;
    MUST(files_read(&bytes->p, &bytes->n, path, (size_t)1 << 30, &err), err);
    return true;
}

static inline void write_bytes(const char *path, const Buf *bytes) {
    FILE *f = fopen(path, "wb"); /* in place, so that links stay what they are */
    CHECK(f && (bytes->n == 0 || fwrite(bytes->p, 1, bytes->n, f) == bytes->n) && fclose(f) == 0,
          "%s", path);
}

static inline void write_text(const char *path, const char *text) {
    Err err;
    MUST(files_write(path, text, strlen(text), &err), err);
}

#define MODEL "--model model --dtype f32 --threads 2 "
#define SOME_DATA "--max-length 128 --data.limit 6 "
#define TRAIN_ON                                                           \
    "train " MODEL SOME_DATA                                               \
    "--data pairs.jsonl --batch 3 --steps 2 --rank 4 --lr 1e-3 --out new/" \
    "adapter "

/* The world that every table starts from, as the working folder: what the steps of the method read
 * and write, each made by the program itself. */
static inline void bad_world(void) {
    world_make();
    CHECK(chdir(world) == 0 && mkdir("new", 0777) == 0, "%s", world);
    program_must(
        "init --layers 4 --hidden 64 --ffn 96 --heads 4 --kv-heads 2 --head-dim 16 "
        "--tokenizer model --shard 0.0003 --dtype f32 --out sharded");
    program_must("train " MODEL SOME_DATA
                 "--data pairs.jsonl --init lora --rank 2 --steps 1 --batch 3 --out adapter");
    program_must("score " MODEL SOME_DATA
                 "--data pairs.jsonl --sae sae/{layer} --layers 1,2 --out scores");
    program_must("subspace --scores scores --top-k 6 --rank 4 --out basis");
    program_must("moments " MODEL SOME_DATA "--data pairs.jsonl --layers 1,2 --out moments");
    program_must("generate " MODEL "--prompts prompts.jsonl --max-new-tokens 3 --out responses");
    write_text("judgements",
               "{\"id\": \"1\", \"score\": 1}\n{\"id\": \"2\", \"score\": 5}\n"
               "{\"id\": \"3\", \"score\": 2}\n{\"id\": \"4\", \"score\": 3}\n"
               "{\"id\": \"5\", \"score\": 4, \"reason\": \"helps\"}\n");
}

/* -------------------------------------------------------------------------------- the rows -- */

/* Room for the outputs: none of them there, or what the sound run made. */
static inline void set_aside(bool aside) {
    CHECK(aside ? rename("new", "aside") == 0 && mkdir("new", 0777) == 0
                : rename("aside", "new") == 0,
          "new: %s", strerror(errno));
}

static inline void check_row(const Row *row, bool fresh) {
    const Damage *d = &row->damage;
    Buf sound, bad;
    bool there = read_bytes(&sound, d->file);
    read_bytes(&bad, d->file);
    if (d->apply(&bad, d))
        write_bytes(d->file, &bad);
    else
        unlink(d->file);
    if (fresh) set_aside(true);
    Tree before = tree_read(".");
    Ended e = program_run(row->command);
    Tree after = tree_read(".");
    const char *name = d->file, *change = tree_difference(&before, &after);
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    EXPECT(e.code == row->code, "%s, %s: exit %d, expected %d: %s", name, row->words, e.code,
           row->code, e.err);
    EXPECT(program_one_line(e.err, row->words), "%s: expected one line with \"%s\", got: %s", name,
           row->words, e.err);
    EXPECT(strstr(e.err, base) &&
               (!slash || memmem(e.err, strlen(e.err), name, (size_t)(slash - name))),
           "%s: expected folder and file in: %s", name, e.err);
    EXPECT(row->code == EXIT_USAGE || strchr(e.err, ';') || strchr(e.err, '?'),
           "%s: expected a remedy in: %s", name, e.err);
    EXPECT(!change, "%s, %s: changed %s", name, row->words, change ? change : "");
    tree_free(&before), tree_free(&after);
    if (fresh) {
        CHECK(system("rm -r new") == 0, "new"); /* what was left in it is reported above */
        set_aside(false);
    }
    if (there)
        write_bytes(d->file, &sound);
    else
        unlink(d->file);
    buf_free(&sound), buf_free(&bad);
}

static inline void check_rows(const Row *row, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t j = 0; j < i && !known; j++)
            known = strcmp(row[j].command, row[i].command) == 0;
        if (!known) program_must(row[i].command);
        check_row(&row[i], i % 2 == 0 || strncmp(row[i].command, "merge ", 6) == 0);
    }
}

#endif
