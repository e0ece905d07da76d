/* html.h - pages and figures, of which every text from outside is escaped by the call that writes
 * it.
 *
 * What these write is HTML that is well-formed XML, too: all elements are closed, all attributes
 * quoted. */
#ifndef SAILS_HTML_H
#define SAILS_HTML_H

#include <stdio.h>

#include <jansson.h>

/* Markup, whose only directive is %s: a text, escaped for an element or a quoted attribute. */
__attribute__((format(printf, 2, 3))) void html(FILE *f, const char *format, ...);

/* Text escaped as by html: & < > " ' by name; line ends and tabs stay; other control characters,
 * those that turn the direction of what follows, and bytes that are no UTF-8 become U+FFFD. */
void html_text(FILE *f, const char *text);
void html_part(FILE *f, const char *text, size_t n); /* the first n bytes of it */

/* A value within <script type="application/json">: ASCII, in which nothing can end the element. */
void html_json(FILE *f, const json_t *value);

/* A number as text, or a dash where there is none: with so many digits behind the point, with so
 * many digits in all, a share as a percentage. They return `text`. */
enum { HTML_NUMBER = 48 };
const char *html_fixed(char text[HTML_NUMBER], const json_t *x, int digits);
const char *html_digits(char text[HTML_NUMBER], const json_t *x, int digits);
const char *html_percent(char text[HTML_NUMBER], const json_t *share);

/* The member at a path of keys; NULL: there is none, or what is there is no object. */
const json_t *html_at(const json_t *object, const char *key, const char *then);

/* A member that is text; "" where it is not. */
const char *html_word(const json_t *object, const char *key);

#endif
