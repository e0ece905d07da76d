/* `sails moments`: which documents are added to which corpus, those of pairs and of files; pairs of
 * which one reply was cut off count in neither. */
#include <math.h>

#include "data/chat.h"
#include "host/cli/command.h"
#include "host/stage/runtime.h"
#include "model/stream.h"
#include "tests/world.h"

extern const Command cmd_moments;

static StreamMoments moments(const char *flags, int max_length) {
    char line[2048];
    Err err;
    StreamMoments m;
    snprintf(line, sizeof line,
             "--model %s --dtype f32 --max-length %d --layers 0,3 --json --out %s %s",
             in_world("model"), max_length, in_world("m"), flags);
    MUST(world_run(&cmd_moments, line, &err), err);
    MUST(stream_load(&m, in_world("m"), &err), err);
    return m;
}

/* The pairs the other way round. */
static void write_swapped(void) {
    char command[1200];
    snprintf(command, sizeof command,
             "sed 's/\"chosen\"/\"x\"/; s/\"rejected\"/\"chosen\"/; s/\"x\"/\"rejected\"/' %s >%s",
             in_world("pairs.jsonl"), in_world("swapped.jsonl"));
    CHECK(system(command) == 0, "%s", command);
}

/* Is a's corpus b's other one, or the same? Documents that share rows differ from those alone by
 * roundings of attention in f32, 1e-5 is over a hundred of them. */
static bool same_sum(const StreamMoments *a, int c, const StreamMoments *b, int of) {
    for (int l = 0; l < a->n; l++) {
        const double *x = a->layer[l].sum + c * WORLD_D, *y = b->layer[l].sum + of * WORLD_D;
        double apart = 0, size = 0;
        for (int k = 0; k < WORLD_D; k++)
            apart += (x[k] - y[k]) * (x[k] - y[k]), size += y[k] * y[k];
        if (!(sqrt(apart) <= 1e-5 * sqrt(size))) return false;
    }
    return true;
}

static void test_corpora(void) {
    char files[1200], swapped[600], pairs[600];
    snprintf(files, sizeof files, "--aligned %s --unaligned %s", in_world("pairs.jsonl"),
             in_world("swapped.jsonl"));
    snprintf(pairs, sizeof pairs, "--data %s", in_world("pairs.jsonl"));
    snprintf(swapped, sizeof swapped, "--data %s", in_world("swapped.jsonl"));
    StreamMoments p = moments(pairs, 128), f = moments(files, 128), s = moments(swapped, 128);
    strcat(pairs, " --tokens last");
    StreamMoments last = moments(pairs, 128);
    EXPECT(p.pairs == WORLD_PAIRS && p.documents[0] == WORLD_PAIRS && f.pairs == 0 &&
               f.documents[0] == WORLD_PAIRS && f.documents[1] == WORLD_PAIRS,
           "%lld pairs, %lld documents", (long long)p.pairs, (long long)f.documents[0]);
    EXPECT(p.n == 2 && p.layer[1].layer == 3 && p.D == WORLD_D && strcmp(p.counted, "reply") == 0,
           "%d layers of width %d", p.n, p.D);
    for (int c = 0; c < 2; c++) {
        EXPECT(same_sum(&f, c, &p, c), "corpus %d is another as a file", c);
        EXPECT(same_sum(&s, c, &p, 1 - c), "corpus %d is not the other one", c);
        EXPECT(!same_sum(&p, c, &p, 1 - c) && !same_sum(&last, c, &p, c), "all is the same");
    }
    for (int k = 0; k < WORLD_D * WORLD_D; k++)
        EXPECT(f.layer[0].difference[k] == 0, "documents of files make pairs");
    stream_free(&p), stream_free(&f), stream_free(&s), stream_free(&last);
}

static bool has_reply(const Doc *d) {
    for (int t = 0; t < d->n; t++)
        if (d->reply[t]) return true;
    return false;
}

/* Pairs of which something is left in both replies. */
static int whole_pairs(int max_length) {
    Tokenizer *t;
    Records r;
    Err err;
    int n = 0, shared;
    MUST(tokenizer_open(&t, in_world("model"), &err), err);
    MUST(records_read(&r, in_world("pairs.jsonl"), 0, &err), err);
    for (size_t i = 0; i < r.n; i++) {
        Doc doc[2];
        MUST(doc_pair(&doc[0], &doc[1], &shared, t, &r.record[i], max_length, &err), err);
        n += has_reply(&doc[0]) && has_reply(&doc[1]);
        doc_free(&doc[0]), doc_free(&doc[1]);
    }
    records_free(&r);
    tokenizer_close(t);
    return n;
}

static void test_cut(void) {
    char pairs[600], line[2048];
    int length = 128, n = WORLD_PAIRS;
    Err err;
    snprintf(pairs, sizeof pairs, "--data %s", in_world("pairs.jsonl"));
    while (n > WORLD_PAIRS / 2) n = whole_pairs(--length);
    EXPECT(n > 2, "%d pairs are left at %d tokens", n, length);
    StreamMoments m = moments(pairs, length);
    EXPECT(m.pairs == n && m.documents[0] == n && m.documents[1] == n, "%lld pairs of %d",
           (long long)m.pairs, n);
    stream_free(&m);
    snprintf(line, sizeof line, "--model %s --dtype f32 --max-length 4 --layers 0 --out %s %s",
             in_world("model"), in_world("none"), pairs);
    EXPECT(!world_run(&cmd_moments, line, &err) && err.code == EXIT_INPUT &&
               strstr(err.text, "aligned corpus has 0 documents"),
           "%s", err.text);
    EXPECT(!files_exists(in_world("none")), "moments of nothing");
}

/* ------------------------------------------------------------------------------- landmarks -- */

enum { LAYERS = 2, LONGEST = 128 };

/* The stream of a document at both layers, (LAYERS,n,D), and which of its tokens count. */
typedef struct Streams {
    Exec *ex;
    double *x;
    uint8_t *reply;
    int n;
} Streams;

static void grab(void *context, int layer, const store *x, int N) {
    static const int at[] = {0, -1, -1, 1}; /* of layers 0 and 3 */
    Streams *s = context;
    if (at[layer] < 0) return;
    double *row = test_get_store(s->ex, x, (size_t)N * WORLD_D);
    memcpy(s->x + (size_t)at[layer] * (size_t)N * WORLD_D, row, sizeof *row * (size_t)N * WORLD_D);
    free(row);
}

static Streams streams_of(const Model *m, const Doc *d) {
    Streams s = {.ex = m->ex, .n = d->n, .reply = mem_array((size_t)d->n, 1)};
    s.x = mem_array((size_t)LAYERS * (size_t)d->n * WORLD_D, sizeof *s.x);
    memcpy(s.reply, d->reply, (size_t)d->n);
    Pack p;
    pack_init(&p, d->n, 1, 0);
    pack_add(&p, d->token, NULL, d->n, 0);
    Acts *a = acts_create(m, d->n, 1, 0, ACTS_INFER);
    model_forward(m, a, &p, m->c.L, grab, &s);
    acts_destroy(a);
    pack_free(&p);
    return s;
}

/* The token of the document whose stream both rows are; -1: none. As near as same_sum asks. */
static int token_of(const Streams *s, const double *row[LAYERS]) {
    for (int t = 0; t < s->n; t++) {
        bool same = s->reply[t];
        for (int l = 0; same && l < LAYERS; l++) {
            const double *x = s->x + ((size_t)l * (size_t)s->n + (size_t)t) * WORLD_D;
            double apart = 0, size = 0;
            for (int k = 0; k < WORLD_D; k++)
                apart += (x[k] - row[l][k]) * (x[k] - row[l][k]), size += x[k] * x[k];
            same = sqrt(apart) <= 1e-5 * sqrt(size);
        }
        if (same) return t;
    }
    return -1;
}

/* Landmark j of a corpus of 23 is a token that counts of document 23 j / 64 or, where the next part
 * begins within that, of the one behind it; and they are not all the same. */
static void expect_landmarks(const StreamMoments *m, const Streams *s, int c) {
    bool seen[WORLD_PAIRS][LONGEST] = {{false}};
    int distinct = 0;
    for (int j = 0; j < STREAM_LANDMARKS; j++) {
        const double *row[LAYERS];
        int first = j * WORLD_PAIRS / STREAM_LANDMARKS;
        int last = ((j + 1) * WORLD_PAIRS - 1) / STREAM_LANDMARKS, t = -1, d;
        for (int l = 0; l < LAYERS; l++)
            row[l] = m->layer[l].landmark + (c * STREAM_LANDMARKS + j) * WORLD_D;
        for (d = first; d <= last && t < 0; d++) t = token_of(&s[d], row);
        EXPECT(t >= 0, "corpus %d: landmark %d is of no token of documents %d to %d", c, j, first,
               last);
        if (t >= 0) distinct += !seen[d - 1][t], seen[d - 1][t] = true;
    }
    EXPECT(distinct > 30, "corpus %d: %d distinct landmarks", c, distinct);
}

static void test_landmarks(void) {
    char pairs[600];
    Exec ex;
    Model model;
    Tokenizer *t;
    Records r;
    Err err;
    Streams s[2][WORLD_PAIRS];
    int shared;
    snprintf(pairs, sizeof pairs, "--data %s", in_world("pairs.jsonl"));
    StreamMoments m = moments(pairs, LONGEST), again = moments(pairs, LONGEST);
    strcat(pairs, " --seed 4");
    StreamMoments other = moments(pairs, LONGEST);
    CHECK(!exec_open(&ex, DEVICE_CPU, DTYPE_F32), "no device");
    MUST(model_open(&model, &ex, in_world("model"), 0, &err) &&
             tokenizer_open(&t, in_world("model"), &err) &&
             records_read(&r, in_world("pairs.jsonl"), 0, &err),
         err);
    for (int i = 0; i < WORLD_PAIRS; i++) {
        Doc doc[2];
        MUST(doc_pair(&doc[0], &doc[1], &shared, t, &r.record[i], LONGEST, &err), err);
        for (int c = 0; c < 2; c++) s[c][i] = streams_of(&model, &doc[c]), doc_free(&doc[c]);
    }
    size_t bytes = sizeof(double) * 2 * STREAM_LANDMARKS * WORLD_D;
    for (int c = 0; c < 2; c++) expect_landmarks(&m, s[c], c), expect_landmarks(&other, s[c], c);
    EXPECT(!memcmp(m.layer[1].landmark, again.layer[1].landmark, bytes), "not reproducible");
    EXPECT(memcmp(m.layer[1].landmark, other.layer[1].landmark, bytes), "always the same");
    for (int i = 0; i < 2 * WORLD_PAIRS; i++) free((&s[0][0])[i].x), free((&s[0][0])[i].reply);
    stream_free(&m), stream_free(&again), stream_free(&other);
    records_free(&r);
    tokenizer_close(t);
    model_close(&model);
    exec_close(&ex);
}

int main(void) {
    world_make();
    write_swapped();
    test_corpora();
    test_cut();
    test_landmarks();
    world_remove();
    return test_done("moments");
}
