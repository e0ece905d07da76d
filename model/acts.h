/* acts.h - the buffers of a pass, shared by the model's own files only. */
#ifndef SAILS_ACTS_H
#define SAILS_ACTS_H

#include "model/gemma2.h"
#include "model/linear.h"

/* One layer's tensors under the names of the equations in gemma2_forward.c. With ACTS_TRAIN each
 * layer has its own, with ACTS_RECOMPUTE its own x and rx; with ACTS_INFER all layers share them
 * and x, x2 are one buffer. */
typedef struct LayerActs {
    store *x, *x2, *p, *m;     /* (N,D) stream in, stream between, sub-layer outputs */
    float *rx, *rp, *rx2, *rm; /* (N) rstd of the four */
    store *q, *k, *v, *o;      /* (N,H*E) (N,K*E) (N,K*E) (N,H*E) */
    float *lse;                /* (N,H) */
    store *gate, *up;          /* (N,F) */
    store *xa[GROUP_COUNT];    /* (N,R of the group) x A^T */
} LayerActs;

/* Keys and values of earlier tokens, for generation. */
typedef struct KvCache {
    store **k, **v; /* (L) of (slots,T,K*E) */
    int T;
} KvCache;

struct Acts {
    Exec *ex;
    enum ActsUse use;
    int max_rows, max_segs, max_labels;
    int max_R[GROUP_COUNT]; /* ranks that xa has room for */
    LayerActs *layer;       /* (L + 1); the last one is the final norm's input x, rx */
    store *h, *g;           /* (N,D) h and h2, in turn; (N,F) input of down_proj */
    Arena arena;

    /* The pack on the device. */
    int N, nseg;
    int layers;    /* that the pass ran */
    bool complete; /* all of them: h is the final hidden state */
    int32_t *token, *pos;
    int32_t
        *by_token; /* (N) its rows in the order of their tokens; where all weights are trained */
    Segment *seg;

    /* The rows that the last layer goes on with above its attention, in this order: `last`, or all
     * N. Its tensors from p on, the final x and h have nlast rows then. */
    bool picked;
    int nlast, max_last; /* max_last: in training no more than max_labels */
    int32_t *last;       /* (max_last) */
    store *last_x;       /* (max_last,D) their residual stream; its gradient in backward */
    store *last_o;       /* (max_last,H*E) their o; likewise */

    /* Head: label rows, a chunk of their logits, and what is left for backward. */
    int chunk; /* rows */
    int nlabel;
    int32_t *row, *target; /* (max_labels) */
    store *label_h;        /* (max_labels,D) hidden states, overwritten by their gradients */
    float *logits;         /* (chunk,V) */
    float *nll, *weight;   /* (max_labels) */
    float *fact[3];        /* (max_labels) entropy, mean, hit: of LogitFacts */
    LogitFacts facts;      /* to whom; entropy NULL: to nobody */
    store *dlogits;        /* (chunk,V); the logits themselves in f32 */
    store *one;            /* a 1, to add rows with */

    /* Of adapters with a start that is taken off; max_start 0: there are none. */
    int max_start; /* the largest R */
    store *eye;    /* (max_start,max_start) identity: a product with it copies columns */
    store *both;   /* (widest,2 max_start) */

    int32_t *drawn;                                        /* (chunk) */
    int32_t *host_last, *host_row, *host_target, *host_at; /* (max_labels) */
    float *host_label, *host_weight; /* (max_labels) in order of the labels here; in the pack's */
    int32_t *seen;                   /* (max_rows) */
    int64_t *host_order;             /* (max_rows) */

    /* Gradients, in training only; dh also receives the head's. */
    store *dx, *dp, *dh;
    store *dq, *dk, *dv, *d_o, *dxa;

    /* Generation: keys and values also go into the cache; decoding reads them from there. */
    const KvCache *cache;
    int32_t *slot, *len; /* (N) device; borrowed from the generator, as the cache is */
    bool decoding;

    /* Who is shown what projections read; NULL: nobody. */
    model_reads *reads;
    void *reads_context;

    /* Who changes the stream between layers; NULL: nobody. */
    model_edit *edit;
    void *edit_context;

    /* Who is shown the tensors of this pass by name; NULL: nobody. */
    model_watch *watch;
    void *watch_context;
};

/* (out,columns) [B, -B0] of an adapter with a start, else B: put together in a->both, for the next
 * product alone. */
Linear acts_out(const Acts *a, const Adapter *d);

/* A Segment as a row of numbers. */
enum { SEGMENT_NUMBERS = sizeof(Segment) / sizeof(int32_t) };

/* Shows tensors just computed, names with spaces between, under the scope: their rows first ..
 * first + rows, which lie in rows 0 .. rows of their memory. */
void acts_show(const Acts *a, const char *scope, int first, int rows, const char *names);
void acts_show_layer(const Acts *a, int layer, int rows, const char *names);
void acts_show_xa(const Acts *a, int layer, enum Group g, int rows, int R);

/* One pass over a->N rows whose tokens, positions and segments are on the device; a->watch is the
 * caller's to set. */
void acts_layers(const Model *m, Acts *a, const Segment *host_seg, int layers, model_tap *tap,
                 void *context);

/* Makes again what the pass has made in a layer, from its input, which is still there. */
void acts_layer_again(const Model *m, Acts *a, int layer, const Segment *host_seg);

/* token[i] = drawn from the capped logits of the last layer's row i.
 *   token (n) device; u (n) device, NULL: greedy. */
void head_sample(const Model *m, Acts *a, int32_t *token, int n, const float *u, Sampling how);

#endif
