/* pack.h - packed token rows: what data/ makes and model/ consumes.
 *
 * A pack holds whole documents one behind the other, without padding. Documents never see each
 * other (segments) and each starts at position 0. Host memory. */
#ifndef SAILS_PACK_H
#define SAILS_PACK_H

#include <stdint.h>

#include "kernels/ops.h"

typedef struct Pack {
    int N, nseg, nlabel;
    int max_rows, max_segs, max_labels;
    int32_t *token, *pos;  /* (N) */
    Segment *seg;          /* (nseg) */
    int32_t *label_row;    /* (nlabel) the row whose output predicts ... */
    int32_t *label_target; /* (nlabel) ... this token */
    int32_t *label_doc;    /* (nlabel) caller's number of the document */
} Pack;

void pack_init(Pack *p, int max_rows, int max_segs, int max_labels);
void pack_free(Pack *p); /* accepts a zeroed pack */
void pack_clear(Pack *p);

/* Appends a document of n tokens; label[t] != 0 marks token t as a target (t >= 1). */
void pack_add(Pack *p, const int32_t *token, const uint8_t *label, int n, int doc);

/* Appends a continuation of an earlier segment `prefix` (its number) that has no prefix itself;
 * it sees that segment's first prefix_len rows. Its first token may be a target: the row that
 * predicts it is the prefix's last one. */
void pack_add_branch(Pack *p, int prefix, int prefix_len, const int32_t *token,
                     const uint8_t *label, int n, int doc);

#endif
