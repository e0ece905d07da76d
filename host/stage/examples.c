/* examples.c - documents and pairs as segments of a pack. */
#include "host/stage/examples.h"

int examples_docs(const Examples *e) {
    return e->shared ? 2 : 1;
}

size_t example_first(const Examples *e, size_t i) {
    return (size_t)examples_docs(e) * (e->index ? e->index[i] : i);
}

static int shared_of(const Examples *e, size_t i) {
    return e->shared ? e->shared[example_first(e, i) / 2] : 0;
}

PackSize example_size(const Examples *e, size_t i) {
    const Doc *d = &e->doc[example_first(e, i)];
    if (!e->shared) return (PackSize){d->n, 1, doc_labels(d)};
    return (PackSize){d[0].n + d[1].n - shared_of(e, i), 3, doc_labels(&d[0]) + doc_labels(&d[1])};
}

int example_tokens(const Examples *e, size_t i) {
    const Doc *d = &e->doc[example_first(e, i)];
    return e->shared ? d[0].n + d[1].n : d->n;
}

void example_add(Pack *p, const Examples *e, size_t i) {
    size_t first = example_first(e, i);
    const Doc *d = &e->doc[first];
    int shared = shared_of(e, i), prefix = p->nseg;
    if (!e->shared) {
        pack_add(p, d->token, d->label, d->n, (int)first);
        return;
    }
    pack_add(p, d->token, NULL, shared, (int)first);
    for (int s = 0; s < 2; s++)
        pack_add_branch(p, prefix, shared, d[s].token + shared, d[s].label + shared,
                        d[s].n - shared, (int)first + s);
}

PackSize pack_size_sum(PackSize a, PackSize b) {
    return (PackSize){a.rows + b.rows, a.segs + b.segs, a.labels + b.labels};
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

PackSize pack_size_most(PackSize a, PackSize b) {
    return (PackSize){larger(a.rows, b.rows), larger(a.segs, b.segs), larger(a.labels, b.labels)};
}
