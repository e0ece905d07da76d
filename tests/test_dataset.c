/* Data sets as documents, and the split that keeps records out of training. */
#include <string.h>

#include "host/stage/dataset.h"
#include "tests/files.h"
#include "tests/world.h"

/* Disjoint, complete, rising, of the right size; 0: something is wrong. */
static int split_right(const Split *s, size_t n, size_t held) {
    if (s->nheld != held || s->ntrain != n - held) return 0;
    size_t t = 0, h = 0;
    for (size_t i = 0; i < n; i++) {
        if (t < s->ntrain && s->train[t] == i)
            t++;
        else if (h < s->nheld && s->held[h] == i)
            h++;
        else
            return 0;
    }
    return t == s->ntrain && h == s->nheld;
}

static void test_split(void) {
    static const struct {
        size_t n;
        double share;
        size_t held;
    } cases[] = {{0, 0.5, 0},   {1, 0.5, 0},   {2, 0.5, 1},   {2, 0.01, 1},  {40, 0, 0},
                 {40, 0.05, 2}, {40, 0.5, 20}, {39, 0.5, 19}, {999, 0.1, 99}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Split s;
        split_make(&s, cases[i].n, cases[i].share, 7);
        EXPECT(split_right(&s, cases[i].n, cases[i].held), "%zu records, share %g: %zu held",
               cases[i].n, cases[i].share, s.nheld);
        if (s.nheld) {
            s.held[0]++;
            TEST_DETECTS(split_right(&s, cases[i].n, cases[i].held));
        }
        split_free(&s);
    }
    Split a, b, c;
    split_make(&a, 1000, 0.1, 7);
    split_make(&b, 1000, 0.1, 7);
    split_make(&c, 1000, 0.1, 8);
    size_t bytes = a.nheld * sizeof *a.held;
    EXPECT(memcmp(a.held, b.held, bytes) == 0, "the same seed drew others");
    EXPECT(memcmp(a.held, c.held, bytes) != 0, "another seed drew the same");
    /* 100 of 1000 at random: the mean place is 500 +- 29, the first 100 would have 50 */
    double mean = 0;
    for (size_t i = 0; i < a.nheld; i++) mean += (double)a.held[i] / (double)a.nheld;
    EXPECT(mean > 350 && mean < 650, "the held-out records lie around %g", mean);
    split_free(&a), split_free(&b), split_free(&c);
}

/* The sides of pairs, and what is counted. */
static void test_load(void) {
    Tokenizer *t;
    Dataset d, other;
    Err err;
    MUST(tokenizer_open(&t, in_world("model"), &err), err);
    MUST(dataset_load(&d, t, in_world("pairs.jsonl"), SIDE_CHOSEN, 256, 0, &err), err);
    MUST(dataset_load(&other, t, in_world("pairs.jsonl"), SIDE_REJECTED, 256, 0, &err), err);
    size_t tokens = 0, labels = 0, longest = 0;
    for (size_t i = 0; i < d.n; i++) {
        tokens += (size_t)d.doc[i].n;
        longest = (size_t)d.doc[i].n > longest ? (size_t)d.doc[i].n : longest;
        for (int j = 0; j < d.doc[i].n; j++) labels += d.doc[i].label[j];
        int same = d.doc[i].n == other.doc[i].n &&
                   memcmp(d.doc[i].token, other.doc[i].token, (size_t)d.doc[i].n * 4) == 0;
        EXPECT(!same, "document %zu has the same chosen and rejected reply", i);
    }
    EXPECT(d.n == WORLD_PAIRS && d.tokens == tokens && d.labels == labels && d.longest == longest &&
               d.truncated == 0 && d.unlabelled == 0,
           "%zu documents, %zu of %zu tokens, %zu of %zu labels", d.n, d.tokens, tokens, d.labels,
           labels);
    dataset_free(&other);
    dataset_free(&d);
    MUST(dataset_load(&d, t, in_world("pairs.jsonl"), SIDE_CHOSEN, 5, 4, &err), err);
    EXPECT(d.n == 4 && d.truncated == 4 && d.longest == 5 && d.unlabelled == 4,
           "%zu documents, %zu cut, longest %zu, %zu without a target", d.n, d.truncated, d.longest,
           d.unlabelled);
    dataset_free(&d);
    bool ok = dataset_load(&d, t, "nowhere", SIDE_CHOSEN, 5, 4, &err);
    EXPECT(!ok && err.code == EXIT_INPUT, "a missing file");
    tokenizer_close(t);
}

/* Writes lines and loads them for training at 32 tokens. */
static bool load_training(Dataset *d, Tokenizer *t, const char *lines, Err *err) {
    MUST(files_write(in_world("some.jsonl"), lines, strlen(lines), err), *err);
    return dataset_load_training(d, t, in_world("some.jsonl"), SIDE_CHOSEN, 32, 0, err);
}

/* A reply that lies behind the cut. */
#define LONG "{\"prompt\":\"" WORDS WORDS WORDS WORDS "\",\"completion\":\"ok\"}\n"
#define WORDS "lock lock lock lock lock lock lock lock "

static void test_dropping(void) {
    Tokenizer *t;
    Dataset d;
    Err err = {0};
    MUST(tokenizer_open(&t, in_world("model"), &err), err);
    MUST(load_training(&d, t,
                       LONG
                       "{\"prompt\":\"Hi\",\"completion\":\"Sure.\",\"id\":\"a\"}\n" LONG
                       "{\"prompt\":\"no reply\"}\n{\"tokens\":[2,5,6],\"labels\":[1,0,0]}\n"
                       "{\"text\":\"\"}\n{\"tokens\":[2,5,6],\"labels\":[0,0,1],\"id\":\"b\"}\n",
                       &err),
         err);
    EXPECT(d.n == 2 && d.dropped == 5 && d.unlabelled == 0 && d.truncated == 0 && d.records.n == 2,
           "%zu documents, %zu dropped, %zu cut", d.n, d.dropped, d.truncated);
    EXPECT(d.tokens == (size_t)(d.doc[0].n + d.doc[1].n) && d.longest == (size_t)d.doc[0].n,
           "%zu tokens, longest %zu", d.tokens, d.longest);
    for (size_t i = 0; i < d.n; i++)
        EXPECT(d.doc[i].record == &d.records.record[i] &&
                   strcmp(d.doc[i].record->id, i ? "b" : "a") == 0,
               "document %zu is of record %s", i, d.doc[i].record->id);
    dataset_free(&d);
    static const struct {
        const char *lines, *why;
    } none[] = {{LONG LONG, "within 32 tokens; raise --max-length"},
                {"{\"prompt\":\"a\"}\n", "all 1 are prompts without a reply; add"},
                {"{\"tokens\":[2,5],\"labels\":[1,0]}\n", "the \"labels\" of all tokens are 0"},
                {"{\"text\":\"\"}\n", "all are empty"}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        EXPECT_REFUSED(load_training(&d, t, none[i].lines, &err), err, EXIT_INPUT, none[i].why);
    EXPECT(d.n == 0 && !d.doc, "a refused file left documents");
    tokenizer_close(t);
}

int main(void) {
    test_split();
    world_make();
    test_load();
    test_dropping();
    world_remove();
    return test_done("dataset");
}
