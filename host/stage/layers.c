/* layers.c - "5,10-12" to layer numbers. */
#include "host/stage/layers.h"

#include <stdio.h>

#include "data/base/mem.h"
#include "host/cli/settings.h"

/* "7" or "3-9": the text of one element. */
static bool parse_range(const char *text, int *first, int *last) {
    int used = 0;
    if (strspn(text, "0123456789-") != strlen(text) || strlen(text) > 20) return false;
    if (sscanf(text, "%9d-%9d%n", first, last, &used) == 2 && text[used] == 0)
        return *first >= 0 && *last >= *first;
    used = 0;
    if (sscanf(text, "%9d%n", first, &used) != 1 || text[used] != 0) return false;
    *last = *first;
    return *first >= 0;
}

bool layers_parse(Layers *l, const char *list, int model_layers, Err *err) {
    *l = (Layers){0};
    bool *on = mem_array((size_t)model_layers, sizeof *on);
    bool ok = true;
    int count = list_count(list);
    for (int i = 0; i < count && ok; i++) {
        char item[24];
        int first = 0, last = -1;
        ok = list_item(list, i, item, sizeof item) && parse_range(item, &first, &last);
        if (!ok)
            err_set(err, EXIT_USAGE, "--layers: expected numbers or ranges such as 5,10-12, got %s",
                    list);
        else if (last >= model_layers)
            ok = err_set(err, EXIT_USAGE, "--layers: expected 0 to %d, the model's layers, got %d",
                         model_layers - 1, last);
        for (int k = first; ok && k <= last; k++) on[k] = true;
    }
    if (ok && count == 0) ok = err_set(err, EXIT_USAGE, "--layers: expected at least one layer");
    l->layer = mem_array((size_t)model_layers, sizeof *l->layer);
    for (int k = 0; ok && k < model_layers; k++)
        if (on[k]) l->layer[l->n++] = k;
    free(on);
    if (!ok) layers_free(l);
    return ok;
}

void layers_free(Layers *l) {
    free(l->layer);
    *l = (Layers){0};
}
