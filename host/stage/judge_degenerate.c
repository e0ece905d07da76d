/* judge_degenerate.c - empty, echoing, looping and noisy responses. */
#include "host/stage/judge_degenerate.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "data/utf8.h"
#include "host/stage/judge_prompt.h"
#include "host/stage/judge_text.h"

enum { MOST_WORDS = JUDGE_ROOM / 2 };

typedef struct Word {
    const char *at;
    size_t n;
} Word;

static size_t read_words(Word word[MOST_WORDS], const char *form) {
    size_t n = 0;
    for (const char *p = judge_skip_marks(form); *p && n < MOST_WORDS; p = judge_skip_marks(p)) {
        word[n].at = p;
        while (*p && judge_word_char(*p)) p++;
        word[n].n = (size_t)(p - word[n].at);
        n++;
    }
    return n;
}

static bool same_word(const Word *a, const Word *b) {
    return a->n == b->n && memcmp(a->at, b->at, a->n) == 0;
}

static bool loops(const char *form) {
    Word word[MOST_WORDS];
    size_t n = read_words(word, form);
    for (size_t period = 1; period <= LOOP_PERIOD && period < n; period++) {
        size_t run = 0; /* words that are what they were a period before */
        for (size_t i = period; i < n; i++) {
            run = same_word(&word[i], &word[i - period]) ? run + 1 : 0;
            size_t passage = run + period;
            if (run && passage >= LOOP_TIMES * period && passage >= LOOP_WORDS && 2 * passage >= n)
                return true;
        }
    }
    return false;
}

/* The script of a letter, by its block: 0 is none of those that tell. */
static int script_of(uint32_t c) {
    static const struct {
        uint32_t from, to;
    } blocks[] = {{0x370, 0x3ff},   {0x400, 0x52f},    {0x530, 0x58f},   {0x590, 0x5ff},
                  {0x600, 0x6ff},   {0x900, 0x97f},    {0x980, 0xdff},   {0xe00, 0xeff},
                  {0x10a0, 0x10ff}, {0x1200, 0x137f},  {0x3040, 0x30ff}, {0x4e00, 0x9fff},
                  {0xac00, 0xd7af}, {0x20000, 0x2ffff}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].from && c <= blocks[i].to) return (int)i + 1;
    return 0;
}

/* No text has these: controls but white space, U+FFFD, private use. */
static bool broken(uint32_t c) {
    bool control = (c < 0x20 && !(c >= 0x09 && c <= 0x0d)) || (c >= 0x7f && c < 0xa0 && c != 0x85);
    return control || c == 0xfffd || (c >= 0xe000 && c <= 0xf8ff) || c >= 0xf0000;
}

static bool bad_characters(const char *text, size_t len) {
    enum { SCRIPTS = 16, FEWEST = 8 };
    size_t of[SCRIPTS] = {0}, characters = 0, bad = 0;
    for (size_t i = 0; i < len; characters++) {
        size_t left = len - i < 4 ? len - i : 4;
        int n = utf8_len(text[i]);
        if (n < 1 || (size_t)n > left || utf8_valid(text + i, (size_t)n) != (size_t)n) {
            bad++, i++;
            continue;
        }
        uint32_t c = utf8_decode(text + i, &n);
        bad += broken(c);
        of[script_of(c)]++;
        i += (size_t)n;
    }
    int scripts = 0;
    for (int i = 1; i < SCRIPTS; i++) scripts += of[i] >= 2;
    return (bad >= FEWEST && 8 * bad >= characters) || scripts >= NOISE_SCRIPTS;
}

/* Keys struck at random. */
static bool gibberish(const char *form) {
    Word word[MOST_WORDS];
    size_t n = read_words(word, form), latin = 0, mute = 0;
    for (size_t i = 0; i < n; i++) {
        bool letters = word[i].n >= 4, vowel = false;
        for (size_t k = 0; k < word[i].n; k++) {
            letters = letters && word[i].at[k] >= 'a' && word[i].at[k] <= 'z';
            vowel = vowel || strchr("aeiouy", word[i].at[k]);
        }
        latin += letters;
        mute += letters && !vowel;
    }
    return mute >= NOISE_WORDS && 2 * mute > latin;
}

const char *judge_degenerate(const char *text, size_t len, const char *form, const char *prompt) {
    if (!*judge_skip_marks(form)) return "empty";
    if (judge_echoes(prompt, form)) return "echo";
    if (loops(form)) return "loop";
    return bad_characters(text, len) || gibberish(form) ? "noise" : NULL;
}
