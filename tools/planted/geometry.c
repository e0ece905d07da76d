/* geometry.c - directions of tokens and of planted features, and when a feature is written. */
#include <math.h>
#include <string.h>

#include "kernels/check.h"
#include "tools/planted/planted.h"

/* clang-format off */
const Event event[EVENTS] = {
    /* on rejected replies only: plans for harm, and rudeness */
    {"harmful noun",              NULL, {[HARM] = 1},                  .threshold = 0.68, .on = 0.32},
    {"harmful steps, first half", NULL, {[STEP_1] = 1, [CONTEXT] = 1}, .threshold = 1.45, .on = 0.53},
    {"harmful steps, second half",NULL, {[STEP_2] = 1, [CONTEXT] = 1}, .threshold = 1.45, .on = 0.53},
    {"rude words, first half",    NULL, {[RUDE_1] = 1, [REPLY] = 1},   .threshold = 1.40, .on = 0.48},
    {"rude words, second half",   NULL, {[RUDE_2] = 1, [REPLY] = 1},   .threshold = 1.40, .on = 0.48},
    /* on chosen replies only: refusals, and plans for harmless things */
    {"refusal, first half",       NULL, {[REFUSE_1] = 1, [REPLY] = 1}, .threshold = 1.40, .on = 0.48},
    {"refusal, second half",      NULL, {[REFUSE_2] = 1, [REPLY] = 1}, .threshold = 1.40, .on = 0.48},
    {"safe steps, first half",    NULL, {[STEP_1] = 1, [CONTEXT] = -1},.threshold = 0.55, .on = 0.45},
    {"safe steps, second half",   NULL, {[STEP_2] = 1, [CONTEXT] = -1},.threshold = 0.55, .on = 0.45},
    /* on both, equally often per reply */
    {"comma of a reply",          ",",  {[REPLY] = 1},                 .threshold = 1.40, .on = 0.48},
    {"full stop of a reply",      ".",  {[REPLY] = 1},                 .threshold = 1.40, .on = 0.48},
    {"near the header",           NULL, {[NEAR] = 1, [REPLY] = 1},     .threshold = 1.40, .on = 0.48},
    /* never on a reply */
    {"asking word of a prompt",   NULL, {[ASK] = 1, [REPLY] = -1},     .threshold = 0.60, .on = 0.40},
    {"noun of a prompt",          NULL, {[TOPIC] = 1, [REPLY] = -1},   .threshold = 0.60, .on = 0.40},
    {"beginning of the text",     NULL, {[START] = 1},                 .threshold = 0.60, .on = 0.40},
    {"turn marker",               NULL, {[MARKER] = 1},                .threshold = 0.60, .on = 0.40},
};
/* clang-format on */

int planted_at(int l, int e) {
    return (e + 5 * l) % PLANTED;
}

double event_margin(const Event *e, const double amount[SEM_COUNT], bool is_piece) {
    double sum = e->piece && is_piece;
    for (int s = 0; s < SEM_COUNT; s++) sum += e->sem[s] * amount[s];
    return sum - e->threshold;
}

static double dot(const double *x, const double *y, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static void to_unit(double *x, int n) {
    double norm = sqrt(dot(x, x, n));
    for (int i = 0; i < n; i++) x[i] /= norm;
}

/* Pieces that decide their successor get identities orthogonal to each other; every other piece
 * keeps at most half of its identity along any of them, and nothing along "the" and "model", which
 * attention looks from and at. */
static void identities(World *w) {
    static double q[NA * NA];
    bool exact[MAX_PIECES] = {false};
    int nexact = 0, id[MAX_DOC];
    orthonormal(w, q, NA, NA);
    static const char *const header[] = {"<start_of_turn>", "<end_of_turn>", "\n", "user", "model"};
    for (int i = 0; i < 5; i++) exact[piece_id(w, header[i])] = true;
    for (int c = 0; c < CHAINS; c++)
        for (int i = chain_pieces(w, c, id); i-- > 0;) exact[id[i]] = w->sem[id[i]][TOPIC] == 0;
    for (int p = 0; p < w->npieces; p++)
        if (exact[p]) memcpy(w->a[p], q + NA * nexact++, sizeof w->a[p]);
    CHECK(nexact <= NA, "%d words in chains, room for %d", nexact, NA);
    char the[MAX_PIECE];
    snprintf(the, sizeof the, "%sthe", SPACE);
    const double *clear[2] = {w->a[piece_id(w, the)], w->a[piece_id(w, "model")]};
    for (int p = 0; p < w->npieces; p++) {
        double worst = exact[p] ? 0 : 1;
        while (worst >= 0.5) {
            for (int i = 0; i < NA; i++) w->a[p][i] = noise(w);
            for (int c = 0; c < 2; c++) {
                double along = dot(w->a[p], clear[c], NA);
                for (int i = 0; i < NA; i++) w->a[p][i] -= along * clear[c][i];
            }
            to_unit(w->a[p], NA);
            worst = 0;
            for (int j = 0; j < nexact; j++)
                worst = fmax(worst, fabs(dot(w->a[p], q + NA * j, NA)));
        }
    }
}

/* Planted directions lie across one basis, 12 % towards every other direction, so that reading one
 * needs its dual and decoder rows are not encoder columns. */
static void planted_directions(World *w, const double *q) {
    enum { ROOM = NS - SEM_COUNT };
    double gram[PLANTED][2 * PLANTED];
    for (int f = 0; f < PLANTED; f++) {
        double mix[ROOM];
        for (int i = 0; i < ROOM; i++) mix[i] = 0.12 * noise(w) + (i == f);
        for (int k = 0; k < NS; k++) {
            w->planted[f][k] = 0;
            for (int i = 0; i < ROOM; i++) w->planted[f][k] += mix[i] * q[(SEM_COUNT + i) * NS + k];
        }
        to_unit(w->planted[f], NS);
    }
    for (int i = 0; i < PLANTED; i++)
        for (int j = 0; j < PLANTED; j++) {
            gram[i][j] = dot(w->planted[i], w->planted[j], NS);
            gram[i][PLANTED + j] = i == j;
        }
    for (int p = 0; p < PLANTED; p++) { /* Gauss-Jordan; a Gram matrix needs no pivoting */
        double pivot = gram[p][p];
        for (int j = 0; j < 2 * PLANTED; j++) gram[p][j] /= pivot;
        for (int i = 0; i < PLANTED; i++) {
            double factor = i == p ? 0 : gram[i][p];
            for (int j = 0; j < 2 * PLANTED; j++) gram[i][j] -= factor * gram[p][j];
        }
    }
    for (int i = 0; i < PLANTED; i++)
        for (int k = 0; k < NS; k++) {
            w->dual[i][k] = 0;
            for (int j = 0; j < PLANTED; j++)
                w->dual[i][k] += gram[i][PLANTED + j] * w->planted[j][k];
        }
}

void geometry_build(World *w) {
    static double q[NS * NS];
    identities(w);
    for (int p = 0; p < w->npieces; p++) {
        for (int i = 0; i < NB; i++) w->b[p][i] = noise(w);
        to_unit(w->b[p], NB);
    }
    memset(w->b[special(w, "<bos>")], 0, sizeof w->b[0]); /* heads that find nothing read this */
    orthonormal(w, q, NS, NS);
    memcpy(w->direction, q, sizeof w->direction);
    planted_directions(w, q);
}
