/* study_impl.h - what the studies' files share: how columns are written, and keys. */
#ifndef SAILS_THEORY_STUDY_IMPL_H
#define SAILS_THEORY_STUDY_IMPL_H

#include <math.h>

#include "data/base/mem.h"
#include "host/theory/closed.h"
#include "host/theory/study.h"

#define KEY(name) \
    { name, COLUMN_KEY, COLUMN_SHOWN }
#define MEASURED(name) \
    { name, COLUMN_MEASURED, COLUMN_SHOWN }
#define CLOSED(name) \
    { name, COLUMN_CLOSED, COLUMN_SHOWN }
#define MEASURED_TOO(name) \
    { name, COLUMN_MEASURED, COLUMN_IN_CSV }
#define CLOSED_TOO(name) \
    { name, COLUMN_CLOSED, COLUMN_IN_CSV }
#define COLUMNS(list) list, (int)(sizeof list / sizeof *list)

enum { PIPELINE_MOST = 32 }; /* features that it chooses at most */

static inline int study_keys(double *key, const double *from, int n) {
    memcpy(key, from, (size_t)n * sizeof *key);
    return n;
}

/* Without loud features, whatever the flags say. */
static inline WorldShape study_quiet(const StudySpec *spec) {
    WorldShape s = spec->shape;
    s.loud = 0;
    return s;
}

extern const Measure measure_eps, measure_documents, measure_rank, measure_pairs, measure_contrast,
    measure_coherence, measure_selection, measure_pipeline, measure_crosstalk, measure_trained;

#endif
