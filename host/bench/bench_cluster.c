/* bench_cluster.c - how a step grows with the ranks, by formulas and other people's measurements.
 *
 * P packs take ceil(P / N) rounds. After each the round's gradients are exchanged: on a node of n
 * GPUs a rank sends and takes S (n - 1) / n bytes over NVLink; of M nodes the sums of each then
 * cross the network, S / n (M - 1) / M a rank. That goes on behind the next round's work; exposed
 * are the last round's, the way back of the sums, which is as long, and the adding. */
#include "host/bench/bench_cluster.h"

#include <math.h>
#include <stdio.h>

#include "kernels/cuda_memory.h"

/* Bytes a second of a GPU and seconds of a collective: a ring's bus bandwidth on eight H100 and an
 * NDR adapter for each, as others have measured them (nccl-tests issues 212 and 290, nccl issue
 * 1506); latencies and the adding of eight rows are estimates. */
static const double nvlink = 370e9, network = 47e9, start_node = 60e-6, start_network = 100e-6;
static const double adding = 100e-6;
enum { NODE = 8 };

static double one_way(const Cluster *c, int ranks) {
    int n = ranks < NODE ? ranks : NODE, nodes = ranks / n;
    double t = 0;
    if (n > 1) t += start_node + c->gradients * (n - 1) / n / nvlink;
    if (nodes > 1) t += start_network + c->gradients / n * (nodes - 1) / nodes / network;
    return t;
}

/* Levels of the counter and the rows that a round brings, of one part each. */
static double tree_bytes(const Cluster *c, int packs, int ranks) {
    double levels = packs > 1 ? 1 + floor(log2(packs - 1)) : 0;
    return c->gradients / ranks * levels + (ranks > 1 ? 2 * c->gradients : 0);
}

static void print_ranks(const Cluster *c, const Table *t, int packs, int batch, int ranks) {
    int rounds = (packs + ranks - 1) / ranks;
    double exposed = ranks > 1 ? 2 * one_way(c, ranks) + adding : 0;
    double step = rounds * c->pack + c->optimiser + exposed;
    double alone = packs * c->pack + c->optimiser, efficiency = alone / (ranks * step);
    int peers = (ranks < NODE ? ranks : NODE) - 1;
    double memory = c->weights + c->activations + c->trained + tree_bytes(c, packs, ranks) +
                    (double)peers * PEER_BYTES;
    char row[256];
    snprintf(row, sizeof row, "%d,%d,%d,%s,%s,%s,%s,%s,%s", ranks, batch, packs,
             table_number(1e3 * step), table_number(1e3 * exposed),
             table_number(100 * exposed / step), table_number(100 * efficiency),
             table_number(packs * c->tokens / step), table_number(1e-9 * memory));
    table_row(t, "H100 SXM derived,cuda bf16", row);
}

void bench_cluster_print(const Cluster *c, int documents_per_pack, bool csv) {
    static const int width[] = {6, 7, 7, 10, 12, 10, 11, 12, 11}, batch[] = {64, 512};
    Table t = {csv, width, sizeof width / sizeof *width};
    table_row(&t, "device,twin",
              "ranks,batch,packs,step_ms,exposed_ms,percent,efficiency,tokens/s,GB_a_rank");
    for (int b = 0; b < 2; b++) {
        int packs = (batch[b] + documents_per_pack - 1) / documents_per_pack;
        for (int ranks = 1; ranks <= 64; ranks *= 2) print_ranks(c, &t, packs, batch[b], ranks);
        if (!csv && packs < 64)
            printf("%d documents: %d packs, so more than %d ranks gain nothing\n", batch[b], packs,
                   packs);
    }
}
