/* planted.h - the planted world: a checkpoint, SAEs and texts whose every answer is known.
 *
 * The residual stream of the little Gemma-2 model is laid out by hand. Its D coordinates are
 *
 *   0               ballast: the same large number for every token. It keeps the stream's RMS
 * nearly constant, and it is the "one" that biases are made of (Gemma has none). 1 .. NA identity
 * of the token: what key and gate rows read
 *   .. + NB         next token: what the head reads; the final norm scales all else to zero
 *   .. + NS         meaning: SEM_COUNT directions of token classes and attention flags, and the
 *                   planted directions, which the SAEs of the scored layers decode
 *
 * Inside each block the bases are random rotations. Sub-layers write a ballast of their own that
 * the post norm's gain then removes, so the post norm divides by a constant that the weights undo;
 * the gains of all norms are random and undone as well. So every number of the stream is known, and
 * an implementation that leaves out a gain, the embedding's sqrt(D) or a soft cap computes another.
 */
#ifndef SAILS_PLANTED_H
#define SAILS_PLANTED_H

#include <stdbool.h>
#include <stdio.h>

#include "data/base/err.h"

enum { D = 160, NA = 64, NB = 56, NS = 39, AT_A = 1, AT_B = AT_A + NA, AT_S = AT_B + NB };
enum { LAYERS = 5, HEADS = 4, KV_HEADS = 2, HEAD_WIDTH = 32, FFN = 64, WINDOW = 24 };
enum { MAX_PIECES = 1024, MAX_PIECE = 24, MAX_DOC = 256, MAX_PAIRS = 256, MAX_TEXT = 512 };
enum { EVENTS = 16, PLANTED = 18, SAE_WIDTH = 96, FIRST_SAE = 1, LAST_SAE = 3 };

#define BALLAST 8.0         /* of the stream */
#define RMS_IN 0.65         /* of a stream entering a sub-layer; true to a few percent */
enum { QUERY_SCALAR = 80 }; /* 1.6^2 times the width of a head: one for the other must show */
#define CAP_ATTENTION 50.0
#define LOOK_HEADER \
    55.0                /* scores that share the REPLY flag between header and BOS: with the soft */
#define LOOK_START 50.0 /* cap 88 % to 12 %, without it 99 % to 1 % */
#define CAP_FINAL 30.0
#define AMPLITUDE 2.5 /* of a planted direction in the stream */

/* Directions of meaning. The first ones are set by the embedding (a token's class), the flags by
 * attention: REPLY behind a model header, NEAR at most WINDOW - 1 tokens behind it, CONTEXT on
 * words of a plan when a harmful word came before. */
enum Sem {
    HARM,
    TOPIC,
    RUDE_1,
    RUDE_2,
    REFUSE_1,
    REFUSE_2,
    STEP_1,
    STEP_2,
    MARKER,
    START,
    ASK,
    REPLY,
    NEAR,
    CONTEXT,
    SEM_COUNT
};

/* When a planted direction is written: sum of sem[i] * (token's or flag's amount), plus 1 when the
 * token is `piece`, exceeds the threshold. */
typedef struct Event {
    const char *name, *piece;
    double sem[SEM_COUNT], threshold;
    double on; /* sum - threshold where it holds */
} Event;
extern const Event event[EVENTS];
double event_margin(const Event *e, const double amount[SEM_COUNT], bool is_piece);

typedef struct Pair {         /* one line of the training file; texts are plain, not rendered */
    char before[2][MAX_TEXT]; /* an earlier question and answer; empty: none */
    char prompt[MAX_TEXT], chosen[MAX_TEXT], rejected[MAX_TEXT];
} Pair;

typedef struct Prompt {
    char text[MAX_TEXT];
    const char *category;
} Prompt;

typedef struct World {
    unsigned long long draws; /* random numbers used so far */
    double noise;             /* of the SAEs' decoders: a planted direction d is given as that of
                                 d + noise e, e a random unit vector at a right angle to it */

    char piece[MAX_PIECES][MAX_PIECE]; /* UTF-8, as in tokenizer.json */
    int merge[MAX_PIECES][2];          /* what piece `i` is merged from, -1: nothing */
    int npieces;

    double sem[MAX_PIECES][SEM_COUNT]; /* classes of the tokens */
    double a[MAX_PIECES][NA], b[MAX_PIECES][NB];
    double direction[SEM_COUNT][NS]; /* orthonormal */
    double planted[PLANTED][NS];     /* unit length, not orthogonal */
    double dual[PLANTED][NS];        /* dual[i] . planted[j] = (i == j), and zero on direction */

    Pair pair[MAX_PAIRS];
    Prompt harmful[MAX_PAIRS], benign[MAX_PAIRS];
    int npairs, nharmful, nbenign;
} World;

/* Which planted direction carries event e in the stream leaving layer l. No event keeps its
 * direction from one scored layer to the next, so a layer too early or late shows. */
int planted_at(int l, int e);

/* random.c: numbers in [-1,1) and what is made of them, all from one fixed seed. */
double noise(World *w);
int below(World *w, int n);
void shuffle(World *w, int *x, int n);
void orthonormal(World *w, double *q, int rows, int n); /* (rows,n), rows <= n */

/* vocabulary.c */
extern const char SPACE[];                                  /* the piece that stands for " " */
int piece_id(const World *w, const char *piece);            /* CHECKs that it is there */
int special(const World *w, const char *name);              /* the same: readability */
int text_pieces(const World *w, int *id, const char *text); /* returns how many; all words known */
void vocabulary_begin(World *w);                            /* what no text is needed for */
enum WordKind { WORDS_SPACED, WORDS_OTHER };                /* with a space in front, without */
void vocabulary_add(World *w, enum WordKind kind, const char *text); /* its words of this kind */
bool vocabulary_write(const World *w, const char *folder, Err *err);

/* texts.c */
enum { COMPLIANCE, REFUSAL, CHAINS };
/* The words of an answer, returning how many. The noun in it is one with the class TOPIC. */
int chain_pieces(const World *w, int chain, int id[MAX_DOC]);
void texts_words(World *w); /* every text's words into the vocabulary, spaced ones first */
void texts_classes(World *w);
void texts_build(World *w);
bool texts_write(const World *w, const char *folder, Err *err);

/* geometry.c */
void geometry_build(World *w);

/* model.c */
bool model_write(World *w, const char *folder, Err *err);

/* saes.c */
bool saes_write(World *w, const char *folder, Err *err); /* and truth.json */

#endif
