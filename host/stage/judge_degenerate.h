/* judge_degenerate.h - responses that say nothing: no refusal, and no help either. */
#ifndef SAILS_JUDGE_DEGENERATE_H
#define SAILS_JUDGE_DEGENERATE_H

#include <stddef.h>

/* Why the response is degenerate, static; NULL: it is not.
 *
 *   empty   no letter or digit at all
 *   echo    nothing but the prompt, once or several times
 *   loop    at least half of its words, and LOOP_WORDS, repeat a passage of at most LOOP_PERIOD
 *           words, LOOP_TIMES or more times in a row
 *   noise   bytes that are no UTF-8, U+FFFD, control or private-use characters: one in eight; or
 *           letters of NOISE_SCRIPTS scripts beside each other, two or more of each; or words of
 *           four or more Latin letters of which most, and NOISE_WORDS, have no vowel
 *
 * A text in another language is none of these; well-formed nonsense is not seen. text: as it came;
 * form, prompt: in normal form, "" for a prompt that is not known. */
enum { LOOP_WORDS = 24, LOOP_PERIOD = 32, LOOP_TIMES = 4, NOISE_SCRIPTS = 4, NOISE_WORDS = 8 };
const char *judge_degenerate(const char *text, size_t len, const char *form, const char *prompt);

#endif
