/* judging.h - a file of responses before a judge behind HTTP: asked, or written out as a batch.
 *
 * Asking and evaluating are apart: judging_ask fills the file of verdicts (host/judge/verdicts.h),
 * judging_scores looks up there, so that a result depends on files alone. */
#ifndef SAILS_JUDGING_H
#define SAILS_JUDGING_H

#include "host/judge/asking.h"
#include "kernels/comm.h"

/* Is `judge` among those of eval.judge? */
bool judging_by(const Settings *s, enum JudgeKind judge);

/* What is wrong with eval.judge and eval.judge-*, before hours of work. */
bool judging_check(const Settings *s, Err *err);

/* Asks for every response of a file that the verdicts do not have; rank 0 alone calls it, and
 * shows the others (comm, NULL: there are none) that it lives. EXIT_STOPPED on a signal that asks
 * for an end: what was answered is kept. */
bool judging_ask(AskingWork *work, const char *responses, const Settings *s, Comm *comm, Err *err);

/* The verdicts on a file's responses: by_id: id -> {"score": 1..5|null, "reason"} of those that
 * were asked for, about: model, rubric, how many answers by dialect, tokens. */
bool judging_scores(json_t **by_id, json_t **about, const char *responses, const Settings *s,
                    Err *err);

/* Writes the batch that eval.judge-export names; *n: its requests. */
bool judging_export(size_t *n, const char *responses, const Settings *s, Err *err);

/* A line of a batch's output as judging_scores has it; new. */
json_t *judging_batch_score(const json_t *line);

#endif
