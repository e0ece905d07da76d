/* choices.h - an enum and the words for its values, from one list:
 *
 *   #define POOLS(X) X(POOL_TOKEN, "token") X(POOL_DOCUMENT, "document")
 *   enum Pool { POOLS(CHOICE_ENUM) };      POOL_TOKEN, POOL_DOCUMENT
 *   CHOICES(POOLS)                         "token|document": settings.h takes it as a detail
 *   const char *const name[] = {POOLS(CHOICE_TEXT)};     name[POOL_TOKEN] is "token" */
#ifndef SAILS_CHOICES_H
#define SAILS_CHOICES_H

#define CHOICE_ENUM(value, word, ...) value,
#define CHOICE_TEXT(value, word, ...) word,
#define CHOICE_WORD(value, word, ...) "|" word
#define CHOICES(LIST) (&LIST(CHOICE_WORD)[1])

#endif
