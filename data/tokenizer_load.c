/* tokenizer_load.c - the tables of a tokenizer.json. Everything in the file is checked first: ids
 * are bounded, every piece that a merge names is in the vocabulary, every key is known. */
#include <sys/stat.h>

#include "data/tokenizer_impl.h"
#include "data/base/files.h"

enum {
    FILE_LIMIT = 1 << 28, /* bytes; Gemma's file has 17 to 34 MB */
    MERGE_BLOCK = 64
};

static bool check_id(Tokenizer *t, const json_t *id, const char *where, Err *err) {
    json_int_t v = json_integer_value(id);
    if (!json_is_integer(id) || v < 0 || v > TOKENIZER_MAX_ID)
        return err_set(err, EXIT_INPUT, "%s: %s: expected an id from 0 to %d", t->path, where,
                       TOKENIZER_MAX_ID);
    if (v >= t->npieces) t->npieces = (int)v + 1;
    return true;
}

/* All ids are in range before the first table is made. */
static bool check_ids(Tokenizer *t, const json_t *vocab, const json_t *added, Err *err) {
    const char *key;
    json_t *value;
    size_t i;
    if (!json_is_object(vocab))
        return err_set(err, EXIT_INPUT, "%s: model.vocab: expected an object", t->path);
    if (added && !json_is_array(added))
        return err_set(err, EXIT_INPUT, "%s: added_tokens: expected a list", t->path);
    json_object_foreach ((json_t *)vocab, key, value)
        if (!check_id(t, value, "model.vocab", err)) return false;
    json_array_foreach ((json_t *)added, i, value)
        if (!check_id(t, json_object_get(value, "id"), "added_tokens", err)) return false;
    return true;
}

/* Makes `id`, which has been checked, stand for s. */
static bool add_piece(Tokenizer *t, json_int_t id, const char *s, size_t len, Err *err) {
    if (t->piece[id].len >= 0)
        return err_set(err, EXIT_INPUT, "%s: id %d stands for two pieces", t->path, (int)id);
    t->piece[id].at = t->pool.n;
    t->piece[id].len = (int32_t)len;
    buf_add(&t->pool, s, len);
    buf_byte(&t->pool, 0);
    return true;
}

static bool load_vocab(Tokenizer *t, const json_t *vocab, Err *err) {
    size_t n = json_object_size(vocab);
    t->piece = mem_array((size_t)t->npieces, sizeof *t->piece);
    tokenizer_vocab_init(t, n);
    for (int i = 0; i < t->npieces; i++) t->piece[i] = (Piece){.len = -1};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)vocab, key, value) {
        size_t len = strlen(key); /* the parser lets no key hold a NUL */
        int32_t id = (int32_t)json_integer_value(value);
        if (!add_piece(t, id, key, len, err)) return false;
        tokenizer_vocab_add(t, id);
    }
    for (int c = 0; c < 128; c++) t->ascii[c] = tokenizer_vocab_find(t, (char[]){(char)c}, 1);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        t->byte[b] = tokenizer_vocab_find(t, name, 6);
    }
    return true;
}

/* The two halves of a merge, written "a b" or ["a","b"]. */
static bool merge_halves(const json_t *merge, const char *half[2], size_t len[2]) {
    if (json_is_string(merge)) {
        const char *s = json_string_value(merge), *end = s + json_string_length(merge);
        const char *space = memchr(s, ' ', (size_t)(end - s));
        if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1))) return false;
        half[0] = s, len[0] = (size_t)(space - s);
        half[1] = space + 1, len[1] = (size_t)(end - space - 1);
        return true;
    }
    if (!json_is_array(merge) || json_array_size(merge) != 2) return false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *s = json_array_get(merge, i);
        if (!json_is_string(s)) return false;
        half[i] = json_string_value(s), len[i] = json_string_length(s);
    }
    return true;
}

static bool is_mark_at(const char *s, size_t n, size_t at) {
    size_t mark = sizeof SPACE_MARK - 1;
    return at + mark <= n && memcmp(s + at, SPACE_MARK, mark) == 0;
}

/* True for a merge that joins a space mark to something before it that does not end in one. */
static bool crosses_mark(const char *const half[2], const size_t len[2]) {
    size_t mark = sizeof SPACE_MARK - 1;
    return is_mark_at(half[1], len[1], 0) &&
           !(len[0] >= mark && is_mark_at(half[0], len[0], len[0] - mark));
}

static bool bad_merge(const Tokenizer *t, size_t rank, const char *expected, Err *err) {
    return err_set(err, EXIT_INPUT, "%s: model.merges[%zu]: expected %s", t->path, rank, expected);
}

/* Some merges in a row, ranked from `rank` on. */
static bool load_merge_block(Tokenizer *t, const json_t *const *merge, size_t n, size_t rank,
                             Err *err) {
    const char *half[MERGE_BLOCK][2];
    size_t len[MERGE_BLOCK][2];
    Lookup look[3 * MERGE_BLOCK];
    Buf whole = {0}; /* the merged pieces, one behind the other */
    for (size_t i = 0; i < n; i++) {
        if (!merge_halves(merge[i], half[i], len[i])) {
            buf_free(&whole);
            return bad_merge(t, rank + i, "\"a b\" or [\"a\",\"b\"]", err);
        }
        buf_add(&whole, half[i][0], len[i][0]);
        buf_add(&whole, half[i][1], len[i][1]);
    }
    for (size_t i = 0, at = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) look[3 * i + k] = (Lookup){.s = half[i][k], .n = len[i][k]};
        look[3 * i + 2] = (Lookup){.s = whole.p + at, .n = len[i][0] + len[i][1]};
        at += look[3 * i + 2].n;
    }
    tokenizer_vocab_find_all(t, look, 3 * n);
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(
            tokenizer_merge_home(t, tokenizer_pair(look[3 * i].id, look[3 * i + 1].id)));
    buf_free(&whole);
    for (size_t i = 0; i < n; i++) {
        const Lookup *l = look + 3 * i;
        if (l[0].id < 0 || l[1].id < 0 || l[2].id < 0)
            return bad_merge(t, rank + i, "both halves and the whole in model.vocab", err);
        uint64_t pair = tokenizer_pair(l[0].id, l[1].id);
        MergeSlot *slot = tokenizer_merge_slot(t, pair); /* of a pair twice, the later counts */
        *slot = (MergeSlot){.pair = pair, .rank = (uint32_t)(rank + i), .id = l[2].id};
        if (crosses_mark(half[i], len[i])) t->split_at_marks = false;
    }
    return true;
}

/* Where nothing merges across "x▁", cutting there changes nothing, as long as the mark is one known
 * piece and no other text is written with pieces that end in it. */
static bool marks_are_plain(const Tokenizer *t) {
    size_t mark = sizeof SPACE_MARK - 1, n = 0;
    const char *unk = tokenizer_piece(t, t->unk, &n);
    return tokenizer_vocab_find(t, SPACE_MARK, mark) >= 0 &&
           !(unk && n >= mark && is_mark_at(unk, n, n - mark));
}

static bool load_merges(Tokenizer *t, const json_t *merges, Err *err) {
    size_t n = json_array_size(merges), i, rank = 0, waiting = 0;
    if (!json_is_array(merges) || n >= UINT32_MAX)
        return err_set(err, EXIT_INPUT, "%s: model.merges: expected a list", t->path);
    t->merge_mask = tokenizer_table_size(n) - 1;
    t->merge = mem_array(t->merge_mask + 1, sizeof *t->merge);
    for (i = 0; i <= t->merge_mask; i++) t->merge[i].pair = EMPTY_PAIR;
    t->split_at_marks = marks_are_plain(t);
    const json_t *merge, *block[MERGE_BLOCK];
    json_array_foreach (merges, i, merge) {
        const char *s = json_string_value(merge);
        if (s && strncmp(s, "#version", 8) == 0) continue; /* a header line of old files */
        block[waiting++] = merge;
        if (waiting < MERGE_BLOCK) continue;
        if (!load_merge_block(t, block, waiting, rank, err)) return false;
        rank += waiting, waiting = 0;
    }
    return load_merge_block(t, block, waiting, rank, err);
}

static bool flag(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

static bool load_model(Tokenizer *t, const json_t *model, const json_t *added, Err *err) {
    static const char *const keys[] = {
        "type",          "dropout",       "unk_token", "continuing_subword_prefix",
        "fuse_unk",      "vocab",         "merges",    "end_of_word_suffix",
        "byte_fallback", "ignore_merges", NULL};
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!tokenizer_keys(t, model, "model", keys, err)) return false;
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type || strcmp(type, "BPE") != 0)
        return err_set(err, EXIT_INPUT, "%s: model '%s' is not supported: expected BPE", t->path,
                       type ? type : "(no type)");
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        return err_set(err, EXIT_INPUT, "%s: model.dropout: expected null, or ids would be random",
                       t->path);
    for (size_t i = 0; i < 2; i++)
        if (json_string_length(json_object_get(model, empty[i])) > 0)
            return err_set(err, EXIT_INPUT, "%s: model.%s is not supported: expected null", t->path,
                           empty[i]);
    t->fuse_unk = flag(model, "fuse_unk");
    t->byte_fallback = flag(model, "byte_fallback");
    t->ignore_merges = flag(model, "ignore_merges");
    const json_t *vocab = json_object_get(model, "vocab");
    if (!check_ids(t, vocab, added, err) || !load_vocab(t, vocab, err)) return false;
    const json_t *unk = json_object_get(model, "unk_token");
    t->unk = -1;
    if (json_is_string(unk)) {
        t->unk = tokenizer_vocab_find(t, json_string_value(unk), json_string_length(unk));
        if (t->unk < 0)
            return err_set(err, EXIT_INPUT, "%s: model.unk_token: '%s' is not in model.vocab",
                           t->path, json_string_value(unk));
    }
    return load_merges(t, json_object_get(model, "merges"), err);
}

static bool load_added(Tokenizer *t, const json_t *added, const json_t *model, Err *err) {
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    size_t n = json_array_size(added), i;
    t->added = mem_array(n, sizeof *t->added);
    /* The library numbers tokens that the model lacks itself, behind all others. */
    int32_t next = (int32_t)json_object_size(json_object_get(model, "vocab"));
    const json_t *one;
    json_array_foreach (added, i, one) {
        if (!tokenizer_keys(t, one, "added_tokens", keys, err)) return false;
        const json_t *content = json_object_get(one, "content");
        const char *s = json_string_value(content);
        size_t len = json_string_length(content);
        if (!s || len == 0 || len > TOKENIZER_MAX_ADDED_LEN)
            return err_set(err, EXIT_INPUT,
                           "%s: added_tokens[%zu].content: expected a string of 1 to %d bytes",
                           t->path, i, TOKENIZER_MAX_ADDED_LEN);
        if (flag(one, "single_word"))
            return err_set(err, EXIT_INPUT,
                           "%s: added_tokens[%zu].single_word is not supported: expected false",
                           t->path, i);
        int32_t id = (int32_t)json_integer_value(json_object_get(one, "id"));
        int32_t known = tokenizer_vocab_find(t, s, len);
        if (known >= 0 && known != id)
            return err_set(err, EXIT_INPUT,
                           "%s: added_tokens[%zu]: '%s' has id %d here and %d in model.vocab",
                           t->path, i, s, id, known);
        if (known < 0 && id != next)
            return err_set(err, EXIT_INPUT,
                           "%s: added_tokens[%zu]: '%s' is not in model.vocab and has id %d: "
                           "expected %d, the next free one",
                           t->path, i, s, id, next);
        if (known < 0 && !add_piece(t, id, s, len, err)) return false;
        if (id >= next) next = id + 1;
        t->piece[id].special = flag(one, "special");
        t->added[t->nadded++] = (Added){.id = id,
                                        .lstrip = flag(one, "lstrip"),
                                        .rstrip = flag(one, "rstrip"),
                                        .normalized = flag(one, "normalized"),
                                        .content = buf_copy(s, len),
                                        .len = len};
    }
    return true;
}

static void fill_tries(Tokenizer *t) {
    Buf content = {0}, spare = {0};
    for (int i = 0; i < t->nadded; i++) {
        const Added *a = &t->added[i];
        if (!a->normalized) {
            trie_add(&t->raw, a->content, a->len, i);
            continue;
        }
        tokenizer_replace(t->normalizer, t->nnormalizer, a->content, a->len, &content, &spare);
        if (content.n > 0) trie_add(&t->normalized, content.p, content.n, i);
    }
    buf_free(&content), buf_free(&spare);
}

bool tokenizer_load(Tokenizer **out, const json_t *root, const char *path, Err *err) {
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    Tokenizer *t = mem_array(1, sizeof *t);
    t->path = mem_string(path);
    const json_t *added = json_object_get(root, "added_tokens");
    const json_t *model = json_object_get(root, "model");
    if (!tokenizer_keys(t, root, "tokenizer", keys, err) || !load_model(t, model, added, err) ||
        !load_added(t, added, model, err) || !tokenizer_load_parts(t, root, err)) {
        tokenizer_close(t);
        return err_remedy(err, "use the tokenizer.json that came with the model");
    }
    fill_tries(t);
    t->cache = mem_array(CACHE_SLOTS, sizeof *t->cache);
    *out = t;
    return true;
}

bool tokenizer_open(Tokenizer **t, const char *path, Err *err) {
    struct stat st;
    bool named = strchr(path, '.') != NULL; /* x/tokenizer.json is a file that is missing */
    if (!named && !files_no_hub_id(path, err)) return false;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    char *file = folder ? files_join(path, "tokenizer.json") : mem_string(path);
    json_t *root = NULL;
    bool ok = files_read_json(&root, file, FILE_LIMIT, err) && tokenizer_load(t, root, file, err);
    json_decref(root);
    free(file);
    return ok;
}

static void free_replaces(Replace *list, int n) {
    for (int i = 0; i < n; i++) free(list[i].from), free(list[i].to);
    free(list);
}

void tokenizer_close(Tokenizer *t) {
    if (!t) return;
    free(t->cache), free(t->heap), free(t->symbol);
    buf_free(&t->text), buf_free(&t->text2);
    free(t->raw.node), free(t->normalized.node);
    free(t->split);
    free_replaces(t->normalizer, t->nnormalizer), free_replaces(t->decoder, t->ndecoder);
    free(t->merge), free(t->vocab);
    for (int i = 0; i < t->nadded; i++) free(t->added[i].content);
    free(t->added), free(t->piece);
    buf_free(&t->pool);
    free(t->path), free(t->no_text), free(t);
}
