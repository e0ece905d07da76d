/* seal.h - a JSON object that holds its own SHA-256, by which a flipped bit is seen. */
#ifndef SAILS_SEAL_H
#define SAILS_SEAL_H

#include <jansson.h>

#include "data/base/err.h"

/* Adds the member "sha256", also given as `hex`: of the object's text without it, in an order of
 * its own, behind `under`, the hash of what the object belongs to ("": of nothing). */
void seal_set(char hex[65], json_t *object, const char *under);

/* Is it as it was sealed? If not, EXIT_INPUT, with `where` in front. Takes the member out and gives
 * what it should be. */
bool seal_holds(char hex[65], json_t *object, const char *under, const char *where, Err *err);

#endif
