/* rank_share.c - packs per step and rank, and what to change about them. */
#include "host/stage/rank_share.h"

#include <math.h>

static const double ENOUGH = 0.9;
enum { SMALLEST_PACK = 256, STEPS = 2000 /* more say nothing new */ };

RankShare rank_share(const TrainSetup *t, int ranks) {
    RankShare r = {0};
    double packs = 0, rounds = 0;
    int steps = t->steps < STEPS ? t->steps : STEPS;
    for (int step = 0; step < steps; step++) {
        int n = train_packs(t, step);
        packs += n;
        rounds += (n + ranks - 1) / ranks;
        if (n > r.most) r.most = n;
    }
    r.packs = steps ? packs / steps : 0;
    r.used = rounds > 0 ? packs / (ranks * rounds) : 1;
    return r;
}

/* The largest packs, each half of the one before, that use enough; 0: none that holds the longest
 * document, or pair. */
static int better_packs(RankShare *share, TrainSetup t, int ranks) {
    int longest = 1;
    Examples data = train_examples(&t);
    for (size_t i = 0; i < t.n; i++) {
        int n = example_size(&data, i).rows;
        if (n > longest) longest = n;
    }
    for (t.pack_tokens /= 2; t.pack_tokens >= longest && t.pack_tokens >= SMALLEST_PACK;
         t.pack_tokens /= 2) {
        *share = rank_share(&t, ranks);
        if (share->used >= ENOUGH) return t.pack_tokens;
    }
    return 0;
}

/* The smallest batch, each twice the one before, that uses enough; 0: none up to all documents. */
static int better_batch(RankShare *share, TrainSetup t, int ranks) {
    while ((size_t)t.batch < t.n) {
        t.batch *= 2;
        t.steps = (t.steps + 1) / 2;
        *share = rank_share(&t, ranks);
        if (share->used >= ENOUGH) return t.batch;
    }
    return 0;
}

void rank_share_print(FILE *f, const TrainSetup *t, int ranks) {
    RankShare r = rank_share(t, ranks), better;
    fprintf(f,
            "%d ranks: %.1f packs of %d rows a step, at most %d; %.0f %% of their time is used\n",
            ranks, r.packs, t->pack_tokens, r.most, 100 * r.used);
    if (r.used >= ENOUGH) return;
    int rows = better_packs(&better, *t, ranks);
    if (rows)
        fprintf(f, "  --pack-tokens %d: %.1f packs, %.0f %%%s\n", rows, better.packs,
                100 * better.used, rows < 1024 ? "; products of so few rows are slower" : "");
    int batch = better_batch(&better, *t, ranks);
    if (batch)
        fprintf(f, "  --batch %d: %.1f packs, %.0f %%; another training\n", batch, better.packs,
                100 * better.used);
    if (r.packs < ranks) fprintf(f, "  %d ranks would take the same time\n", (int)ceil(r.packs));
}

json_t *rank_share_json(const TrainSetup *t, int ranks) {
    RankShare r = rank_share(t, ranks), packs = {0}, batches = {0};
    int rows = r.used < ENOUGH ? better_packs(&packs, *t, ranks) : 0;
    int batch = r.used < ENOUGH ? better_batch(&batches, *t, ranks) : 0;
    json_t *j = json_pack("{s:i, s:f, s:i, s:f}", "ranks", ranks, "packs", r.packs, "most_packs",
                          r.most, "efficiency", r.used);
    if (rows)
        json_object_set_new(j, "better_pack_tokens",
                            json_pack("{s:i, s:f}", "value", rows, "efficiency", packs.used));
    if (batch)
        json_object_set_new(j, "better_batch",
                            json_pack("{s:i, s:f}", "value", batch, "efficiency", batches.used));
    return j;
}
