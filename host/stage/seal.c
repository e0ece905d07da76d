/* seal.c - hashing an object's text. */
#include "host/stage/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/base/sha256.h"
#include "kernels/check.h"

static void hash(char hex[65], json_t *object, const char *under) {
    json_object_del(object, "sha256");
    char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    CHECK(text, "a JSON value could not be written");
    unsigned char digest[32];
    Sha256 s;
    sha256_init(&s);
    sha256_add(&s, under, strlen(under));
    sha256_add(&s, text, strlen(text));
    sha256_done(&s, digest);
    sha256_hex(hex, digest);
    free(text);
}

void seal_set(char hex[65], json_t *object, const char *under) {
    hash(hex, object, under);
    json_object_set_new(object, "sha256", json_string(hex));
}

bool seal_holds(char hex[65], json_t *object, const char *under, const char *where, Err *err) {
    char was[65] = "";
    const char *sealed = json_string_value(json_object_get(object, "sha256"));
    if (sealed) snprintf(was, sizeof was, "%s", sealed);
    hash(hex, object, under);
    return strcmp(hex, was) == 0 ||
           err_set(err, EXIT_INPUT, "%s: expected SHA-256 %.16s.., found %.16s..", where, was, hex);
}
