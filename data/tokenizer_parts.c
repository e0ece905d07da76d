/* tokenizer_parts.c - the components of tokenizer.json that stand before and behind the model. */
#include "data/tokenizer_impl.h"

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "(no type)";
}

bool tokenizer_keys(const Tokenizer *t, const json_t *object, const char *where,
                    const char *const *known, Err *err) {
    if (!json_is_object(object))
        return err_set(err, EXIT_INPUT, "%s: %s: expected an object", t->path, where);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        int i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (!known[i])
            return err_set(err, EXIT_INPUT, "%s: %s: unknown key '%s', which might change the ids",
                           t->path, where, key);
    }
    return true;
}

static bool refuse(const Tokenizer *t, const char *where, const json_t *part, const char *expected,
                   Err *err) {
    return err_set(err, EXIT_INPUT, "%s: %s '%s' is not supported: expected %s", t->path, where,
                   json_is_null(part) ? "null" : type_of(part), expected);
}

/* The parts of a Sequence's list, or the part alone. */
static size_t part_count(const json_t *part, const char *list) {
    if (!part || json_is_null(part)) return 0;
    return strcmp(type_of(part), "Sequence") == 0 ? json_array_size(json_object_get(part, list))
                                                  : 1;
}

static const json_t *part_at(const json_t *part, const char *list, size_t i) {
    return strcmp(type_of(part), "Sequence") == 0 ? json_array_get(json_object_get(part, list), i)
                                                  : part;
}

/* {"String": s} with s not empty; NULL for anything else. */
static const json_t *string_pattern(const json_t *part) {
    const json_t *s = json_object_get(json_object_get(part, "pattern"), "String");
    return json_is_string(s) && json_string_length(s) > 0 ? s : NULL;
}

static bool load_replace(const Tokenizer *t, Replace **list, int *n, const json_t *part,
                         const char *where, Err *err) {
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    if (!tokenizer_keys(t, part, where, keys, err)) return false;
    const json_t *from = string_pattern(part), *to = json_object_get(part, "content");
    if (!from || !json_is_string(to))
        return err_set(err, EXIT_INPUT,
                       "%s: %s 'Replace': expected {\"pattern\":{\"String\":..},\"content\":..}, "
                       "no regular expression",
                       t->path, where);
    size_t capacity = (size_t)*n;
    *list = mem_grow(*list, &capacity, capacity + 1, sizeof **list);
    (*list)[(*n)++] = (Replace){
        .from = buf_copy(json_string_value(from), json_string_length(from)),
        .to = buf_copy(json_string_value(to), json_string_length(to)),
        .from_len = json_string_length(from),
        .to_len = json_string_length(to),
    };
    return true;
}

static bool load_normalizer(Tokenizer *t, const json_t *part, Err *err) {
    for (size_t i = 0; i < part_count(part, "normalizers"); i++) {
        const json_t *p = part_at(part, "normalizers", i);
        if (strcmp(type_of(p), "Replace") != 0)
            return refuse(t, "normalizer", p, "Replace of a string", err);
        if (!load_replace(t, &t->normalizer, &t->nnormalizer, p, "normalizer", err)) return false;
    }
    return true;
}

static bool load_pre_tokenizer(Tokenizer *t, const json_t *part, Err *err) {
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    static const char expected[] = "Split on a string, MergedWithPrevious, not inverted, once";
    for (size_t i = 0; i < part_count(part, "pretokenizers"); i++) {
        const json_t *p = part_at(part, "pretokenizers", i);
        if (strcmp(type_of(p), "Split") != 0 || t->split)
            return refuse(t, "pre_tokenizer", p, expected, err);
        if (!tokenizer_keys(t, p, "pre_tokenizer", keys, err)) return false;
        const json_t *pattern = string_pattern(p);
        const char *behavior = json_string_value(json_object_get(p, "behavior"));
        if (!pattern || !behavior || strcmp(behavior, "MergedWithPrevious") != 0 ||
            !json_is_false(json_object_get(p, "invert")))
            return refuse(t, "pre_tokenizer", p, expected, err);
        t->split_len = json_string_length(pattern);
        t->split = buf_copy(json_string_value(pattern), t->split_len);
    }
    return true;
}

static bool load_decoder(Tokenizer *t, const json_t *part, Err *err) {
    static const char expected[] = "Replace, then ByteFallback, then Fuse";
    if (!part || json_is_null(part))
        return err_set(err, EXIT_INPUT, "%s: decoder: expected %s, got none", t->path, expected);
    int stage = 0; /* of Replace 0, ByteFallback 1, Fuse 2: never backwards */
    for (size_t i = 0; i < part_count(part, "decoders"); i++) {
        const json_t *p = part_at(part, "decoders", i);
        const char *type = type_of(p);
        int is = strcmp(type, "Replace") == 0        ? 0
                 : strcmp(type, "ByteFallback") == 0 ? 1
                 : strcmp(type, "Fuse") == 0         ? 2
                                                     : -1;
        if (is < stage) return refuse(t, "decoder", p, expected, err);
        stage = is;
        if (is == 0 && !load_replace(t, &t->decoder, &t->ndecoder, p, "decoder", err)) return false;
        if (is == 1) t->decode_bytes = true;
    }
    return true;
}

/* Training text starts with one BOS and has nothing else around it, so that is what a template
 * may add. */
static bool load_post_processor(Tokenizer *t, const json_t *part, Err *err) {
    static const char expected[] = "null or a TemplateProcessing of BOS and the text";
    if (!part || json_is_null(part)) return true;
    const json_t *single = json_object_get(part, "single"), *piece;
    if (strcmp(type_of(part), "TemplateProcessing") != 0 || !json_is_array(single))
        return refuse(t, "post_processor", part, expected, err);
    size_t i, last = json_array_size(single) - 1;
    json_array_foreach (single, i, piece) {
        bool text = json_object_get(piece, "Sequence") != NULL;
        if (text != (i == last) || i > 1) return refuse(t, "post_processor", part, expected, err);
    }
    return true;
}

bool tokenizer_load_parts(Tokenizer *t, const json_t *root, Err *err) {
    return load_normalizer(t, json_object_get(root, "normalizer"), err) &&
           load_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), err) &&
           load_decoder(t, json_object_get(root, "decoder"), err) &&
           load_post_processor(t, json_object_get(root, "post_processor"), err);
}
