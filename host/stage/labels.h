/* labels.h - what features are said to be, from a file: nothing is asked of any site.
 *
 * The file is one JSON value or JSONL; {layer} in its path stands for the layer's number.
 *   {"17": "text", ..}                          index to text, of every layer that reads the file
 *   {"12": {"17": "text", ..}, ..}              the same by layers
 *   {"index": 17, "description": "text", ..}    entries, in a list or a line each, as Neuronpedia
 *                                               exports them: "index" may be text, "layer" a number
 *                                               or text that begins with it, "label" is read as
 *                                               "description" is
 * Of several entries for one feature the first counts. */
#ifndef SAILS_LABELS_H
#define SAILS_LABELS_H

#include <stddef.h>

#include "data/base/err.h"

typedef struct Label {
    int layer, index; /* layer -1: any */
    char *text;
} Label;

typedef struct Labels {
    Label *label;
    size_t n, capacity;
} Labels;

char *labels_path(const char *pattern, int layer); /* malloc */

/* Of one layer; `pattern` "": none. */
bool labels_read(Labels *l, const char *pattern, int layer, Err *err);
void labels_free(Labels *l); /* accepts a zeroed struct */

const char *labels_find(const Labels *l, int layer, int index); /* NULL: none */

#endif
