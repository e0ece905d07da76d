/* cards.c - the features' cards, put together. */
#include "host/stage/cards.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"
#include "host/cli/json_lines.h"
#include "host/stage/agree.h"
#include "host/stage/firing_facts.h"
#include "host/stage/labels.h"
#include "model/logit_lens.h"

enum {
    RESAMPLES = 200,
    LOGITS = 10,
    NEIGHBOURS = 5,
    TOP = 8,
    EACH = 2,
    LOOK_ALIKES = 4,
    CATEGORIES = 24
};

/* One scored layer's chosen features and what is looked up for all of them at once. */
typedef struct CardLayer {
    const ScoreLayer *scored;
    const Sae *sae;
    FeatureStat *stat; /* (k) */
    int32_t *feature;  /* (k) */
    int k, column;     /* its first among the firings' */
    Labels labels;
    LogitLens lens;
    int32_t *near; /* (k,NEIGHBOURS) */
    double *cosine;
} CardLayer;

typedef struct Cards {
    Runtime *r;
    const Settings *s;
    const Looked *docs;
    Firings firings;
    CardLayer *layer; /* (n) */
    int n;
} Cards;

/* --------------------------------------------------------------------------------- pieces -- */

json_t *cards_token(const Tokenizer *t, int32_t id) {
    size_t n;
    char number[24];
    char *text = tokenizer_decode(t, &id, 1, false, &n);
    const char *piece = tokenizer_piece(t, id, NULL);
    json_t *to = NULL;
    if (n > 0 && strlen(text) == n && !strstr(text, "\xef\xbf\xbd")) to = json_stringn(text, n);
    if (!to && piece) to = json_string(piece);
    snprintf(number, sizeof number, "<%d>", (int)id);
    if (!to) to = json_string(number);
    free(text);
    return to;
}

/* As many digits as anybody reads. */
static json_t *shown(double x) {
    char text[32];
    if (!isfinite(x)) return json_null();
    snprintf(text, sizeof text, "%.5g", x);
    return json_real(strtod(text, NULL));
}

static json_t *interval(const Interval *i) {
    return json_pack("{s:o, s:o, s:o}", "value", shown(i->mean), "low", shown(i->low), "high",
                     shown(i->high));
}

/* A number of each corpus: those that were scored as the scores have it. */
static json_t *of_corpora(const double scored[2], const double looked[LOOKED_COUNT]) {
    json_t *to = json_object();
    for (int c = 0; c < LOOKED_COUNT; c++)
        json_object_set_new(to, looked_name[c],
                            shown(c == LOOKED_ALIGNED     ? scored[0]
                                  : c == LOOKED_UNALIGNED ? scored[1]
                                                          : looked[c]));
    return to;
}

static json_t *label_of(const CardLayer *l, int feature) {
    const char *text = labels_find(&l->labels, l->scored->layer, feature);
    json_t *label = text ? json_string(text) : NULL;
    return label ? label : json_null();
}

static json_t *url_of(const CardLayer *l, int feature) {
    if (!*l->scored->id) return json_null();
    return json_sprintf("https://www.neuronpedia.org/%s/%d", l->scored->id, feature);
}

static json_t *histogram(const FiringFacts *f) {
    json_t *edges = json_array(), *count = json_array();
    for (int b = 0; f->fires && b <= FIRING_BINS; b++)
        json_array_append_new(edges, shown(f->edge[b]));
    for (int b = 0; f->fires && b < FIRING_BINS; b++)
        json_array_append_new(count, json_integer((json_int_t)f->count[b]));
    return json_pack("{s:o, s:o}", "edges", edges, "count", count);
}

static json_t *token_of(const Tokenizer *t, const FiringFacts *f) {
    if (f->token < 0) return json_null();
    return json_pack("{s:i, s:o, s:o, s:I, s:I}", "id", f->token, "text", cards_token(t, f->token),
                     "pmi", shown(f->pmi), "fires", (json_int_t)f->token_fires, "of",
                     (json_int_t)f->token_of);
}

/* Of all harmful prompts, or of a category of them. */
static json_t *auc_of(const Cards *c, int column, const char *category) {
    size_t harmful;
    Interval auc = firing_auc(&harmful, &c->firings, column, category);
    json_t *to = interval(&auc);
    json_object_set_new(to, "harmful", json_integer((json_int_t)harmful));
    json_object_set_new(to, "benign", json_integer((json_int_t)c->docs->docs[LOOKED_BENIGN]));
    return to;
}

/* Categories in the order in which the prompts have them, up to CATEGORIES. */
static json_t *areas(const Cards *c, int column) {
    const Looked *l = c->docs;
    json_t *categories = json_object();
    if (l->docs[LOOKED_HARMFUL] == 0 || l->docs[LOOKED_BENIGN] == 0) {
        json_decref(categories);
        return json_null();
    }
    for (size_t i = 0; i < l->n && json_object_size(categories) < CATEGORIES; i++) {
        const char *name = l->doc[i].category;
        if (l->doc[i].corpus == LOOKED_HARMFUL && *name && !json_object_get(categories, name))
            json_object_set_new(categories, name, auc_of(c, column, name));
    }
    json_t *to = auc_of(c, column, NULL);
    json_object_set_new(to, "categories", categories);
    return to;
}

static json_t *logit_list(const Tokenizer *t, const int32_t *id, const float *logit) {
    json_t *to = json_array();
    for (int i = 0; i < LOGITS; i++)
        json_array_append_new(to, json_pack("{s:i, s:o, s:o}", "id", id[i], "text",
                                            cards_token(t, id[i]), "logit", shown(logit[i])));
    return to;
}

static json_t *neighbours(const CardLayer *l, int j) {
    json_t *to = json_array();
    for (int i = j * NEIGHBOURS; i < (j + 1) * NEIGHBOURS && l->near[i] >= 0; i++)
        json_array_append_new(to, json_pack("{s:i, s:o, s:o}", "feature", l->near[i], "cosine",
                                            shown(l->cosine[i]), "label", label_of(l, l->near[i])));
    return to;
}

/* ------------------------------------------------------------------------------- contexts -- */

static json_t *context(const Cards *c, int column, const FiringPlace *p, const char *kind,
                       int stratum) {
    const LookedDoc *d = p->doc;
    int window = c->s->explain.window, first = p->t - window > 0 ? p->t - window : 0;
    json_t *tokens = json_array(), *acts = json_array(), *quantile = json_null();
    for (int t = first; t < d->n && t <= p->t + window; t++) {
        size_t at = (d->at + (size_t)t) * (size_t)c->firings.K + (size_t)column;
        json_array_append_new(tokens, cards_token(c->r->tokenizer, d->token[t]));
        json_array_append_new(acts, shown(c->firings.act[at]));
    }
    if (stratum >= 0)
        quantile = json_pack("[f, f]", (double)stratum / FIRING_STRATA,
                             (double)(stratum + 1) / FIRING_STRATA);
    return json_pack("{s:s, s:o, s:s, s:I, s:i, s:o, s:i, s:o, s:o}", "kind", kind, "quantile",
                     quantile, "corpus", looked_name[d->corpus], "document", (json_int_t)d->number,
                     "position", p->t, "activation", shown(p->a), "first", first, "tokens", tokens,
                     "activations", acts);
}

static json_t *contexts(const Cards *c, int column) {
    enum { MOST = FIRING_STRATA * EACH > TOP ? FIRING_STRATA * EACH : TOP };
    FiringPlace place[MOST];
    int stratum[MOST], window = c->s->explain.window;
    json_t *to = json_array();
    int n = firing_top(place, &c->firings, column, false, TOP, window);
    for (int i = 0; i < n; i++) json_array_append_new(to, context(c, column, &place[i], "top", -1));
    n = firing_quantiles(place, stratum, &c->firings, column, EACH, window);
    for (int i = 0; i < n; i++)
        json_array_append_new(to, context(c, column, &place[i], "quantile", stratum[i]));
    n = firing_top(place, &c->firings, column, true, LOOK_ALIKES, window);
    for (int i = 0; i < n; i++)
        json_array_append_new(to, context(c, column, &place[i], "benign", -1));
    return to;
}

/* ---------------------------------------------------------------------------------- a card -- */

static json_t *card(const Cards *c, const CardLayer *l, int j) {
    const FeatureStat *s = &l->stat[j];
    const Tokenizer *t = c->r->tokenizer;
    int column = l->column + j;
    FiringFacts f;
    firing_facts(&f, &c->firings, column);
    json_t *delta =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "value", shown(s->diff), "low", shown(s->low),
                  "high", shown(s->high), "se", shown(s->se), "t", shown(s->t));
    json_t *to = json_pack("{s:i, s:o, s:o, s:o}", "feature", s->feature, "score", shown(s->score),
                           "delta", delta, "stability", shown(s->stability));
    json_object_set_new(to, "mean", of_corpora(s->mean, f.mean));
    json_object_set_new(to, "rate", of_corpora(s->rate, f.rate));
    json_object_set_new(to, "max", of_corpora(s->max, f.max));
    json_object_set_new(to, "density", shown(f.density));
    json_object_set_new(to, "histogram", histogram(&f));
    json_object_set_new(to, "label", label_of(l, s->feature));
    json_object_set_new(to, "url", url_of(l, s->feature));
    json_object_set_new(to, "token_detector", json_boolean(f.token_share > TOKEN_DETECTOR));
    json_object_set_new(to, "token_share", shown(f.token_share));
    json_object_set_new(to, "token", token_of(t, &f));
    json_object_set_new(to, "auc", areas(c, column));
    size_t at = (size_t)j * LOGITS;
    json_object_set_new(
        to, "logits",
        json_pack("{s:o, s:o}", "top", logit_list(t, l->lens.top + at, l->lens.top_logit + at),
                  "bottom", logit_list(t, l->lens.bottom + at, l->lens.bottom_logit + at)));
    json_object_set_new(to, "neighbours", neighbours(l, j));
    json_object_set_new(to, "contexts", contexts(c, column));
    return to;
}

static json_t *layer_cards(const Cards *c, const CardLayer *l) {
    const ScoreLayer *s = l->scored;
    json_t *features = json_array(), *path = json_string(s->sae);
    for (int j = 0; j < l->k; j++) json_array_append_new(features, card(c, l, j));
    return json_pack("{s:i, s:i, s:o, s:s, s:o, s:o}", "layer", s->layer, "S", s->S, "sae",
                     path ? path : json_null(), "sae_sha256", s->sha256, "neuronpedia",
                     *s->id ? json_string(s->id) : json_null(), "features", features);
}

static json_t *corpora(const Looked *docs) {
    json_t *to = json_object();
    for (int c = 0; c < LOOKED_COUNT; c++)
        json_object_set_new(to, looked_name[c],
                            docs->docs[c]
                                ? json_pack("{s:I, s:I}", "documents", (json_int_t)docs->docs[c],
                                            "tokens", (json_int_t)docs->tokens[c])
                                : json_null());
    return to;
}

static json_t *all_cards(const Cards *c, const Scores *scores) {
    static const char *const pool[] = {SCORE_POOLS(CHOICE_TEXT)}, *const kind[] = {
                                                                      SCORE_KINDS(CHOICE_TEXT)};
    json_t *layers = json_array();
    for (int i = 0; i < c->n; i++) json_array_append_new(layers, layer_cards(c, &c->layer[i]));
    json_t *to = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "sails", "features 1", "model",
                           scores->model, "data", scores->data, "counted", scores->counted, "pool",
                           pool[scores->pool], "by", kind[c->s->subspace.by], "window",
                           c->s->explain.window);
    CHECK(to, "a path that is no UTF-8");
    json_object_set_new(to, "corpora", corpora(c->docs));
    json_object_set_new(to, "layers", layers);
    return to;
}

/* ------------------------------------------------------------------------------ looking up -- */

/* The features, on all ranks; what else is asked of them, on rank 0. */
static bool open_layer(Cards *c, CardLayer *l, const Scores *scores, int i, Err *err) {
    const Settings *s = c->s;
    Exec *ex = &c->r->ex;
    int top = s->subspace.top_k;
    l->stat = mem_array((size_t)top, sizeof *l->stat);
    l->feature = mem_array((size_t)top, sizeof *l->feature);
    l->k = score_top(ex, l->stat, scores, i, (enum ScoreKind)s->subspace.by, top,
                     (uint64_t)s->run.seed, RESAMPLES);
    for (int j = 0; j < l->k; j++) l->feature[j] = l->stat[j].feature;
    return l->k > 0 ||
           err_set(err, EXIT_INPUT, "layer %d: no feature fired; score more text or another layer",
                   l->scored->layer);
}

static bool look_up(Cards *c, CardLayer *l, Err *err) {
    size_t k = (size_t)l->k, D = (size_t)l->sae->enc.D;
    double *rows = mem_array(k * D, sizeof *rows);
    l->near = mem_array(k * NEIGHBOURS, sizeof *l->near);
    l->cosine = mem_array(k * NEIGHBOURS, sizeof *l->cosine);
    bool ok =
        labels_read(&l->labels, c->s->explain.labels, l->scored->layer, err) &&
        sae_decoder_rows(l->sae, rows, l->feature, l->k, err) &&
        sae_decoder_nearest(l->sae, l->near, l->cosine, rows, l->feature, l->k, NEIGHBOURS, err);
    if (ok) logit_lens(&l->lens, &c->r->model, rows, l->k, LOGITS);
    free(rows);
    return ok;
}

static const Sae *sae_of(const SaeSet *saes, int layer) {
    for (int i = 0; i < saes->n; i++)
        if (saes->sae[i].layer == layer) return &saes->sae[i];
    return NULL;
}

static bool open_layers(Cards *c, const Scores *scores, const SaeSet *saes, Err *err) {
    c->layer = mem_array((size_t)scores->n, sizeof *c->layer);
    int column = 0;
    for (int i = 0; i < scores->n; i++) {
        CardLayer *l = &c->layer[c->n++];
        *l = (CardLayer){.scored = &scores->layer[i], .column = column};
        l->sae = sae_of(saes, l->scored->layer);
        if (!l->sae)
            return err_set(err, EXIT_USAGE,
                           "layer %d was scored; name it in --layers, or score "
                           "the others alone",
                           l->scored->layer);
        if (l->sae->enc.S != l->scored->S)
            return err_set(err, EXIT_INPUT,
                           "%s: %d features, but %d were scored; name the SAE that "
                           "was",
                           l->sae->file, l->sae->enc.S, l->scored->S);
        if (!open_layer(c, l, scores, i, err)) return false;
        column += l->k;
    }
    return true;
}

static bool find_firings(Cards *c, Err *err) {
    FiringLayer *of = mem_array((size_t)c->n, sizeof *of);
    for (int i = 0; i < c->n; i++)
        of[i] = (FiringLayer){c->layer[i].sae, c->layer[i].feature, c->layer[i].k};
    bool ok = firings_run(&c->firings, c->r, c->docs, of, c->n, settings_pack_tokens(c->s),
                          c->s->run.json, err);
    free(of);
    return ok;
}

static void cards_free(Cards *c) {
    for (int i = 0; i < c->n; i++) {
        CardLayer *l = &c->layer[i];
        labels_free(&l->labels);
        logit_lens_free(&l->lens);
        free(l->stat), free(l->feature), free(l->near), free(l->cosine);
    }
    firings_free(&c->firings);
    free(c->layer);
}

bool cards_make(json_t **cards, Runtime *r, const Scores *scores, const SaeSet *saes,
                const Looked *docs, const Settings *s, Err *err) {
    Cards c = {.r = r, .s = s, .docs = docs};
    bool root = comm_root(r->ex.comm);
    *cards = NULL;
    bool ok = open_layers(&c, scores, saes, err);
    for (int i = 0; i < c.n && ok; i++)
        ok = agree_root(r->ex.comm, !root || look_up(&c, &c.layer[i], err), err);
    ok = ok && find_firings(&c, err);
    if (ok && root) *cards = all_cards(&c, scores);
    cards_free(&c);
    return ok;
}

static double member(const json_t *object, const char *key, const char *name) {
    return json_number_value(json_object_get(json_object_get(object, key), name));
}

static void print_card(FILE *f, const json_t *card) {
    const json_t *token = json_object_get(card, "token");
    const char *label = json_string_value(json_object_get(card, "label"));
    char *text = json_dumps(json_object_get(token, "text"), JSON_ENCODE_ANY);
    fprintf(f, "  %8lld %+10.4g (%9.3g ..%9.3g) %9.2f %8.2f%% %7.2f%%  %s%s%s%s\n",
            (long long)json_integer_value(json_object_get(card, "feature")),
            member(card, "delta", "value"), member(card, "delta", "low"),
            member(card, "delta", "high"), json_number_value(json_object_get(card, "stability")),
            100 * member(card, "rate", "aligned"), 100 * member(card, "rate", "unaligned"),
            text ? text : "-",
            json_is_true(json_object_get(card, "token_detector")) ? " alone" : "",
            label ? "  " : "", label ? label : "");
    free(text);
}

void cards_print(FILE *f, const json_t *cards) {
    size_t i, j;
    const json_t *layer, *card;
    json_array_foreach (json_object_get(cards, "layers"), i, layer) {
        fprintf(f, "layer %lld\n  %8s %10s %22s %9s %9s %8s  %s\n",
                (long long)json_integer_value(json_object_get(layer, "layer")), "feature", "delta",
                "95 %", "stability", "aligned", "unalig.", "token");
        json_array_foreach (json_object_get(layer, "features"), j, card) print_card(f, card);
    }
}
