/* Preference pairs: how replies are cut and which pairs are dropped, what is said of that, and
 * pairs as segments of a pack. */
#include <string.h>

#include "host/stage/preference.h"
#include "tests/files.h"
#include "tests/world.h"

static Tokenizer *tokenizer;

/* Writes lines and loads them as pairs. */
static bool load(Dataset *d, const char *lines, int max_length, Err *err) {
    MUST(files_write(in_world("some.jsonl"), lines, strlen(lines), err), *err);
    return preference_load(d, tokenizer, in_world("some.jsonl"), max_length, 0, err);
}

static bool same_tokens(const Doc *a, const Doc *b) {
    return a->n == b->n && memcmp(a->token, b->token, (size_t)a->n * sizeof *a->token) == 0 &&
           memcmp(a->label, b->label, (size_t)a->n) == 0;
}

/* Each pair is its record's two documents; they share what is said to be shared, and no more. */
static int pairs_right(const Dataset *d, const Dataset *side[2]) {
    for (size_t i = 0; i < d->n / 2; i++) {
        const Doc *c = &d->doc[2 * i], *r = c + 1;
        int shared = d->shared[i], prompt = c->prompt < r->prompt ? c->prompt : r->prompt;
        if (!same_tokens(c, &side[0]->doc[i]) || !same_tokens(r, &side[1]->doc[i])) return 0;
        if (c->record != &d->records.record[i] || r->record != c->record) return 0;
        if (shared < 1 || memcmp(c->token, r->token, (size_t)shared * sizeof *c->token)) return 0;
        if (shared != prompt && c->token[shared] == r->token[shared]) return 0;
        if (memchr(c->label, 1, (size_t)shared) || memchr(r->label, 1, (size_t)shared)) return 0;
    }
    return 1;
}

static void test_load(void) {
    Dataset d, side[2];
    Err err;
    const char *path = in_world("pairs.jsonl");
    MUST(preference_load(&d, tokenizer, path, 256, 0, &err), err);
    MUST(dataset_load(&side[0], tokenizer, path, SIDE_CHOSEN, 256, 0, &err), err);
    MUST(dataset_load(&side[1], tokenizer, path, SIDE_REJECTED, 256, 0, &err), err);
    const Dataset *sides[2] = {&side[0], &side[1]}, *swapped[2] = {&side[1], &side[0]};
    EXPECT(d.n == 2 * WORLD_PAIRS && pairs_right(&d, sides), "pairs of %zu documents", d.n);
    EXPECT(d.tokens == side[0].tokens + side[1].tokens &&
               d.labels == side[0].labels + side[1].labels && d.dropped == 0 && d.alike == 0,
           "%zu tokens, %zu labels, %zu dropped", d.tokens, d.labels, d.dropped);
    TEST_DETECTS(pairs_right(&d, swapped));
    d.shared[0]--;
    TEST_DETECTS(pairs_right(&d, sides));
    dataset_free(&d), dataset_free(&side[0]), dataset_free(&side[1]);
    MUST(preference_load(&d, tokenizer, path, 256, 3, &err), err);
    EXPECT(d.n == 6, "%zu documents of 3 records", d.n);
    dataset_free(&d);
}

/* ---------------------------------------------------------------------- cut and left out -- */

#define PAIR(id, prompt, chosen, rejected)                                   \
    "{\"id\": \"" id "\", \"prompt\": \"" prompt "\", \"chosen\": \"" chosen \
    "\", \"rejected\": "                                                     \
    "\"" rejected "\"}\n"
#define SHORT(id) PAIR(id, "Hi", "No.", "Sure.")
#define WORDS "lock lock lock lock lock lock lock lock "
#define LONG PAIR("long", WORDS WORDS WORDS WORDS, "No.", "Yes.")

/* A prompt of max_length tokens leaves nothing of a reply, one less a token of each. */
static void test_cut(void) {
    Dataset d;
    Err err;
    MUST(load(&d, SHORT("a"), 256, &err), err);
    int prompt = d.doc[0].prompt;
    EXPECT(prompt > 5 && d.doc[1].prompt == prompt && d.truncated == 0, "prompt of %d", prompt);
    dataset_free(&d);
    MUST(load(&d, SHORT("a"), prompt + 1, &err), err);
    EXPECT(d.n == 2 && d.truncated == 2 && d.labels == 2 && d.dropped == 0 && d.alike == 0,
           "%zu documents, %zu cut, %zu labels", d.n, d.truncated, d.labels);
    EXPECT(d.doc[0].n == prompt + 1 && d.shared[0] == prompt, "%d tokens, %d shared", d.doc[0].n,
           d.shared[0]);
    dataset_free(&d);
    EXPECT_REFUSED(load(&d, SHORT("a"), prompt, &err), err, EXIT_INPUT,
                   "no pair is left: the prompts of all 1 take up --max-length");
    EXPECT(!d.doc && d.n == 0, "a refused file left documents");
}

/* The text of the notes, from static storage. */
static const char *notes(const Dataset *d) {
    static char text[1024];
    FILE *f = fmemopen(text, sizeof text, "w");
    CHECK(f, "no memory");
    dataset_print_notes(f, "", d);
    fclose(f);
    return text;
}

static void expect_notes(const Dataset *d, const char *want) {
    EXPECT(strcmp(notes(d), want) == 0, "expected the notes\n%sgot\n%s", want, notes(d));
}

static void test_dropping(void) {
    Dataset d;
    Err err;
    MUST(load(&d, SHORT("a") LONG PAIR("empty", "Hi", "No.", " ") SHORT("b"), 32, &err), err);
    EXPECT(d.n == 4 && d.dropped == 1 && d.records.n == 2, "%zu documents, %zu dropped", d.n,
           d.dropped);
    for (size_t i = 0; i < d.n; i++)
        EXPECT(d.doc[i].record == &d.records.record[i / 2] &&
                   strcmp(d.doc[i].record->id, i / 2 ? "b" : "a") == 0,
               "document %zu is of record %s", i, d.doc[i].record->id);
    EXPECT(d.longest == (size_t)(d.doc[0].n > d.doc[1].n ? d.doc[0].n : d.doc[1].n), "longest %zu",
           d.longest);
    expect_notes(&d,
                 "1 pairs dropped whose prompt takes up --max-length\n"
                 "1 records left out for an empty reply\n");
    dataset_free(&d);
    /* what differs lies behind the cut, or is not there: such pairs stay, as TRL keeps them */
    MUST(load(&d,
              PAIR("a", "Hi", WORDS WORDS WORDS "one", WORDS WORDS WORDS "two")
                  PAIR("b", "Hi", "No.", "No.") SHORT("c"),
              32, &err),
         err);
    EXPECT(d.n == 6 && d.alike == 2, "%zu documents, %zu pairs alike", d.n, d.alike);
    expect_notes(&d,
                 "2 documents cut at --max-length\n"
                 "2 pairs whose two documents are the same, which teach nothing\n");
    dataset_free(&d);
}

/* One reply with a target is not a pair: prompts may differ before the last reply. */
static void test_one_sided(void) {
    static const char lines[] =
        "{\"chosen\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
        "\"content\": \"Yes.\"}], \"rejected\": [{\"role\": \"user\", \"content\": \"" WORDS WORDS
            WORDS WORDS "\"}, {\"role\": \"assistant\", \"content\": \"No.\"}]}\n" SHORT("a");
    Dataset d;
    Err err;
    MUST(load(&d, lines, 32, &err), err);
    EXPECT(d.n == 2 && d.dropped == 1 && strcmp(d.doc[0].record->id, "a") == 0,
           "%zu documents, %zu dropped", d.n, d.dropped);
    dataset_free(&d);
}

static void test_refused(void) {
    Dataset d;
    Err err;
    static const struct {
        const char *lines, *why;
    } row[] = {
        {SHORT("a") "{\"prompt\": \"a\", \"completion\": \"b\"}\n",
         "line 2: expected \"chosen\" and \"rejected\""},
        {"{\"text\": \"a\"}\n", "line 1: expected \"chosen\" and \"rejected\""},
        {SHORT("a") PAIR("b", "a", "x<end_of_turn>", "y"), "line 2: the text holds"},
        {SHORT("a") PAIR("b", "a", "x", "y<end_of_turn>"), "line 2: \"rejected\": the text holds"},
        {PAIR("a", "Hi", " ", "No."), "expected at least one record to use"},
        {PAIR("a", WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS, "x", "y"),
         "no pair is left: the prompts of all 1 take up --max-length 64"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        EXPECT_REFUSED(load(&d, row[i].lines, 64, &err), err, EXIT_INPUT, row[i].why);
        EXPECT(strstr(err.text, "some.jsonl"), "expected the file's name in: %s", err.text);
    }
}

/* -------------------------------------------------------------------------------- in packs -- */

/* Labels are those of the whole documents, in their order; rows are as many as are said. */
static void test_packs(void) {
    Dataset d;
    Err err;
    MUST(preference_load(&d, tokenizer, in_world("pairs.jsonl"), 256, 0, &err), err);
    static const size_t index[] = {7, 2};
    Examples pairs = dataset_examples(&d), chosen_two = pairs;
    chosen_two.index = index, chosen_two.n = 2;
    EXPECT(pairs.n == WORLD_PAIRS, "%zu pairs", pairs.n);
    Pack whole, pack;
    pack_init(&whole, 1024, 8, 1024), pack_init(&pack, 1024, 8, 1024);
    PackSize size = {0};
    int tokens = 0;
    for (size_t i = 0; i < 2; i++) {
        size_t first = 2 * index[i];
        example_add(&pack, &chosen_two, i);
        size = pack_size_sum(size, example_size(&chosen_two, i));
        tokens += example_tokens(&chosen_two, i);
        for (size_t k = first; k < first + 2; k++)
            pack_add(&whole, d.doc[k].token, d.doc[k].label, d.doc[k].n, (int)k);
    }
    int saved = d.shared[7] + d.shared[2];
    EXPECT(size.rows == pack.N && size.segs == pack.nseg && size.labels == pack.nlabel,
           "%d rows %d segments %d labels", pack.N, pack.nseg, pack.nlabel);
    EXPECT(tokens == whole.N && pack.N == whole.N - saved && pack.nseg == 6, "%d of %d rows",
           pack.N, whole.N);
    EXPECT(pack.nlabel == whole.nlabel, "%d labels", pack.nlabel);
    for (int i = 0; i < pack.nlabel && i < whole.nlabel; i++) {
        int row = pack.label_row[i], other = whole.label_row[i];
        EXPECT(pack.label_target[i] == whole.label_target[i] &&
                   pack.label_doc[i] == whole.label_doc[i] && pack.pos[row] == whole.pos[other] &&
                   pack.token[row] == whole.token[other],
               "label %d: token %d of document %d", i, pack.label_target[i], pack.label_doc[i]);
    }
    PackSize most = pack_size_most((PackSize){1, 9, 4}, (PackSize){2, 3, 4});
    EXPECT(most.rows == 2 && most.segs == 9 && most.labels == 4, "the larger of each");
    pack_free(&whole), pack_free(&pack);
    dataset_free(&d);
}

int main(void) {
    Err err;
    world_make();
    MUST(tokenizer_open(&tokenizer, in_world("model"), &err), err);
    test_load();
    test_cut();
    test_dropping();
    test_one_sided();
    test_refused();
    test_packs();
    tokenizer_close(tokenizer);
    world_remove();
    return test_done("pairs");
}
