/* tasks.h - multiple-choice tasks, from the files that their authors give out to the texts that are
 * compared: after lm-evaluation-harness 0.4, with whose own output they have yet to be compared.
 *
 * X(VALUE, name, source)
 * - mmlu: a folder with test/SUBJECT_test.csv and, for examples in front, dev/SUBJECT_dev.csv
 *   (data.tar): question, four choices and a letter, no header
 * - arc-easy, arc-challenge: JSONL {"id", "question": {"stem", "choices": [{"text", "label"}]},
 *   "answerKey"}; or {"id", "question", "choices": {"text": [], "label": []}, ..}
 * - hellaswag: JSONL {"activity_label", "ctx_a", "ctx_b", "endings": [], "label"}
 * - piqa: JSONL {"goal", "sol1", "sol2", "label"}; without "label" it is that line of
 *   FILE-labels.lst beside FILE.jsonl
 *
 * Texts, of the task files of lm-evaluation-harness:
 *   mmlu           "The following are multiple choice questions (with answers) about SUBJECT.\n\n",
 *                  the subject with spaces for underlines; the first k questions of dev, each with
 *                  " LETTER\n\n" behind it; "QUESTION\nA. ..\nB. ..\nC. ..\nD. ..\nAnswer:", the
 *                  question without white space around it; choices are the letters
 *   arc, piqa      "Question: QUESTION\nAnswer:"; choices are the texts
 *   hellaswag      p("ACTIVITY: CTX_A " and CTX_B with its first letter large and all others
 *                  small); choices are p(ENDING). p cuts white space off both ends, makes of each
 *                  " [title]" ". ", takes out "[..]" of one line, and makes of two spaces one, in
 *                  this order. Letters beyond ASCII stay as they are; the harness changes them too.
 * A choice goes on with a space and its text. */
#ifndef SAILS_TASKS_H
#define SAILS_TASKS_H

#include <stdbool.h>
#include <stddef.h>

#include "data/base/err.h"
#include "kernels/choices.h"

/* clang-format off */
#define TASKS(X) \
    X(TASK_MMLU, "mmlu", "people.eecs.berkeley.edu/~hendrycks/data.tar") \
    X(TASK_ARC_CHALLENGE, "arc-challenge", "AI2: ARC-V1-Feb2018, ARC-Challenge-Test.jsonl") \
    X(TASK_ARC_EASY, "arc-easy", "the same, ARC-Easy-Test.jsonl") \
    X(TASK_HELLASWAG, "hellaswag", "GitHub: rowanz/hellaswag, hellaswag_val.jsonl") \
    X(TASK_PIQA, "piqa", "yonatanbisk.com/piqa, valid.jsonl and valid-labels.lst")
/* clang-format on */
enum TaskName { TASKS(CHOICE_ENUM) TASK_COUNT };

enum { QUESTION_CHOICES = 16 }; /* at most */
typedef struct TaskQuestion {
    char *id;                       /* its own; else SUBJECT/LINE or LINE */
    char *subject;                  /* of mmlu; else "" */
    char *context;                  /* UTF-8 without NUL, as all of these */
    char *choice[QUESTION_CHOICES]; /* without the space in front */
    int n, answer;                  /* choices; the right one, from 0 */
} TaskQuestion;

typedef struct Questions {
    TaskQuestion *question;
    size_t n, capacity;
} Questions;

/* The task's questions, `limit` > 0: the first so many of each file; mmlu: in the order of its
 * subjects' names, `shots` examples in front of each. Bad input, with file and line: a field that
 * is missing or of another kind, an answer that is no choice, less than two choices, fewer examples
 * than asked for. */
bool task_read(Questions *q, enum TaskName task, const char *path, int shots, size_t limit,
               Err *err);
void questions_free(Questions *q); /* accepts a zeroed struct */

/* Characters of UTF-8, by which the harness' acc_norm divides a choice's sum. */
size_t question_characters(const char *text);

/* Bytes of white space at the context's end: they go to the front of the choice before both are
 * encoded, the way the harness does it. */
size_t question_trailing_space(const char *context);

#endif
