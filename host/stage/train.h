/* train.h - the training loop: global batches, packs, gradients, AdamW, one line per step. */
#ifndef SAILS_TRAIN_H
#define SAILS_TRAIN_H

#include "host/stage/checkpoints.h"
#include "host/stage/examples.h"
#include "model/schedule.h"
#include "host/cli/settings.h"
#include "model/gemma2.h"
#include "model/pair_loss.h"

typedef struct TrainSetup {
    const Doc *doc;
    const int *shared;   /* the documents are pairs (examples.h); NULL: they are not */
    const size_t *index; /* (n) which documents; NULL: the first n, as of pairs */
    size_t n;
    PairLoss pair_loss;      /* of pairs */
    bool reference_is_start; /* their reference is what training starts from: the adapter of a
                              * folder or all weights; else the model without an adapter */
    int batch;               /* documents, or pairs, of a step */
    int steps;               /* in all */
    double steps_per_epoch;
    int pack_tokens;
    bool recompute; /* activations (ACTS_RECOMPUTE) */
    uint64_t seed;  /* of the order */
    Schedule schedule;
    double clip;                       /* 0: none */
    AdamW adamw;                       /* betas, eps, weight decay */
    double redundancy;                 /* weight of the penalty (redundancy.h); 0: none */
    const Doc *eval;                   /* documents on which the loss is measured, too */
    const int *eval_shared;            /* as shared */
    const size_t *eval_index;          /* (neval) which; NULL: the first neval, as of pairs */
    size_t neval;                      /* 0: none */
    int eval_every;                    /* steps; 0: after the last alone */
    const char *metrics_path;          /* NULL: no file */
    const char *events_path;           /* of the same for TensorBoard; NULL: none */
    bool tensorboard;                  /* is that wanted, where there is a folder? */
    const CheckpointPlan *checkpoints; /* borrowed; NULL: none are saved */
    bool json;
    step_sink *sink; /* gets the steps in place of stdout; NULL: none */
    void *sink_context;
} TrainSetup;

typedef struct TrainResult {
    int steps;
    double seconds;                          /* of the steps */
    double first_loss, last_loss, mean_loss; /* without a penalty */
    double redundancy;                       /* of the adapter at the end */
    size_t tokens, labels;                   /* seen, repeats counted */
} TrainResult;

/* The largest pack of the run, and the most packs of a step. */
typedef struct TrainSize {
    PackSize pack;
    int packs;
} TrainSize;
TrainSize train_size(const TrainSetup *t);
int train_packs(const TrainSetup *t, int step); /* of a step, from 0 */

/* Do the settings ask for checkpoints? */
bool train_saves(const Settings *s);

/* What the settings ask for over n documents, or pairs; fills all but doc, shared, index and
 * metrics_path. */
void train_setup(TrainSetup *t, const Settings *s, size_t n);
Examples train_examples(const TrainSetup *t); /* of the steps */
Examples train_eval_examples(const TrainSetup *t);

/* Trains model_params(m), an adapter made with training and final flags or all weights, from where
 * a checkpoint left them if one is resumed: every byte of the result is then what a run in one
 * piece gives. The loss of a step is the mean over all label tokens of its global batch, however it
 * falls into packs; of pairs the mean over its pairs, whose log-probabilities under the reference
 * are measured before the first step, and again when a run is resumed: to the same bits. A penalty
 * on redundant adapters adds to the gradient, which the norm is of, on every rank alike. A loss or
 * gradient that is not finite ends the run with EXIT_NUMBERS and the first bad tensor's name; what
 * is trained is then as the last good step left it. */
bool train(TrainResult *result, Model *m, const TrainSetup *t, Err *err);

/* The same into a PEFT folder, adapter and model card, or a Hugging Face one (tuned_model.h), and
 * metrics.jsonl, and where it is wanted EVENTS_FILE (their paths are set here). They appear
 * together at the end (out_folder.h), so that a run that fails leaves what was there. `base_model`
 * is the folder of the model that was trained: an adapter says that it belongs to it. The caller
 * has locked `folder`, or one around it (folder_lock.h). */
bool train_folder(TrainResult *result, Model *m, TrainSetup *t, const char *folder,
                  const char *base_model, Err *err);

#endif
