/* pack.c - documents side by side, with positions, segments and labels. */
#include "data/base/pack.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

static void *array(int n, size_t size) {
    void *p = calloc((size_t)n + 1, size);
    CHECK(p, "out of memory");
    return p;
}

void pack_init(Pack *p, int max_rows, int max_segs, int max_labels) {
    *p = (Pack){.max_rows = max_rows, .max_segs = max_segs, .max_labels = max_labels};
    p->token = array(max_rows, sizeof *p->token);
    p->pos = array(max_rows, sizeof *p->pos);
    p->seg = array(max_segs, sizeof *p->seg);
    p->label_row = array(max_labels, sizeof *p->label_row);
    p->label_target = array(max_labels, sizeof *p->label_target);
    p->label_doc = array(max_labels, sizeof *p->label_doc);
}

void pack_free(Pack *p) {
    free(p->token), free(p->pos), free(p->seg);
    free(p->label_row), free(p->label_target), free(p->label_doc);
    memset(p, 0, sizeof *p);
}

void pack_clear(Pack *p) {
    p->N = p->nseg = p->nlabel = 0;
}

static void add(Pack *p, Segment s, int row_before, const int32_t *token, const uint8_t *label,
                int doc) {
    CHECK(s.len > 0 && p->N + s.len <= p->max_rows && p->nseg < p->max_segs,
          "expected room for %d rows, have %d of %d", s.len, p->N, p->max_rows);
    p->seg[p->nseg++] = s;
    for (int t = 0; t < s.len; t++) {
        int row = p->N + t, from = t ? row - 1 : row_before;
        p->token[row] = token[t];
        p->pos[row] = s.prefix_len + t;
        if (!label || !label[t]) continue;
        CHECK(from >= 0, "expected the first token of a document to be no target");
        CHECK(p->nlabel < p->max_labels, "expected at most %d labels", p->max_labels);
        p->label_row[p->nlabel] = from;
        p->label_target[p->nlabel] = token[t];
        p->label_doc[p->nlabel++] = doc;
    }
    p->N += s.len;
}

void pack_add(Pack *p, const int32_t *token, const uint8_t *label, int n, int doc) {
    add(p, (Segment){.row = p->N, .len = n}, -1, token, label, doc);
}

void pack_add_branch(Pack *p, int prefix, int prefix_len, const int32_t *token,
                     const uint8_t *label, int n, int doc) {
    CHECK(prefix >= 0 && prefix < p->nseg, "prefix %d of %d segments", prefix, p->nseg);
    Segment s = p->seg[prefix];
    CHECK(s.prefix_len == 0 && prefix_len > 0 && prefix_len <= s.len, "prefix of %d rows in %d",
          prefix_len, s.len);
    add(p, (Segment){.row = p->N, .len = n, .prefix_row = s.row, .prefix_len = prefix_len},
        s.row + prefix_len - 1, token, label, doc);
}
