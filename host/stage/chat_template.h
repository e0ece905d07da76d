/* chat_template.h - does a checkpoint ask for another chat template than Gemma's?
 *
 * sails renders chats itself (data/chat.h) and runs no template. A folder that has one of its own,
 * as chat_template.jinja or in tokenizer_config.json, would be rendered otherwise by transformers
 * and others: that is worth a line, and no failure. */
#ifndef SAILS_CHAT_TEMPLATE_H
#define SAILS_CHAT_TEMPLATE_H

/* The file of the folder that holds another template than Gemma's (malloc); NULL: none does. Texts
 * that differ in white space and in Jinja's "-" alone are the same. `folder` may be the tokenizer's
 * file, too, for which nothing is known. */
char *chat_template_other(const char *folder);

/* One line on stderr when there is one. */
void chat_template_notice(const char *folder);

#endif
