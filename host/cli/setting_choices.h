/* setting_choices.h - what may be chosen where only settings name it; other enums stand where they
 * are used. Each list is of the enum's member and the word that a user gives. */
#ifndef SAILS_SETTING_CHOICES_H
#define SAILS_SETTING_CHOICES_H

#include "kernels/choices.h"

#define SIDES(X) X(SIDE_CHOSEN, "chosen") X(SIDE_REJECTED, "rejected") /* of a pair */
enum Side { SIDES(CHOICE_ENUM) };
#define COUNTED_TOKENS(X) X(COUNT_REPLY, "reply") X(COUNT_LAST, "last") X(COUNT_ALL, "all")
enum CountedTokens { COUNTED_TOKENS(CHOICE_ENUM) };
#define TRAIN_METHODS(X) X(METHOD_LORA, "lora") X(METHOD_FULL, "full") X(METHOD_DPO, "dpo")
enum TrainMethod { TRAIN_METHODS(CHOICE_ENUM) };
#define TRAINED_WEIGHTS(X) X(WEIGHTS_ADAPTER, "adapter") X(WEIGHTS_ALL, "all") /* by dpo */
enum TrainedWeights { TRAINED_WEIGHTS(CHOICE_ENUM) };
#define JUDGES(X) X(JUDGE_REFUSAL, "refusal") X(JUDGE_HTTP, "http") X(JUDGE_FILE, "file")
enum JudgeKind { JUDGES(CHOICE_ENUM) };
#define JUDGE_DIALECTS(X)                             \
    X(DIALECT_SCHEMA, "schema")                       \
    X(DIALECT_SCHEMA_COMPLETION, "schema-completion") \
    X(DIALECT_TOP_SCHEMA, "top-schema")               \
    X(DIALECT_PLAIN, "plain")                         \
    X(DIALECT_PLAIN_COMPLETION, "plain-completion")
enum JudgeDialect { JUDGE_DIALECTS(CHOICE_ENUM) DIALECT_COUNT };
#define PLAN_STAGES(X)            \
    X(STAGE_SCORE, "score")       \
    X(STAGE_MOMENTS, "moments")   \
    X(STAGE_INPUTS, "inputs")     \
    X(STAGE_TRAIN, "train")       \
    X(STAGE_GENERATE, "generate") \
    X(STAGE_LOGPROB, "logprob")
enum PlanStage { PLAN_STAGES(CHOICE_ENUM) };
#define THEORY_STUDIES(X)           \
    X(STUDY_ALL, "all")             \
    X(STUDY_EPS, "eps")             \
    X(STUDY_DOCUMENTS, "documents") \
    X(STUDY_RANK, "rank")           \
    X(STUDY_PAIRS, "pairs")         \
    X(STUDY_CONTRAST, "contrast")   \
    X(STUDY_COHERENCE, "coherence") \
    X(STUDY_SELECTION, "selection") \
    X(STUDY_PIPELINE, "pipeline")   \
    X(STUDY_CROSSTALK, "crosstalk") \
    X(STUDY_TRAINED, "trained")
enum TheoryStudy { THEORY_STUDIES(CHOICE_ENUM) STUDY_COUNT };

#endif
