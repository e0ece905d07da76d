/* nll.h - log-probabilities of documents under a model: perplexity, parity, multiple choice. */
#ifndef SAILS_NLL_H
#define SAILS_NLL_H

#include "host/stage/examples.h"
#include "model/gemma2.h"
#include "model/stream_edit.h"

/* -log p of the n labelled tokens of document number `doc`, in order, and what their logits say
 * where that is asked for, else NULL; n may be 0. Called for each document, in the order of the
 * index; of several ranks on rank 0. */
typedef bool nll_sink(void *context, size_t doc, const float *nll, const LogitFacts *logits, int n,
                      Err *err);

typedef struct NllHow {
    int pack_tokens;      /* rows of a pack */
    const char *progress; /* names the bar; NULL: none */
    bool logits;          /* what they say is asked for, too */
    StreamEdit *edit;     /* by which the stream is changed; NULL: it is not */
    /* What is said where a signal asks for a stop (wish_stop); NULL: it goes on to the end. */
    const char *while_it, *again;
} NllHow;

/* Runs examples, whose documents have records. All ranks share the packs, of documents that are the
 * same (same_input.h); what is in a pack does not change a document's numbers. A number that is not
 * finite is EXIT_NUMBERS, with its document and the tensor that was first (bad_tensor.h). */
bool nll_docs(const Model *m, const Examples *e, const NllHow *how, nll_sink *sink, void *context,
              Err *err);

/* The largest pack that it will make of them. */
PackSize nll_pack_size(const Examples *e, int pack_tokens);

/* Sum of -log p over all labels of documents index[0..n) (NULL: the first n) and their number; of
 * several ranks rank 0 has it. */
typedef struct NllSum {
    double sum;
    size_t labels;
} NllSum;
bool nll_sum(NllSum *sum, const Model *m, const Doc *doc, const size_t *index, size_t n,
             int pack_tokens, const char *progress, Err *err);

#endif
