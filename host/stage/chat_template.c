/* chat_template.c - whether a tokenizer's own template is the one that is built in. */
#include "host/stage/chat_template.h"

#include <stdio.h>
#include <string.h>

#include "data/buf.h"
#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/sha256.h"

enum { FILE_BYTES = 16 << 20 };

/* SHA-256 of the template that Gemma and Gemma 2 are published with, as squeezed() leaves it. */
static const char gemmas[] = "6009ff7a41cf0525eae131a803919818c4aeaa609079fa6dc14b73cc3ec7be0c";

/* Without white space, and without the "-" of "{%-" and "-%}", which ask to leave some out. */
static Buf squeezed(const char *text, size_t n) {
    Buf out = {0};
    for (size_t i = 0; i < n; i++) {
        bool opens = i > 0 && (text[i - 1] == '%' || text[i - 1] == '{');
        bool closes = i + 1 < n && (text[i + 1] == '%' || text[i + 1] == '}');
        if (strchr(" \t\r\n", text[i]) || (text[i] == '-' && (opens || closes))) continue;
        buf_byte(&out, text[i]);
    }
    return out;
}

static bool is_gemmas(const char *text, size_t n) {
    Sha256 sha;
    unsigned char digest[32];
    char hex[65];
    Buf bare = squeezed(text, n);
    sha256_init(&sha);
    if (bare.n) sha256_add(&sha, bare.p, bare.n);
    sha256_done(&sha, digest);
    sha256_hex(hex, digest);
    buf_free(&bare);
    return strcmp(hex, gemmas) == 0;
}

/* A template, or a list of them with names, of which "default" is the one that counts. */
static const json_t *default_of(const json_t *value) {
    size_t i;
    const json_t *entry;
    json_array_foreach (value, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0) return json_object_get(entry, "template");
    }
    return value;
}

char *chat_template_other(const char *folder) {
    Err ignored; /* a file that cannot be read asks for nothing */
    char *jinja = files_join(folder, "chat_template.jinja"), *text = NULL;
    char *config = files_join(folder, "tokenizer_config.json"), *other = NULL;
    json_t *root = NULL;
    size_t n;
    if (files_exists(jinja)) {
        if (files_read(&text, &n, jinja, FILE_BYTES, &ignored) && !is_gemmas(text, n))
            other = mem_string(jinja);
    } else if (files_exists(config) && files_read_json(&root, config, FILE_BYTES, &ignored)) {
        const json_t *value = default_of(json_object_get(root, "chat_template"));
        if (json_is_string(value) &&
            !is_gemmas(json_string_value(value), json_string_length(value)))
            other = mem_string(config);
    }
    json_decref(root);
    free(text), free(config), free(jinja);
    return other;
}

void chat_template_notice(const char *folder) {
    char *other = chat_template_other(folder);
    if (other)
        fprintf(stderr,
                "sails: note: %s: has another chat template than Gemma's, which is the one "
                "that sails renders\n",
                other);
    free(other);
}
