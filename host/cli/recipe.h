/* recipe.h - a strict subset of YAML, read into a flat list of keys and values.
 *
 *   key: scalar            out: runs/first
 *   key: [a, b, c]         or the same as a block sequence: joined by commas
 *   section:               one level of sections
 *     key: scalar          -> "section.key"
 *
 * Refused, with line: duplicate keys, deeper nesting, anchors, aliases, tags, several documents,
 * NUL bytes, an empty value that is not quoted, a comma inside an element of a sequence. */
#ifndef SAILS_RECIPE_H
#define SAILS_RECIPE_H

#include <stddef.h>
#include <stdio.h>

#include "data/base/err.h"

typedef struct RecipeEntry {
    char *key;   /* "train.lr" */
    char *value; /* as written, quotes removed */
    int line;    /* from 1 */
    bool list;   /* was a sequence */
} RecipeEntry;

typedef struct Recipe {
    RecipeEntry *entry;
    int n;
} Recipe;

/* `name` is what messages call the source. At most 1 MB. */
bool recipe_parse(Recipe *r, const char *text, size_t len, const char *name, Err *err);
bool recipe_read(Recipe *r, const char *path, Err *err);
void recipe_free(Recipe *r); /* accepts a zeroed struct */

/* Writes a scalar, valid UTF-8, so that it reads back as the same text: quoted where YAML needs it.
 */
void recipe_write_scalar(FILE *f, const char *text);

#endif
