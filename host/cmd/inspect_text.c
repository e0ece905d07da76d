/* inspect_text.c - the table of an inspector, written as to a file. */
#include <stdlib.h>

#include "host/cmd/inspect.h"
#include "kernels/check.h"

static char *text;
static size_t text_bytes;

FILE *text_begin(void) {
    FILE *f = open_memstream(&text, &text_bytes);
    CHECK(f, "out of memory");
    return f;
}

void text_end(FILE *f, json_t *facts) {
    CHECK(fclose(f) == 0, "out of memory");
    json_object_set_new(facts, "_text", json_stringn(text, text_bytes));
    free(text);
}
