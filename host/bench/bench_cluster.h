/* bench_cluster.h - a training step on 1 to 64 GPUs, derived from one pack's on one of them. */
#ifndef SAILS_BENCH_CLUSTER_H
#define SAILS_BENCH_CLUSTER_H

#include "host/bench/bench.h"

typedef struct Cluster {
    double pack, optimiser; /* seconds: a pack forward and backward; the rest of a step */
    double tokens;          /* of a pack */
    double gradients;       /* bytes */
    double weights, activations,
        trained; /* bytes of a rank; trained: masters, gradients, moments .. */
} Cluster;

/* For a batch of 64 and of 512 documents, of which a pack holds so many. */
void bench_cluster_print(const Cluster *c, int documents_per_pack, bool csv);

#endif
