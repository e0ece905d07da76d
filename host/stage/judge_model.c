/* judge_model.c - n-grams, looked up and summed. */
#include "host/stage/judge_model.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "host/stage/judge_table.inc"
#include "host/stage/judge_text.h"
#include "host/stage/judge_words.h"

enum { KNOWN = sizeof weight_of / sizeof *weight_of, TOPICS = 64, EARLY = 2 };

typedef struct Topics {
    int n;
    char stem[TOPICS][JUDGE_WORD]; /* a word of the prompt but its last two bytes */
} Topics;

/* The n-grams met, and those that weigh most on either side: [0] towards answering. */
typedef struct Tally {
    bool seen[KNOWN];
    int sum, n;
    int8_t weight[2][JUDGE_STRONGEST];
    char name[2][JUDGE_STRONGEST][JUDGE_NGRAM];
} Tally;

static uint32_t fnv(const char *text) {
    uint32_t h = 2166136261u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

/* Place of a hash in the table, which is sorted; KNOWN: it is not there. */
static size_t place(uint32_t hash) {
    size_t low = 0, high = KNOWN;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (weight_of[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < KNOWN && weight_of[low].hash == hash ? low : KNOWN;
}

static void keep_strongest(Tally *t, const char *gram, int8_t weight) {
    int side = weight > 0, at = JUDGE_STRONGEST;
    while (at > 0 &&
           (weight > 0 ? weight > t->weight[side][at - 1] : weight < t->weight[side][at - 1]))
        at--;
    if (at == JUDGE_STRONGEST) return;
    for (int i = JUDGE_STRONGEST - 1; i > at; i--) {
        t->weight[side][i] = t->weight[side][i - 1];
        memcpy(t->name[side][i], t->name[side][i - 1], JUDGE_NGRAM);
    }
    t->weight[side][at] = weight;
    snprintf(t->name[side][at], JUDGE_NGRAM, "%s", gram);
}

static void count(Tally *t, const char *gram) {
    size_t i = place(fnv(gram));
    if (i == KNOWN || t->seen[i]) return;
    t->seen[i] = true;
    t->n++;
    t->sum += weight_of[i].weight;
    keep_strongest(t, gram, weight_of[i].weight);
}

/* The n words from `word` on, and the same as an early one. */
static void count_words(Tally *t, const char *const *word, int n, bool early) {
    static const char mark[] = "early: ";
    char gram[JUDGE_NGRAM];
    int at = snprintf(gram, sizeof gram, "%s%s", mark, word[0]);
    for (int i = 1; i < n; i++) at += snprintf(gram + at, sizeof gram - (size_t)at, " %s", word[i]);
    count(t, gram + sizeof mark - 1);
    if (early) count(t, gram);
}

static void count_plain(Tally *t, const char *const *word, int n, bool early) {
    for (int i = 0; i < n; i++)
        for (int m = 1; m <= 3 && i + m <= n; m++)
            if (m > 1 || (i > 0 && i < n - 1)) count_words(t, word + i, m, early);
}

static void count_classes(Tally *t, const char *const *name, int n, bool early) {
    for (int i = 0, last = 0; i < n; i++) {
        if (*name[i] == '_') continue;
        if (i) count_words(t, name + i, 1, early);
        for (int m = 2; m <= 3 && i + m <= n; m++)
            if (*name[i + m - 1] != '_') count_words(t, name + i, m, early);
        if (last) {
            char pair[JUDGE_WORD];
            const char *one = pair;
            snprintf(pair, sizeof pair, "%s..%s", name[last], name[i]);
            count_words(t, &one, 1, early);
        }
        last = i;
    }
}

static const char *as_known(const char *word, const Topics *topics) {
    if (word[strspn(word, "0123456789")] == 0) return "#";
    for (int i = 0; i < topics->n; i++)
        if (strncmp(word, topics->stem[i], strlen(topics->stem[i])) == 0) return "@";
    return word;
}

static void count_sentence(Tally *t, const Sentence *s, const Topics *topics, bool early) {
    const char *word[JUDGE_WORDS + 2], *name[JUDGE_WORDS + 1];
    word[0] = name[0] = "^";
    for (int i = 0; i < s->n; i++) {
        word[i + 1] = as_known(s->word[i], topics);
        bool itself = word[i + 1] == s->word[i]; /* the prompt's words have no class either */
        name[i + 1] = itself && s->name[i] ? s->name[i] : "_";
    }
    word[s->n + 1] = "$";
    count_plain(t, word, s->n + 2, early);
    count_classes(t, name, s->n + 1, early);
}

static void read_topics(Topics *t, const char *prompt) {
    t->n = 0;
    for (const char *p = judge_skip_marks(prompt); *p && t->n < TOPICS; p = judge_skip_marks(p)) {
        const char *from = p;
        while (*p && judge_word_char(*p)) p++;
        size_t n = (size_t)(p - from), stem = n > 6 ? n - 2 : 4;
        char *to = t->stem[t->n];
        if (n < 4 || n >= JUDGE_WORD) continue;
        memcpy(to, from, n);
        to[n] = 0;
        if (judge_word_in(to, plain_words)) continue;
        to[stem] = 0;
        t->n++;
    }
}

/* "1. ", "2) " .. */
static int numbered_items(const char *form) {
    int n = 0;
    for (const char *p = form; *p; p++) {
        if (p > form && p[-1] != ' ') continue;
        size_t digits = strspn(p, "0123456789");
        n += (digits == 1 || digits == 2) && (p[digits] == '.' || p[digits] == ')') &&
             p[digits + 1] == ' ';
    }
    return n;
}

void judge_model(ModelSays *m, const char *form, bool code, const char *prompt) {
    static const char *const marks[] = {"(item)", "(list)", "(code)"};
    Tally t = {0};
    Topics topics;
    Sentence s;
    SentenceReader r = {form, 0};
    read_topics(&topics, prompt);
    for (int kept = 0; judge_next_sentence(&r, &s);) {
        if (judge_sentence_declines(&s)) continue;
        count_sentence(&t, &s, &topics, kept < EARLY);
        kept++;
    }
    *m = (ModelSays){.items = numbered_items(form)};
    if (m->items >= 1) count(&t, marks[0]);
    if (m->items >= 2) count(&t, marks[1]);
    if (code) count(&t, marks[2]);
    m->known = t.n;
    if (t.n) m->score = scale * t.sum / sqrt(t.n) + bias;
    memcpy(m->strongest, t.name[m->score > 0], sizeof m->strongest);
}
