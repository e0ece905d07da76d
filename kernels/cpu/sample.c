/* sample.c - drawing the next token. Contract: ops.h.
 *
 * Nothing is sorted. Probabilities are integers (the contract says so), hence sums over any set
 * are exact in any order, and "the first token in falling order whose cumulative weight exceeds t"
 * is found by radix descent: tally weights by the leading bits of the logits, walk the tally from
 * the top to the bin in which the sum passes t, and look into that bin only, three times.
 *
 * With many rows each thread does whole rows; with few, threads share a row's slices. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/twin.h"
#include "kernels/scalar.h"

enum {
    BITS = 11, /* of a key, resolved per level: 11 + 11 + 10 */
    BINS = 1 << BITS,
    SLICE = 1 << 15, /* elements capped and tallied as one piece of work */
    BLOCK = 256      /* elements whose keys and weights are computed at once */
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

typedef struct Draws {
    int32_t *token;
    float *logits;
    const float *u;
    int V, slices;
    float cap;
    Sampling how;
    /* Scratch, by slot: a row that is being worked on. */
    Bin *bin;        /* (slots, slices, BINS) by the leading BITS; then summed into slice 0 */
    Candidate *list; /* (threads, V) */
    uint32_t *max;   /* (slots, slices) keys */
} Draws;

/* A row whose tally is done. */
typedef struct Row {
    const float *z;
    int V;
    float zmax, temperature;
    const Bin *bin;
    Candidate *list;
} Row;

/* The largest key is the largest logit. -0 + 0 is +0: the two are a tie. */
static uint32_t key_of(float z) {
    return (uint32_t)scalar_order(z + 0.0f) ^ 0x80000000u;
}
static float from_key(uint32_t key) {
    return scalar_from_order((int32_t)(key ^ 0x80000000u));
}

/* Stands for the largest key of a row that cannot be drawn from: it lies above every number's. */
static const uint32_t UNDRAWABLE = UINT32_MAX;

static void block_keys(uint32_t *key, const float *z, int n) {
#pragma omp simd
    for (int i = 0; i < n; i++) key[i] = key_of(z[i]);
}

/* 2^40 is the largest; NaN counts nothing. */
static void block_weights(uint64_t *weight, const float *z, int n, float zmax, float temperature) {
#pragma omp simd
    for (int i = 0; i < n; i++) {
        float e = scalar_exp((z[i] - zmax) / temperature) * 0x1p40f;
        weight[i] = (uint64_t)(int64_t)(e > 0 ? e : 0); /* AVX2 converts to signed only */
    }
}

static int slices_of(int V) {
    return (V + SLICE - 1) / SLICE;
}
static int slice_len(const Draws *d, int s) {
    return d->V - s * SLICE < SLICE ? d->V - s * SLICE : SLICE;
}

static void cap_slice(const Draws *d, int slot, int row, int s) {
    float *z = d->logits + (size_t)row * d->V + s * SLICE, cap = d->cap;
    int n = slice_len(d, s);
    uint32_t max = 0, bad = 0;
    if (cap > 0) {
#pragma omp simd
        for (int i = 0; i < n; i++) z[i] = scalar_softcap(z[i], cap);
    }
#pragma omp simd reduction(max : max) reduction(| : bad)
    for (int i = 0; i < n; i++) {
        uint32_t k = key_of(z[i]);
        max = k > max ? k : max;
        bad |= !(z[i] < INFINITY); /* NaN too, whose key may be the least */
    }
    d->max[(size_t)slot * d->slices + s] = bad ? UNDRAWABLE : max;
}

static uint32_t max_key(const Draws *d, int slot) {
    const uint32_t *max = d->max + (size_t)slot * d->slices;
    uint32_t m = max[0];
    for (int s = 1; s < d->slices; s++) m = max[s] > m ? max[s] : m;
    return m > key_of(-INFINITY) ? m : UNDRAWABLE;
}

static void tally_slice(const Draws *d, int slot, int row, int s) {
    const float *z = d->logits + (size_t)row * d->V + s * SLICE;
    float zmax = from_key(max_key(d, slot));
    Bin *bin = d->bin + ((size_t)slot * d->slices + s) * BINS;
    for (int b = 0; b < BINS; b++) bin[b] = (Bin){0, 0};
    for (int at = 0, n = slice_len(d, s); at < n; at += BLOCK) {
        uint64_t weight[BLOCK];
        uint32_t key[BLOCK];
        int len = n - at < BLOCK ? n - at : BLOCK;
        block_keys(key, z + at, len);
        block_weights(weight, z + at, len, zmax, d->how.temperature);
        for (int i = 0; i < len; i++) {
            Bin *b = &bin[key[i] >> (32 - BITS)];
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
static uint32_t descend(const Bin *bin, Bin *above, enum Measure by, uint64_t target) {
    uint32_t b = BINS - 1;
    while (b > 0 &&
           measure(above->count + bin[b].count, above->weight + bin[b].weight, by) <= target) {
        above->count += bin[b].count;
        above->weight += bin[b].weight;
        b--;
    }
    return b;
}

/* Lists the tokens of one bin in index order; most blocks have none. */
static int gather_bin(const Row *r, uint32_t leading) {
    int kept = 0;
    for (int at = 0; at < r->V; at += BLOCK) {
        uint64_t weight[BLOCK];
        uint32_t key[BLOCK], any = 0;
        int len = r->V - at < BLOCK ? r->V - at : BLOCK;
        block_keys(key, r->z + at, len);
#pragma omp simd reduction(| : any)
        for (int i = 0; i < len; i++) any |= key[i] >> (32 - BITS) == leading;
        if (!any) continue;
        block_weights(weight, r->z + at, len, r->zmax, r->temperature);
        for (int i = 0; i < len; i++) { /* without a branch: it would be guessed wrong often */
            r->list[kept] = (Candidate){key[i], at + i, weight[i]};
            kept += key[i] >> (32 - BITS) == leading;
        }
    }
    return kept;
}

/* The first token, in falling order, through which the sum exceeds `target`; the weight of all
 * tokens up to and including it goes to *through. */
static int32_t find(const Row *r, enum Measure by, uint64_t target, uint64_t *through) {
    static const int shift[] = {32 - 2 * BITS, 0};
    Bin above = {0, 0}, bin[BINS];
    int n = gather_bin(r, descend(r->bin, &above, by, target));
    for (int level = 0; level < 2; level++) {
        for (int b = 0; b < BINS; b++) bin[b] = (Bin){0, 0};
        for (int i = 0; i < n; i++) {
            Bin *b = &bin[(r->list[i].key >> shift[level]) % BINS];
            b->count++;
            b->weight += r->list[i].weight;
        }
        uint32_t chosen = descend(bin, &above, by, target);
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
    if (how.top_k > 0 && how.top_k < r->V) find(r, BY_COUNT, (uint64_t)how.top_k - 1, &total);
    if (how.top_p < 1) {
        uint64_t enough = (uint64_t)ceil((double)how.top_p * (double)total);
        find(r, BY_WEIGHT, (enough < total ? enough : total) - 1, &total);
    }
    uint64_t at = (uint64_t)((double)u * (double)total);
    return find(r, BY_WEIGHT, at < total ? at : total - 1, &total);
}

static void draw_row(const Draws *d, int slot, int row) {
    uint32_t max = max_key(d, slot);
    if (max == UNDRAWABLE) {
        d->token[row] = -1;
        return;
    }
    Bin *bin = d->bin + (size_t)slot * d->slices * BINS;
    for (int b = BINS; b < d->slices * BINS; b++) {
        bin[b % BINS].count += bin[b].count;
        bin[b % BINS].weight += bin[b].weight;
    }
    Row r = {d->logits + (size_t)row * d->V,
             d->V,
             from_key(max),
             d->how.temperature,
             bin,
             d->list + (size_t)omp_get_thread_num() * d->V};
    d->token[row] = draw(&r, d->u[row], d->how);
}

static void greedy_row(const Draws *d, int slot, int row) {
    const float *z = d->logits + (size_t)row * d->V;
    uint32_t max = max_key(d, slot);
    int i = 0;
    while (i + 1 < d->V && key_of(z[i]) != max) i++;
    d->token[row] = max == UNDRAWABLE ? -1 : i;
}

static void whole_row(const Draws *d, int slot, int row) {
    for (int s = 0; s < d->slices; s++) cap_slice(d, slot, row, s);
    if (d->how.temperature > 0) {
        for (int s = 0; s < d->slices; s++) tally_slice(d, slot, row, s);
        draw_row(d, slot, row);
    } else {
        greedy_row(d, slot, row);
    }
}

static void shared_rows(const Draws *d, int N) {
#pragma omp parallel if ((size_t)N * d->V > OP_SMALL)
    {
#pragma omp for collapse(2)
        for (int n = 0; n < N; n++)
            for (int s = 0; s < d->slices; s++) cap_slice(d, n, n, s);
        if (d->how.temperature > 0) {
#pragma omp for collapse(2)
            for (int n = 0; n < N; n++)
                for (int s = 0; s < d->slices; s++) tally_slice(d, n, n, s);
#pragma omp for
            for (int n = 0; n < N; n++) draw_row(d, n, n);
        } else {
#pragma omp for
            for (int n = 0; n < N; n++) greedy_row(d, n, n);
        }
    }
}

/* Do threads share rows? Then each row has a slot, else each thread. */
static bool shares_rows(int N) {
    return N < 4 * omp_get_max_threads();
}

/* Numbers of the parts of the scratch. */
typedef struct Room {
    size_t bins, list, max;
} Room;

static Room room_of(int N, int V) {
    size_t threads = (size_t)omp_get_max_threads(), slots = shares_rows(N) ? (size_t)N : threads;
    size_t max = slots * (size_t)slices_of(V);
    return (Room){.bins = max * BINS, .list = threads * (size_t)V, .max = max};
}

size_t TWIN(sample_scratch)(Exec *ex, int N, int V, Sampling how) {
    Room r = room_of(N, V);
    (void)ex, (void)how;
    return r.bins * sizeof(Bin) + r.list * sizeof(Candidate) + r.max * sizeof(uint32_t);
}

void TWIN(sample)(Exec *ex, int32_t *token, float *logits, const float *u, int N, int V, float cap,
                  Sampling how) {
    OP_BEGIN(ex, sample, u, N, V, cap, how);
    Room r = room_of(N, V);
    Draws d = {token, logits, u, V, slices_of(V), cap, how, NULL, NULL, NULL};
    d.bin = exec_scratch(ex, TWIN(sample_scratch)(ex, N, V, how));
    d.list = (Candidate *)(d.bin + r.bins);
    d.max = (uint32_t *)(d.list + r.list);
    if (shares_rows(N)) {
        shared_rows(&d, N);
    } else {
#pragma omp parallel for if ((size_t)N * V > OP_SMALL)
        for (int n = 0; n < N; n++) whole_row(&d, omp_get_thread_num(), n);
    }
}
