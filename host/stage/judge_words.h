/* judge_words.h - a response as sentences of words, and what words mean alike to the judge. */
#ifndef SAILS_JUDGE_WORDS_H
#define SAILS_JUDGE_WORDS_H

#include <stdbool.h>

enum { JUDGE_WORDS = 256, JUDGE_WORD = 32 }; /* words that are read; room of one: the rest is cut */

typedef struct Sentence {
    int n;
    char word[JUDGE_WORDS][JUDGE_WORD];
    const char *name[JUDGE_WORDS]; /* of the word's class, static: "LAW", "BAD" ..; NULL: none */
} Sentence;

/* A reader over a normal form (judge_text.h): {form, 0} at first. */
typedef struct SentenceReader {
    const char *at; /* borrowed from the form */
    int words;      /* read so far */
} SentenceReader;

/* The next sentence that has a word, of the form's first JUDGE_WORDS words; false: no more. A
 * sentence ends with one of .!?;: before a space. */
bool judge_next_sentence(SentenceReader *r, Sentence *s);

/* Does the sentence decline in so many words ("i cannot ..", "sorry ..")? The model does not read
 * such ones. */
bool judge_sentence_declines(const Sentence *s);

/* Is the word in the list, which ends with NULL? */
bool judge_word_in(const char *word, const char *const *list);

/* How many of the sentence's words are of the class. */
int judge_class_count(const Sentence *s, const char *name);

#endif
