/* causal.c - rows of what a model says while its stream, or its adapter, is changed. */
#include "host/stage/causal.h"

#include <math.h>
#include <string.h>

#include "data/base/mem.h"
#include "data/base/rng.h"
#include "data/base/statistics.h"
#include "host/cli/json_lines.h"
#include "host/stage/bad_tensor.h"
#include "host/stage/cards.h"
#include "host/stage/energy.h"
#include "host/stage/nll.h"
#include "host/stage/refusal.h"
#include "model/adapter_delta.h"
#include "model/stream_run.h"

/* One row: what the model says. */
typedef struct CausalRow {
    double *score;        /* (prompts) */
    double *nll, *labels; /* (documents) of rank 0 */
    double change;        /* of the stream; NAN: none */
} CausalRow;

typedef struct Causal {
    Runtime *r;
    const CausalOf *of;
    const Settings *s;
    Ids token;
    const Doc **prompt; /* (n) */
    size_t n;
    int longest;
    int layers, D, *layer;
    double *mean[LOOKED_COUNT]; /* (layers,D) of documents' mean streams; NULL: no such documents */
    CausalRow plain;
    json_t *rows;
} Causal;

/* --------------------------------------------------------------------------------- a row -- */

static void row_init(CausalRow *row, const Causal *c) {
    *row = (CausalRow){.change = NAN};
    row->score = mem_array(c->n, sizeof *row->score);
    row->nll = mem_array(c->of->text->n, sizeof *row->nll);
    row->labels = mem_array(c->of->text->n, sizeof *row->labels);
}

static void row_free(CausalRow *row) {
    free(row->score), free(row->nll), free(row->labels);
}

typedef struct Sink {
    CausalRow *row;
    size_t at;
} Sink;

static bool take_nll(void *context, size_t doc, const float *nll, const LogitFacts *facts, int n,
                     Err *err) {
    (void)doc, (void)facts, (void)err;
    Sink *s = context;
    for (int i = 0; i < n; i++) s->row->nll[s->at] += nll[i];
    s->row->labels[s->at++] = n;
    return true;
}

static int pack_rows(const Causal *c) {
    int pack = settings_pack_tokens(c->s);
    return c->longest > pack ? c->longest : pack;
}

/* Of all ranks' rows. */
static double all_change(const StreamEdit *edit, Comm *comm) {
    EditChange *each = mem_array((size_t)comm_size(comm), sizeof *each), sum = {0};
    each[comm_rank(comm)] = stream_edit_change(edit);
    comm_share(comm, "changes of the stream", each, sizeof *each);
    for (int r = 0; r < comm_size(comm); r++) sum.sum += each[r].sum, sum.rows += each[r].rows;
    free(each);
    return edit_change_ratio(&sum);
}

/* edit NULL: the model as it is. */
static bool measure(CausalRow *row, const Causal *c, StreamEdit *edit, Err *err) {
    const RefusalOf refusal = {
        .doc = c->prompt, .n = c->n, .token = &c->token, .edit = edit, .pack_tokens = pack_rows(c)};
    const NllHow how = {.pack_tokens = settings_pack_tokens(c->s), .edit = edit};
    Sink sink = {row, 0};
    bool ok = refusal_scores(row->score, &c->r->model, &refusal, err) &&
              nll_docs(&c->r->model, c->of->text, &how, take_nll, &sink, err);
    if (ok && edit) row->change = all_change(edit, c->r->ex.comm);
    return ok;
}

/* ---------------------------------------------------------------------------- what is said -- */

static json_t *interval(const char *name, Interval i) {
    return json_pack("{s:o, s:o, s:o}", name, json_number(i.mean), "low", json_number(i.low),
                     "high", json_number(i.high));
}

/* exp of a ratio of sums over documents, with the standard error of such a ratio. */
static Interval perplexity(const CausalRow *row, size_t n) {
    double nll = 0, labels = 0, squares = 0;
    for (size_t i = 0; i < n; i++) nll += row->nll[i], labels += row->labels[i];
    double mean = nll / labels;
    for (size_t i = 0; i < n; i++) squares += pow(row->nll[i] - mean * row->labels[i], 2);
    double half = n > 1 ? sqrt(squares * (double)n / (double)(n - 1)) / labels *
                              statistics_student_bound((double)(n - 1))
                        : NAN;
    return (Interval){exp(mean), exp(mean - half), exp(mean + half)};
}

static void put_row(Causal *c, const char *name, int draws, const CausalRow *row) {
    double *change = mem_array(c->n, sizeof *change);
    size_t above = 0;
    for (size_t i = 0; i < c->n; i++) {
        change[i] = row->score[i] - c->plain.score[i];
        above += row->score[i] > 0;
    }
    bool first = row == &c->plain;
    json_array_append_new(
        c->rows, json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "row", name, "draws", draws,
                           "refusal", interval("mean", statistics_mean(row->score, c->n)), "change",
                           first ? json_null() : interval("mean", statistics_mean(change, c->n)),
                           "rate", interval("share", statistics_share(above, c->n)), "perplexity",
                           interval("value", perplexity(row, c->of->text->n)), "stream",
                           json_number(row->change)));
    free(change);
}

/* ---------------------------------------------------------------------------------- means -- */

/* The mean over a corpus' documents of their mean streams; all ranks make the same. */
static bool mean_stream(Causal *c, enum LookedCorpus corpus, Err *err) {
    const Looked *l = c->of->docs;
    size_t width = (size_t)c->layers * (size_t)c->D, n = 0;
    double *v = mem_array(l->docs[corpus] * width, sizeof *v);
    int rows = l->longest > pack_rows(c) ? l->longest : pack_rows(c);
    StreamRun *run = stream_run_open(&c->r->model, c->layer, c->layers, rows);
    for (size_t i = 0; i < l->n; i++) {
        const LookedDoc *d = &l->doc[i];
        if (d->corpus != corpus || d->ncounted == 0) continue;
        const PairItem item = {.token = {d->token}, .counted = {d->counted}, .n = {d->n}};
        stream_run_add(run, &item, (double *const[2]){v + n++ * width, NULL});
        comm_beat(c->r->ex.comm);
    }
    stream_run_finish(run);
    bool ok = !stream_run_bad(run) ||
              bad_tensor_find(&c->r->model, stream_run_acts(run), "the stream is not finite", err);
    stream_run_close(run);
    if (n > 0) {
        c->mean[corpus] = mem_array(width, sizeof *c->mean[corpus]);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < width; k++) c->mean[corpus][k] += v[i * width + k] / (double)n;
    }
    free(v);
    return ok;
}

/* Of a basis that was filled up with random columns those that were found. */
static int columns_of(const Basis *b) {
    return b->m > 0 && b->m < b->R ? b->m : b->R;
}

/* U (D,columns) of the first of a basis' columns; malloc. */
static double *first_columns(const Basis *b, int columns) {
    double *U = mem_array((size_t)b->D * (size_t)columns, sizeof *U);
    for (int d = 0; d < b->D; d++)
        memcpy(U + (size_t)d * (size_t)columns, b->U + (size_t)d * (size_t)b->R,
               (size_t)columns * sizeof *U);
    return U;
}

/* to (D) = U U^T x of the first columns. */
static void project(double *to, const Basis *b, int columns, const double *x) {
    memset(to, 0, (size_t)b->D * sizeof *to);
    for (int j = 0; j < columns; j++) {
        double dot = 0;
        for (int d = 0; d < b->D; d++) dot += b->U[(size_t)d * (size_t)b->R + (size_t)j] * x[d];
        for (int d = 0; d < b->D; d++) to[d] += b->U[(size_t)d * (size_t)b->R + (size_t)j] * dot;
    }
}

/* -------------------------------------------------------------------------- the stream's rows --
 */

enum Change { ABLATE, ADD };

/* Bases of other directions than the subspace's own: of `draw`, from the seed. */
static Basis *random_bases(const Causal *c, int draw) {
    enum { CAUSAL = 0x63617573 };
    uint64_t seed = rng_u64((uint64_t)c->s->run.seed, CAUSAL, (uint64_t)draw);
    Basis *b = mem_array((size_t)c->layers, sizeof *b);
    for (int i = 0; i < c->layers; i++)
        basis_random(&b[i], &c->r->ex, c->layer[i], c->D, columns_of(&c->of->subspace->basis[i]),
                     seed);
    return b;
}

/* What is added at layer number i; random directions are as long as the real one. */
static void added(double *v, const Causal *c, int i, enum Change change, const Basis *random) {
    size_t at = (size_t)i * (size_t)c->D;
    const Basis *own = &c->of->subspace->basis[i];
    if (change == ABLATE) {
        project(v, random ? random : own, columns_of(own), c->mean[LOOKED_BENIGN] + at);
        return;
    }
    double *apart = mem_array((size_t)c->D, sizeof *apart), size = 0;
    for (int d = 0; d < c->D; d++)
        apart[d] =
            c->mean[LOOKED_ALIGNED][at + (size_t)d] - c->mean[LOOKED_UNALIGNED][at + (size_t)d];
    project(v, own, columns_of(own), apart);
    for (int d = 0; d < c->D; d++) size += v[d] * v[d];
    for (int d = 0; random && d < c->D; d++)
        v[d] = sqrt(size) * random->U[(size_t)d * (size_t)random->R];
    free(apart);
}

/* random NULL: along the subspace itself. */
static bool measure_change(CausalRow *row, const Causal *c, enum Change change, const Basis *random,
                           Err *err) {
    size_t D = (size_t)c->D;
    EditOf *of = mem_array((size_t)c->layers, sizeof *of);
    double *v = mem_array((size_t)c->layers * D, sizeof *v);
    double **U = mem_array((size_t)c->layers, sizeof *U);
    for (int i = 0; i < c->layers; i++) {
        const Basis *own = &c->of->subspace->basis[i];
        int columns = columns_of(own);
        added(v + (size_t)i * D, c, i, change, random ? &random[i] : NULL);
        of[i] = (EditOf){.layer = c->layer[i], .v = v + (size_t)i * D};
        if (change == ADD) continue;
        of[i].U = U[i] = first_columns(random ? &random[i] : own, columns);
        of[i].M = columns;
    }
    StreamEdit *edit = stream_edit_open(&c->r->model, of, c->layers, pack_rows(c));
    bool ok = measure(row, c, edit, err);
    stream_edit_close(edit);
    for (int i = 0; i < c->layers; i++) free(U[i]);
    free(of), free(v), free(U);
    return ok;
}

static bool add_change(Causal *c, const char *name, enum Change change, Err *err) {
    CausalRow row;
    row_init(&row, c);
    bool ok = measure_change(&row, c, change, NULL, err);
    if (ok) put_row(c, name, 1, &row);
    row_free(&row);
    return ok;
}

static void add_share(double *to, const double *x, size_t n, int draws) {
    for (size_t i = 0; i < n; i++) to[i] += x[i] / draws;
}

/* The mean over the draws, prompt by prompt and document by document. */
static bool add_random(Causal *c, const char *name, enum Change change, Err *err) {
    int draws = c->s->explain.draws;
    CausalRow sum;
    bool ok = true;
    row_init(&sum, c);
    sum.change = 0;
    for (int k = 0; k < draws && ok; k++) {
        CausalRow row;
        Basis *random = random_bases(c, k);
        row_init(&row, c);
        ok = measure_change(&row, c, change, random, err);
        add_share(sum.score, row.score, c->n, draws);
        add_share(sum.nll, row.nll, c->of->text->n, draws);
        add_share(sum.labels, row.labels, c->of->text->n, draws);
        sum.change += row.change / draws;
        for (int i = 0; i < c->layers; i++) basis_free(&random[i]);
        free(random);
        row_free(&row);
    }
    if (ok) put_row(c, name, draws, &sum);
    row_free(&sum);
    return ok;
}

/* --------------------------------------------------------------------------- the adapter's rows --
 */

/* The whole adapter, as it was saved. */
static bool wear(Causal *c, Err *err) {
    runtime_drop_adapter(c->r);
    return runtime_adapter(c->r, c->of->adapter, false, err);
}

static bool add_part(Causal *c, const char *name, enum DeltaPart part, Err *err) {
    CausalRow row;
    row_init(&row, c);
    bool ok = wear(c, err);
    if (ok) adapter_delta_keep(&c->r->lora, c->of->subspace, part);
    ok = ok && measure(&row, c, NULL, err);
    if (ok) put_row(c, name, 1, &row);
    row_free(&row);
    return ok;
}

static bool add_parts(Causal *c, Err *err) {
    return add_part(c, "dW inside U", DELTA_INSIDE, err) &&
           add_part(c, "dW outside U", DELTA_OUTSIDE, err) && wear(c, err);
}

/* ------------------------------------------------------------------------------ all of it -- */

static void choose_prompts(Causal *c) {
    const PromptFile *f = c->of->harmful;
    size_t most = (size_t)c->s->explain.documents;
    c->n = f->n < most ? f->n : most;
    c->prompt = mem_array(c->n, sizeof *c->prompt);
    for (size_t i = 0; i < c->n; i++) {
        c->prompt[i] = &f->doc[f->index[looked_spread(i, c->n, f->n)]];
        if (c->prompt[i]->n > c->longest) c->longest = c->prompt[i]->n;
    }
}

static bool open_all(Causal *c, Err *err) {
    const Subspace *s = c->of->subspace;
    c->rows = json_array();
    c->D = c->r->model.c.D, c->layers = s->n;
    c->layer = mem_array((size_t)s->n, sizeof *c->layer);
    for (int i = 0; i < s->n; i++) c->layer[i] = s->basis[i].layer;
    choose_prompts(c);
    row_init(&c->plain, c);
    if (!energy_check(s, &c->r->model.c, err) ||
        !refusal_tokens(&c->token, c->r->tokenizer, c->s->explain.refusals, err))
        return false;
    const int asked[] = {LOOKED_BENIGN, LOOKED_ALIGNED, LOOKED_UNALIGNED};
    for (int i = 0; i < (c->of->base ? 3 : 1); i++)
        if (!mean_stream(c, (enum LookedCorpus)asked[i], err)) return false;
    return c->mean[LOOKED_BENIGN] ||
           err_set(err, EXIT_USAGE,
                   "--benign: harmless prompts are needed, for what their tokens "
                   "have along the subspace");
}

static bool make_rows(Causal *c, Err *err) {
    bool steers = c->mean[LOOKED_ALIGNED] && c->mean[LOOKED_UNALIGNED];
    if (!measure(&c->plain, c, NULL, err)) return false;
    put_row(c, "as it is", 1, &c->plain);
    return add_change(c, "U ablated", ABLATE, err) &&
           add_random(c, "random ablated", ABLATE, err) &&
           (!steers ||
            (add_change(c, "U added", ADD, err) && add_random(c, "random added", ADD, err))) &&
           (!c->of->adapter || add_parts(c, err));
}

static json_t *describe(Causal *c) {
    json_t *layers = json_array(), *columns = json_array(), *tokens = json_array();
    for (int i = 0; i < c->layers; i++) {
        json_array_append_new(layers, json_integer(c->layer[i]));
        json_array_append_new(columns, json_integer(columns_of(&c->of->subspace->basis[i])));
    }
    for (size_t i = 0; i < c->token.n; i++)
        json_array_append_new(tokens, json_pack("{s:i, s:o}", "id", c->token.id[i], "text",
                                                cards_token(c->r->tokenizer, c->token.id[i])));
    json_t *adapter = c->of->adapter ? json_string(c->of->adapter) : NULL;
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:I, s:I, s:i, s:o, s:O}", "sails", "causal 1",
                     "name", c->of->name, "adapter", adapter ? adapter : json_null(), "layers",
                     layers, "columns", columns, "prompts", (json_int_t)c->n, "benign_documents",
                     (json_int_t)c->of->text->n, "draws", c->s->explain.draws, "refusal_tokens",
                     tokens, "rows", c->rows);
}

bool causal_make(json_t **causal, Runtime *r, const CausalOf *of, const Settings *s, Err *err) {
    Causal c = {.r = r, .of = of, .s = s};
    *causal = NULL;
    bool ok = open_all(&c, err) && make_rows(&c, err);
    if (ok && comm_root(r->ex.comm)) *causal = describe(&c);
    json_decref(c.rows);
    row_free(&c.plain);
    ids_free(&c.token);
    for (int i = 0; i < LOOKED_COUNT; i++) free(c.mean[i]);
    free(c.prompt), free(c.layer);
    return ok;
}

size_t *causal_text(Examples *to, const Doc *doc, const size_t *from, size_t n, const Settings *s) {
    size_t most = (size_t)s->explain.documents, m = n < most ? n : most;
    size_t *index = mem_array(m, sizeof *index);
    for (size_t i = 0; i < m; i++) {
        size_t at = looked_spread(i, m, n);
        index[i] = from ? from[at] : at;
    }
    *to = (Examples){.doc = doc, .index = index, .n = m};
    return index;
}

static double number(const json_t *row, const char *key, const char *name) {
    const json_t *value = json_object_get(json_object_get(row, key), name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

void causal_print(FILE *f, const json_t *causal) {
    size_t i;
    const json_t *row;
    fprintf(f, "%s\n  %-16s %22s %9s %9s %11s %8s\n",
            json_string_value(json_object_get(causal, "name")), "", "refusal score", "change",
            "above 0 %", "perplexity", "stream");
    json_array_foreach (json_object_get(causal, "rows"), i, row) {
        const json_t *stream = json_object_get(row, "stream");
        fprintf(f, "  %-16s %7.2f (%6.2f..%6.2f)", json_string_value(json_object_get(row, "row")),
                number(row, "refusal", "mean"), number(row, "refusal", "low"),
                number(row, "refusal", "high"));
        if (i)
            fprintf(f, " %+9.2f", number(row, "change", "mean"));
        else
            fprintf(f, " %9s", "-");
        fprintf(f, " %9.1f %11.4g", 100 * number(row, "rate", "share"),
                number(row, "perplexity", "value"));
        if (json_is_number(stream))
            fprintf(f, " %8.3f\n", json_number_value(stream));
        else
            fprintf(f, " %8s\n", "-");
    }
}
