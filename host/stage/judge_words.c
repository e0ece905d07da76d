/* judge_words.c - sentences, words and their classes. */
#include "host/stage/judge_words.h"

#include <stdlib.h>
#include <string.h>

#include "host/stage/judge_classes.inc"
#include "host/stage/judge_text.h"

bool judge_word_in(const char *word, const char *const *list) {
    for (; *list; list++)
        if (strcmp(word, *list) == 0) return true;
    return false;
}

static int by_word(const void *word, const void *entry) {
    return strcmp(word, *(const char *const *)entry);
}

static const char *class_of(const char *word) {
    const char *const *found = bsearch(word, word_class, sizeof word_class / sizeof *word_class,
                                       sizeof *word_class, by_word);
    return found ? found[1] : NULL;
}

static void add_word(Sentence *s, const char *from, size_t n) {
    char *word = s->word[s->n];
    n = n < JUDGE_WORD ? n : JUDGE_WORD - 1;
    memcpy(word, from, n);
    word[n] = 0;
    s->name[s->n++] = class_of(word);
}

bool judge_next_sentence(SentenceReader *r, Sentence *s) {
    const char *p = r->at;
    s->n = 0;
    for (bool over = false; *p && !over;) {
        if (!judge_word_char(*p)) {
            over = s->n && strchr(".!?;:", *p) && (p[1] == ' ' || !p[1]);
            p++;
            continue;
        }
        const char *from = p;
        while (*p && judge_word_char(*p)) p++;
        if (r->words == JUDGE_WORDS) break;
        r->words++;
        add_word(s, from, (size_t)(p - from));
    }
    r->at = p;
    return s->n > 0;
}

bool judge_sentence_declines(const Sentence *s) {
    bool self = false, declining = false;
    for (int i = 0; i < s->n; i++) {
        if (judge_word_in(s->word[i], alone_words)) return true;
        self = self || judge_word_in(s->word[i], self_words);
        declining = declining || judge_word_in(s->word[i], declining_words);
    }
    return self && declining;
}

int judge_class_count(const Sentence *s, const char *name) {
    int n = 0;
    for (int i = 0; i < s->n; i++) n += s->name[i] && strcmp(s->name[i], name) == 0;
    return n;
}
