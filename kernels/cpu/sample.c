/* sample.c - drawing the next token. Contract: ops.h.
 *
 * Nothing is sorted. Probabilities are integers (the contract says so), hence sums over any set
 * are exact in any order, and "the first token in falling order whose cumulative weight exceeds t"
 * is found by radix descent: tally weights by the leading bits of the logits, walk the tally from
 * the top to the bin in which the sum passes t, and look into that bin only, three times. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum {
    BITS = 11, /* of a key, resolved per level: 11 + 11 + 10 */
    BINS = 1 << BITS,
    SLICE = 1 << 15, /* elements tallied as one piece of work */
    BLOCK = 256,
    MAX_V = 1 << 23 /* so that the sum of all weights stays below 2^63 */
};

typedef struct Bin {
    uint64_t count, weight;
} Bin;

typedef struct Candidate {
    uint32_t key;
    int32_t token;
    uint64_t weight;
} Candidate;

enum Measure { BY_COUNT, BY_WEIGHT };

/* What a thread needs to draw from one row. */
typedef struct Row {
    const float *z;
    int V;
    float zmax, temperature;
    const Bin *bin;  /* tally of the leading BITS */
    Candidate *list; /* room for V */
} Row;

/* The largest key is the largest logit. -0 + 0 is +0: the two are a tie. */
static uint32_t key_of(float z) {
    return (uint32_t)scalar_order(z + 0.0f) ^ 0x80000000u;
}

static uint64_t weight_of(float z, float zmax, float temperature) {
    float e = scalar_exp((z - zmax) / temperature) * 0x1p40f;
    return (uint64_t)(e > 0 ? e : 0);
}

static void cap_slice(float *z, int n, float cap) {
#pragma omp simd
    for (int i = 0; i < n; i++) z[i] = scalar_softcap(z[i], cap);
}

static uint32_t max_key(const float *z, int n) {
    uint32_t m = 0;
#pragma omp simd reduction(max : m)
    for (int i = 0; i < n; i++) {
        uint32_t k = key_of(z[i]);
        m = k > m ? k : m;
    }
    return m;
}

static void tally_slice(Bin *bin, const float *z, int n, float zmax, float temperature) {
    for (int at = 0; at < n; at += BLOCK) {
        uint64_t weight[BLOCK];
        int len = n - at < BLOCK ? n - at : BLOCK;
#pragma omp simd
        for (int i = 0; i < len; i++) weight[i] = weight_of(z[at + i], zmax, temperature);
        for (int i = 0; i < len; i++) {
            Bin *b = &bin[key_of(z[at + i]) >> (32 - BITS)];
            b->count++;
            b->weight += weight[i];
        }
    }
}

static uint64_t measure(uint64_t count, uint64_t weight, enum Measure by) {
    return by == BY_COUNT ? count : weight;
}

/* Walks bins from the top to the one in which the running sum passes `target`; leaves the sums of
 * the bins above it in `above`. */
static int descend(const Bin *bin, Bin *above, enum Measure by, uint64_t target) {
    int b = BINS - 1;
    while (b > 0 &&
           measure(above->count + bin[b].count, above->weight + bin[b].weight, by) <= target) {
        above->count += bin[b].count;
        above->weight += bin[b].weight;
        b--;
    }
    return b;
}

static int gather_bin(const Row *r, uint32_t leading) {
    int n = 0;
    for (int i = 0; i < r->V; i++) {
        uint32_t key = key_of(r->z[i]);
        if (key >> (32 - BITS) == leading)
            r->list[n++] = (Candidate){key, i, weight_of(r->z[i], r->zmax, r->temperature)};
    }
    return n;
}

/* The first token, in falling order, through which the sum exceeds `target`; the weight of all
 * tokens up to and including it goes to *through. */
static int32_t find(const Row *r, enum Measure by, uint64_t target, uint64_t *through) {
    static const int shift[] = {32 - 2 * BITS, 0};
    Bin above = {0, 0}, bin[BINS];
    int n = gather_bin(r, (uint32_t)descend(r->bin, &above, by, target));
    for (int level = 0; level < 2; level++) {
        for (int b = 0; b < BINS; b++) bin[b] = (Bin){0, 0};
        for (int i = 0; i < n; i++) {
            Bin *b = &bin[(r->list[i].key >> shift[level]) % BINS];
            b->count++;
            b->weight += r->list[i].weight;
        }
        uint32_t chosen = (uint32_t)descend(bin, &above, by, target);
        int kept = 0;
        for (int i = 0; i < n; i++)
            if ((r->list[i].key >> shift[level]) % BINS == chosen) r->list[kept++] = r->list[i];
        n = kept;
    }
    int i = 0; /* what is left are ties, in index order */
    for (;; i++) {
        above.count++;
        above.weight += r->list[i].weight;
        if (i + 1 == n || measure(above.count, above.weight, by) > target) break;
    }
    *through = above.weight;
    return r->list[i].token;
}

static int32_t draw(const Row *r, float u, Sampling how) {
    uint64_t total = 0;
    for (int b = 0; b < BINS; b++) total += r->bin[b].weight;
    CHECK(total > 0, "expected logits with a finite maximum");
    if (how.top_k > 0 && how.top_k < r->V) find(r, BY_COUNT, (uint64_t)how.top_k - 1, &total);
    if (how.top_p < 1) {
        uint64_t enough = (uint64_t)ceil((double)how.top_p * (double)total);
        find(r, BY_WEIGHT, (enough < total ? enough : total) - 1, &total);
    }
    uint64_t at = (uint64_t)((double)u * (double)total);
    return find(r, BY_WEIGHT, at < total ? at : total - 1, &total);
}

static int slice_len(int V, int s) {
    return V - s * SLICE < SLICE ? V - s * SLICE : SLICE;
}

static int32_t first_with_key(const float *z, int V, uint32_t key) {
    int i = 0;
    while (i < V && key_of(z[i]) != key) i++;
    return i;
}

/* Scratch of a group of rows. */
typedef struct Group {
    Bin *bin;        /* (rows, slices, BINS) */
    uint32_t *max;   /* (rows, slices) */
    Candidate *list; /* (threads, V) */
    int slices;
} Group;

static uint32_t row_max_key(const Group *g, int row) {
    uint32_t m = 0;
    for (int s = 0; s < g->slices; s++) {
        uint32_t k = g->max[row * g->slices + s];
        m = k > m ? k : m;
    }
    return m;
}

static float from_key(uint32_t key) {
    return scalar_from_order((int32_t)(key ^ 0x80000000u));
}

/* One group of rows, by all threads of the enclosing parallel region. */
static void draw_group(const Group *g, int32_t *token, float *logits, const float *u, int rows,
                       int V, float cap, Sampling how) {
    int slices = g->slices;
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < slices; s++) {
            float *z = logits + (size_t)r * V + s * SLICE;
            if (cap > 0) cap_slice(z, slice_len(V, s), cap);
            g->max[r * slices + s] = max_key(z, slice_len(V, s));
        }
    if (how.temperature == 0) {
#pragma omp for schedule(static)
        for (int r = 0; r < rows; r++)
            token[r] = first_with_key(logits + (size_t)r * V, V, row_max_key(g, r));
        return;
    }
#pragma omp for collapse(2) schedule(static)
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < slices; s++) {
            Bin *bin = g->bin + ((size_t)r * slices + s) * BINS;
            for (int b = 0; b < BINS; b++) bin[b] = (Bin){0, 0};
            tally_slice(bin, logits + (size_t)r * V + s * SLICE, slice_len(V, s),
                        from_key(row_max_key(g, r)), how.temperature);
        }
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        Bin *bin = g->bin + (size_t)r * slices * BINS;
        for (int b = BINS; b < slices * BINS; b++) {
            bin[b % BINS].count += bin[b].count;
            bin[b % BINS].weight += bin[b].weight;
        }
        Row row = {logits + (size_t)r * V, V,   from_key(row_max_key(g, r)),
                   how.temperature,        bin, g->list + (size_t)omp_get_thread_num() * V};
        token[r] = draw(&row, u[r], how);
    }
}

void TWIN(sample)(Exec *ex, int32_t *token, float *logits, const float *u, int N, int V, float cap,
                  Sampling how) {
    OP_GATE(ex);
    CHECK(N >= 0 && V > 0 && V <= MAX_V && cap >= 0 && how.temperature >= 0 && how.top_k >= 0 &&
              how.top_p > 0 && how.top_p <= 1,
          "N=%d V=%d cap=%g temperature=%g top_k=%d top_p=%g", N, V, cap, how.temperature,
          how.top_k, how.top_p);
    CHECK(u || how.temperature == 0, "expected quantiles, got NULL");
    int threads = omp_get_max_threads(), slices = (V + SLICE - 1) / SLICE;
    int rows = threads * (1 + SLICE / V);
    rows = rows < N ? rows : N;
    size_t bins = (size_t)rows * slices * BINS, room = (size_t)threads * V;
    Group g = {.slices = slices};
    g.bin = exec_scratch(
        ex, bins * sizeof *g.bin + room * sizeof *g.list + (size_t)rows * slices * sizeof *g.max);
    g.list = (Candidate *)(g.bin + bins);
    g.max = (uint32_t *)(g.list + room);
#pragma omp parallel if ((size_t)N * V > OP_SMALL)
    for (int n = 0; n < N; n += rows)
        draw_group(&g, token + n, logits + (size_t)n * V, u ? u + n : u,
                   N - n < rows ? N - n : rows, V, cap, how);
}
