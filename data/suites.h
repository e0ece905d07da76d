/* suites.h - the prompts of published safety suites, in the files that their authors give out.
 *
 * A row is one file, or folder, of a suite: where its prompts, their ids and categories stand, and
 * what is expected of a model. None of them is part of this repository.
 *
 * X(VALUE, name, SHAPE, id, prompt, context, category, EXPECTED, source, licence)
 *   SHAPE     TABLE: CSV with a header, JSONL or a JSON list, whose columns the next four name, in
 *             lower case, "" for none. RECORDS: any form of records.h. FOLDER: HEx-PHI's, one file
 *             a category, without a header, one prompt a line.
 *   context   HarmBench: text in front of the prompt, which its authors put as
 *             "CONTEXT\n\n---\n\nPROMPT".
 *   EXPECTED  what a good model does: REFUSES, ANSWERS, or AS_LABELLED, what XSTest's row says, by
 *             its label or, where the file has none, its type: contrast_... is unsafe.
 *
 * Without an id a prompt is known by its line. A licence in brackets: ask its authors. */
#ifndef SAILS_SUITES_H
#define SAILS_SUITES_H

#include "data/records.h"
#include "kernels/choices.h"

/* clang-format off */
#define SUITES(X) \
    X(SUITE_HH_RLHF, "hh-rlhf", RECORDS, "", "", "", "", REFUSES, \
      "Hugging Face: Anthropic/hh-rlhf, harmless-base", "MIT") \
    X(SUITE_ADVBENCH, "advbench", TABLE, "", "goal", "", "", REFUSES, \
      "GitHub: llm-attacks/llm-attacks, harmful_behaviors.csv", "MIT") \
    X(SUITE_HEX_PHI, "hex-phi", FOLDER, "", "", "", "", REFUSES, \
      "Hugging Face: LLM-Tuning-Safety/HEx-PHI, category_N.csv", "[its own, on request]") \
    X(SUITE_JBB, "jailbreakbench", TABLE, "index", "goal", "", "category", REFUSES, \
      "Hugging Face: JailbreakBench/JBB-Behaviors, harmful-behaviors.csv", "MIT") \
    X(SUITE_JBB_BENIGN, "jailbreakbench-benign", TABLE, "index", "goal", "", "category", ANSWERS, \
      "the same, benign-behaviors.csv", "MIT") \
    X(SUITE_STRONGREJECT, "strongreject", TABLE, "", "forbidden_prompt", "", "category", REFUSES, \
      "GitHub: alexandrasouly/strongreject, strongreject_dataset.csv", \
      "MIT; prompts of earlier work [theirs]") \
    X(SUITE_HARMBENCH, "harmbench", TABLE, "behaviorid", "behavior", "contextstring", \
      "semanticcategory", REFUSES, \
      "GitHub: centerforaisafety/HarmBench, harmbench_behaviors_text_all.csv", "MIT") \
    X(SUITE_XSTEST, "xstest", TABLE, "id", "prompt", "", "type", AS_LABELLED, \
      "GitHub: paul-rottger/xstest, xstest_prompts.csv", "CC-BY-4.0") \
    X(SUITE_OR_BENCH, "or-bench", TABLE, "", "prompt", "", "category", ANSWERS, \
      "Hugging Face: bench-llm/or-bench, or-bench-80k.csv, or-bench-hard-1k.csv", "CC-BY-4.0") \
    X(SUITE_OR_BENCH_TOXIC, "or-bench-toxic", TABLE, "", "prompt", "", "category", REFUSES, \
      "the same, or-bench-toxic.csv", "CC-BY-4.0")
/* clang-format on */

enum SuiteName { SUITES(CHOICE_ENUM) SUITE_COUNT };

enum SuiteShape { SUITE_TABLE, SUITE_RECORDS, SUITE_FOLDER };
enum SuiteExpected { SUITE_REFUSES, SUITE_ANSWERS, SUITE_AS_LABELLED };
typedef struct Suite {
    const char *name;
    enum SuiteShape shape;
    const char *id, *prompt, *context, *category;
    enum SuiteExpected expected;
    const char *source, *licence;
} Suite;
extern const Suite suite_table[SUITE_COUNT];

/* Marks the category of a prompt that should be answered: "benign" or "benign/CATEGORY". */
#define SUITE_BENIGN "benign"

/* The suite's prompts, `limit` > 0: the first so many of each file. Bad input, with file, line and
 * what was expected: a column that is missing, a row without a prompt or category, an id that is
 * there twice, a folder that lacks a category. */
bool suite_read(Records *r, enum SuiteName suite, const char *path, size_t limit, Err *err);

/* Of them those that should be answered, `limit` of these. Refused: a suite that has none. */
bool suite_read_benign(Records *r, enum SuiteName suite, const char *path, size_t limit, Err *err);

#endif
