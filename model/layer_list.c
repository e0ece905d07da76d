/* layer_list.c - lists of layer numbers as text, and back. */
#include "model/layer_list.h"

#include <stdio.h>

#include "data/base/mem.h"

const char *layer_key(char key[LAYER_KEY], int layer, const char *what) {
    snprintf(key, LAYER_KEY, "layer.%d.%s", layer, what);
    return key;
}

void layer_list_write(StWriter *w, const int *layer, int n) {
    size_t room = (size_t)n * 8 + 1, used = 0;
    char *list = mem_array(room, 1);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(list + used, room - used, "%s%d", i ? "," : "", layer[i]);
    st_writer_meta(w, "layers", list);
    free(list);
}

/* Numbers in the list, -1 when it is no such list; with layer NULL it only counts. */
static int parse(int *layer, const char *list) {
    int n = 0, last = -1;
    for (const char *p = list; p; n++) {
        char *end;
        long v = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : -1;
        if (v <= last || v >= LAYER_LIMIT || (*end != 0 && *end != ',')) return -1;
        last = (int)v;
        if (layer) layer[n] = last;
        p = *end ? end + 1 : NULL;
    }
    return n;
}

bool layer_list_read(int **layer, int *n, const StSet *set, const char *path, Err *err) {
    const char *list = st_metadata(set, "layers");
    *n = parse(NULL, list);
    if (*n <= 0)
        return err_set(err, EXIT_INPUT, "%s: expected metadata \"layers\" such as 5,10,15", path);
    *layer = mem_array((size_t)*n, sizeof **layer);
    parse(*layer, list);
    return true;
}

bool layer_tensor_read(void *to, const StSet *set, int layer, const char *what, enum StType type,
                       int rank, const size_t *dim, Err *err) {
    char key[LAYER_KEY];
    const StTensor *t;
    if (!st_need_type(set, &t, layer_key(key, layer, what), type, rank, dim, err)) return false;
    if (t->bytes) memcpy(to, t->data, t->bytes);
    return true;
}
