/* asking.h - asks a model behind HTTP for verdicts, many requests at a time.
 *
 * Before the first question a harmless one is asked in each dialect in turn (completion.h), until
 * one gives a verdict. What the file of verdicts has is not asked again, nor is the same question
 * twice; a judge that was cut short, was unreadable or rejected a request is asked again by the
 * next process. Failures are retried by retry.h; when a server tells of limits that are used up,
 * nothing is sent until they fill again. It ends early, and what was answered is kept: when the
 * server says that key, address, model or account are wrong; when five questions one after another
 * have got no answer in all their tries; when the budget is spent; when the caller says so. */
#ifndef SAILS_ASKING_H
#define SAILS_ASKING_H

#include "host/judge/verdicts.h"

typedef struct Question {
    Exchange exchange; /* borrowed */
    char key[65];      /* rubric_key */
} Question;

/* Asked several times a second; false, with err set: the asking is to end. */
typedef struct AskingWatch {
    bool (*go_on)(void *context, Err *err);
    void *context;
} AskingWatch;

typedef struct AskingWork {
    size_t known, asked; /* questions that the file had; that were answered now */
    size_t requests;     /* sent, with those that failed and those of the trial */
    double tokens_in, tokens_out, cost, seconds;
} AskingWork;

/* v is open for writing. Settings: eval.judge-*. */
bool asking_run(AskingWork *work, const Settings *s, const Question *q, size_t n, Verdicts *v,
                const AskingWatch *watch, Err *err);

/* Is everything there that it needs, and right? Asks nobody. */
bool asking_check(const Settings *s, Err *err);

#endif
