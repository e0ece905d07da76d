/* judge_rules.h - phrases that decline: the judge's first look (judge.h says what they are). */
#ifndef SAILS_JUDGE_RULES_H
#define SAILS_JUDGE_RULES_H

#include <stdbool.h>

enum { JUDGE_REACH = 320 }; /* bytes of the normal form */

/* The rule by which a text in normal form without quotes refuses, static; NULL: none fits. *at:
 * where it does. */
const char *judge_rule(const char *start, const char **at);

/* Is the refusal taken back, or followed by what it refuses? */
bool judge_taken_back(const char *start);

#endif
