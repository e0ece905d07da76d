/* saes.c - an SAE for each scored layer, in Gemma Scope's form, and the true answers.
 *
 * Beside the planted features each SAE has features that tempt a wrong implementation:
 *   words      fire on one word of the plans, which chosen and rejected replies share
 *   echoes     of planted features, with a threshold above their reach: ReLU would fire
 *   cap        the REPLY flag, with a threshold that it reaches without the soft cap alone
 *   dead       random directions, never above their threshold
 * All read some of the ballast too, which b_enc takes away, and b_dec is no zero: input that is
 * scaled, normalised or centred gives something else. */
#include <math.h>
#include <string.h>

#include <zip.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "kernels/check.h"
#include "tools/planted/planted.h"

enum { WORDS = 20, ECHOES = 6, CORPORA = 2 /* chosen, rejected */ };
enum Kind { KIND_PLANTED, KIND_WORD, KIND_ECHO, KIND_CAP, KIND_DEAD };
static const char *const kind_name[] = {"planted", "word", "echo", "cap", "dead"};

typedef struct Feature {
    enum Kind kind;
    int number;             /* of the event or the piece */
    double enc[D], dec[D];  /* encoder column, decoder row */
    double bias, threshold; /* bias without what takes the ballast away */
    double gain;            /* of the activation, on top of all that */
} Feature;

/* What a feature must do on the replies of a corpus. */
typedef struct Truth {
    long fires[CORPORA];
    double sum[CORPORA];
} Truth;

/* ---------------------------------------------------------------------------- features -- */

static void random_row(World *w, double row[D]) {
    double norm = 0;
    for (int i = 0; i < D; i++) row[i] = noise(w);
    for (int i = 0; i < D; i++) norm += row[i] * row[i];
    for (int i = 0; i < D; i++) row[i] /= sqrt(norm);
}

static void blur(World *w, double dec[D]) {
    double e[D], dot = 0, norm = 0;
    if (w->noise == 0) return;
    random_row(w, e);
    for (int i = 0; i < D; i++) dot += e[i] * dec[i];
    for (int i = 0; i < D; i++) e[i] -= dot * dec[i];
    for (int i = 0; i < D; i++) norm += e[i] * e[i];
    for (int i = 0; i < D; i++)
        dec[i] = (dec[i] + w->noise * e[i] / sqrt(norm)) / sqrt(1 + w->noise * w->noise);
}

static Feature planted_feature(const World *w, int l, int e) {
    Feature f = {KIND_PLANTED, e, {0}, {0}, -0.3, 1.0, 1};
    int direction = planted_at(l, e);
    for (int i = 0; i < NS; i++) {
        f.enc[AT_S + i] = w->dual[direction][i];
        f.dec[AT_S + i] = w->planted[direction][i];
    }
    return f;
}

static Feature make_feature(World *w, int l, int i) {
    static const char *const word[WORDS] = {
        ",",    "here", "is",   "a", "plan", "for",    "the",   ":",    "first", "gather",
        "what", "you",  "need", ";", "then", "slowly", "check", "work", "twice", "and"};
    Feature f = {KIND_DEAD, 0, {0}, {0}, 0.5 * noise(w), 8, 1};
    if (i < EVENTS) {
        f = planted_feature(w, l, i);
        blur(w, f.dec);
        return f;
    }
    random_row(w, f.dec);
    if (i < EVENTS + WORDS) {
        const char *name = word[i - EVENTS];
        char piece[MAX_PIECE];
        snprintf(piece, sizeof piece, "%s%s", name[0] >= 'a' ? SPACE : "", name);
        f.kind = KIND_WORD;
        f.number = piece_id(w, piece);
        memcpy(f.enc + AT_A, w->a[f.number], sizeof w->a[0]);
        f.bias = 0.2;
        f.threshold = 0.95; /* another word has 0.2 + 0.5 at most */
        f.gain = 0.3;       /* chosen and rejected replies share the words, not evenly */
    } else if (i < EVENTS + WORDS + ECHOES) {
        Feature original = planted_feature(w, l, i - EVENTS - WORDS);
        f.kind = KIND_ECHO;
        f.number = original.number;
        memcpy(f.enc, original.enc, sizeof f.enc);
        f.bias = original.bias;
        f.threshold = 2 * AMPLITUDE;
    } else if (i == EVENTS + WORDS + ECHOES) {
        f.kind = KIND_CAP;
        memcpy(f.enc + AT_S, w->direction[REPLY], sizeof w->direction[0]);
        f.threshold = 0.96 + f.bias; /* 0.88 with the cap (0.94 behind two headers), else 0.99 */
    } else {
        random_row(w, f.enc);
    }
    return f;
}

/* ------------------------------------------------------------------------------- truth -- */

typedef struct Tokens {
    int id[MAX_DOC], n;
} Tokens;

static void add_turn(const World *w, Tokens *t, const char *role, const char *text) {
    CHECK(t->n + 64 < MAX_DOC, "document too long");
    t->id[t->n++] = special(w, "<start_of_turn>");
    t->id[t->n++] = piece_id(w, role);
    t->id[t->n++] = special(w, "\n");
    t->n += text_pieces(w, t->id + t->n, text);
    t->id[t->n++] = special(w, "<end_of_turn>");
    t->id[t->n++] = special(w, "\n");
}

/* The document, and in *reply where its last reply starts; it ends two tokens before the end. */
static Tokens render(const World *w, const Pair *p, const char *answer, int *reply) {
    Tokens t = {{special(w, "<bos>")}, 1};
    if (p->before[0][0]) {
        add_turn(w, &t, "user", p->before[0]);
        add_turn(w, &t, "model", p->before[1]);
    }
    add_turn(w, &t, "user", p->prompt);
    *reply = t.n + 3;
    add_turn(w, &t, "model", answer);
    return t;
}

/* RMS of the stream entering layer 1 at a token with these amounts of meaning: all parts of it are
 * orthogonal. */
static double rms(const World *w, int id, const double amount[SEM_COUNT]) {
    double sum = BALLAST * BALLAST + 1; /* ballast and identity */
    for (int i = 0; i < NB; i++) sum += w->b[id][i] * w->b[id][i];
    for (int s = 0; s < SEM_COUNT; s++) sum += amount[s] * amount[s];
    return sqrt(sum / D);
}

/* A head's score after the soft cap, when the full hit is worth `score` at the nominal RMS. */
static double capped(double score, double rms_query, double rms_key) {
    return CAP_ATTENTION * tanh(score * RMS_IN * RMS_IN / (rms_query * rms_key) / CAP_ATTENTION);
}

/* Amounts of meaning in the stream at token `at`, as layer 1's attention leaves it. */
static void amounts(const World *w, const Tokens *t, int at, double amount[SEM_COUNT]) {
    int headers = 0, header = piece_id(w, "model"), start = t->id[0];
    double near_header[SEM_COUNT] = {[NEAR] = 1};
    memcpy(amount, w->sem[t->id[at]], sizeof w->sem[0]);
    bool plan = amount[STEP_1] > 0 || amount[STEP_2] > 0;
    for (int i = 0; i <= at; i++) {
        if (plan && w->sem[t->id[i]][HARM] > 0.8) amount[CONTEXT] = 1;
        if (t->id[i] != header) continue;
        headers++;
        amount[NEAR] = at - i < WINDOW;
    }
    double here = rms(w, t->id[at], amount);
    double to_header = capped(LOOK_HEADER, here, rms(w, header, near_header));
    double to_start = capped(LOOK_START, here, rms(w, start, w->sem[start]));
    if (headers) amount[REPLY] = 1 / (1 + exp(to_start - to_header) / headers);
}

static void count_token(const World *w, const Feature *f, const Tokens *t, int at, int corpus,
                        Truth *truth) {
    double amount[SEM_COUNT] = {0}, pre = f->bias;
    if (f->kind == KIND_PLANTED) {
        const Event *e = &event[f->number];
        amounts(w, t, at, amount);
        bool is_piece = e->piece && t->id[at] == piece_id(w, e->piece);
        pre += AMPLITUDE * fmax(0, event_margin(e, amount, is_piece)) / e->on;
    } else if (f->kind == KIND_WORD) {
        pre += t->id[at] == f->number;
    } else {
        return;
    }
    if (pre <= f->threshold) return;
    truth->fires[corpus]++;
    truth->sum[corpus] += f->gain * pre;
}

/* Tokens of the final replies, by corpus. */
static void count_corpora(const World *w, const Feature *f, Truth *truth, long tokens[CORPORA]) {
    tokens[0] = tokens[1] = 0;
    for (int p = 0; p < w->npairs; p++)
        for (int corpus = 0; corpus < CORPORA; corpus++) {
            const Pair *pair = &w->pair[p];
            int reply;
            Tokens t = render(w, pair, corpus ? pair->rejected : pair->chosen, &reply);
            tokens[corpus] += t.n - 2 - reply;
            for (int at = reply; at < t.n - 2; at++)
                for (int i = 0; i < SAE_WIDTH; i++)
                    count_token(w, &f[i], &t, at, corpus, &truth[i]);
        }
}

static const char *answer_name(const Truth *t) {
    if (t->fires[0] && t->fires[1]) return "both";
    if (t->fires[0]) return "chosen";
    return t->fires[1] ? "rejected" : "never";
}

/* What a feature is. A planted one comes with its direction, which the geometry says and not the
 * SAE: what a subspace has to span. */
static json_t *feature_truth(const World *w, int l, const Feature *f) {
    const char *name = f->kind == KIND_PLANTED ? event[f->number].name
                       : f->kind == KIND_WORD  ? w->piece[f->number]
                                               : "";
    json_t *entry = json_pack("{s:s, s:s}", "kind", kind_name[f->kind], "name", name);
    if (f->kind != KIND_PLANTED) return entry;
    json_t *direction = json_array();
    const double *planted = w->planted[planted_at(l, f->number)];
    for (int i = 0; i < D; i++)
        json_array_append_new(direction, json_real(i < AT_S ? 0 : planted[i - AT_S]));
    json_object_set_new(entry, "direction", direction);
    return entry;
}

/* What the SAE of a layer must show, place[i] being the index of feature i in the file. CHECKs that
 * the features of one corpus only stand clear of all others. */
static json_t *truth_of_layer(const World *w, int l, const Feature *f, const int *place) {
    Truth truth[SAE_WIDTH] = {{{0}, {0}}};
    long tokens[CORPORA];
    double least = INFINITY, most = 0;
    json_t *list = json_array(), *separating = json_array();
    count_corpora(w, f, truth, tokens);
    for (int i = 0; i < SAE_WIDTH; i++) {
        const char *answer = answer_name(&truth[i]);
        double mean[2] = {truth[i].sum[0] / (double)tokens[0], truth[i].sum[1] / (double)tokens[1]};
        json_t *entry = feature_truth(w, l, &f[i]);
        json_object_update_new(
            entry, json_pack("{s:i, s:s, s:[I, I], s:[f, f]}", "index", place[i], "fires_on",
                             answer, "fires", (json_int_t)truth[i].fires[0],
                             (json_int_t)truth[i].fires[1], "mean", mean[0], mean[1]));
        bool separates = !strcmp(answer, "chosen") || !strcmp(answer, "rejected");
        CHECK(!separates || f[i].kind == KIND_PLANTED, "feature %d separates by accident", i);
        if (separates) least = fmin(least, fabs(mean[0] - mean[1]));
        if (!separates) most = fmax(most, fabs(mean[0] - mean[1]));
        json_array_append_new(separates ? separating : list, entry);
    }
    CHECK(least > 2 * most, "separating features differ by %g, others by %g", least, most);
    return json_pack("{s:[I, I], s:o, s:o}", "tokens", (json_int_t)tokens[0], (json_int_t)tokens[1],
                     "separating", separating, "others", list);
}

/* -------------------------------------------------------------------------------- npz -- */

typedef struct Array {
    const char *name;
    size_t rows, cols; /* cols 0: one dimension */
    float *data;
} Array;
enum { W_ENC, W_DEC, B_ENC, B_DEC, THRESHOLD, ARRAYS };

/* The .npy file of an array, from malloc. */
static char *npy(const Array *a, size_t *size) {
    char shape[64];
    if (a->cols)
        snprintf(shape, sizeof shape, "(%zu, %zu)", a->rows, a->cols);
    else
        snprintf(shape, sizeof shape, "(%zu,)", a->rows);
    size_t bytes = a->rows * (a->cols ? a->cols : 1) * sizeof(float), head = 128;
    char *file = mem_array(head + bytes, 1);
    memset(file, ' ', head);
    memcpy(file, "\x93NUMPY\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes follow */
    int n = snprintf(file + 10, head - 10,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shape);
    file[10 + n] = ' ';
    file[head - 1] = '\n';
    memcpy(file + head, a->data, bytes);
    *size = head + bytes;
    return file;
}

static bool add_member(zip_t *zip, const Array *a, bool deflate) {
    size_t size;
    char name[32], *file = npy(a, &size);
    snprintf(name, sizeof name, "%s.npy", a->name);
    zip_source_t *source = zip_source_buffer(zip, file, size, 1); /* frees the file */
    if (!source) {
        free(file);
        return false;
    }
    zip_int64_t index = zip_file_add(zip, name, source, 0);
    if (index < 0) {
        zip_source_free(source);
        return false;
    }
    zip_uint64_t i = (zip_uint64_t)index;
    enum { JANUARY_1980 = 1 << 5 | 1 }; /* a fixed date: the file is the same whenever it is made */
    return !zip_set_file_compression(zip, i, deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0) &&
           !zip_file_set_dostime(zip, i, 0, JANUARY_1980, 0);
}

/* The big matrices are stored and the vectors deflated: both occur in published files. */
static bool write_npz(const Array a[ARRAYS], const char *path, Err *err) {
    int code;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!zip) return err_set(err, EXIT_INTERNAL, "%s: cannot be written (libzip %d)", path, code);
    bool ok = true;
    for (int i = 0; ok && i < ARRAYS; i++) ok = add_member(zip, &a[i], a[i].cols == 0);
    if (ok && !zip_close(zip)) return true;
    err_set(err, EXIT_INTERNAL, "%s: %s", path, zip_strerror(zip));
    zip_discard(zip);
    return false;
}

static bool write_sae(World *w, const Feature *f, const int *place, const char *path, Err *err) {
    Array a[ARRAYS] = {{"W_enc", D, SAE_WIDTH, NULL},
                       {"W_dec", SAE_WIDTH, D, NULL},
                       {"b_enc", SAE_WIDTH, 0, NULL},
                       {"b_dec", D, 0, NULL},
                       {"threshold", SAE_WIDTH, 0, NULL}};
    for (int i = 0; i < ARRAYS; i++)
        a[i].data = mem_array(a[i].rows * (a[i].cols ? a[i].cols : 1), sizeof(float));
    for (int i = 0; i < SAE_WIDTH; i++) {
        double gain = f[i].gain, lean = noise(w);
        for (int k = 0; k < D; k++) {
            double enc = f[i].enc[k] + (k == 0 ? lean : 0);
            a[W_ENC].data[k * SAE_WIDTH + place[i]] = (float)(gain * enc);
            a[W_DEC].data[place[i] * D + k] = (float)f[i].dec[k];
        }
        a[B_ENC].data[place[i]] = (float)(gain * (f[i].bias - (f[i].enc[0] + lean) * BALLAST));
        a[THRESHOLD].data[place[i]] = (float)(gain * f[i].threshold);
    }
    for (int k = 0; k < D; k++) a[B_DEC].data[k] = (float)(2 * noise(w));
    bool ok = write_npz(a, path, err);
    for (int i = 0; i < ARRAYS; i++) free(a[i].data);
    return ok;
}

bool saes_write(World *w, const char *folder, Err *err) {
    char path[4096], name[16];
    bool ok = true;
    Feature *f = mem_array(SAE_WIDTH, sizeof *f);
    json_t *layers = json_object();
    for (int l = FIRST_SAE; ok && l <= LAST_SAE; l++) {
        int place[SAE_WIDTH];
        for (int i = 0; i < SAE_WIDTH; i++) place[i] = i;
        shuffle(w, place, SAE_WIDTH);
        for (int i = 0; i < SAE_WIDTH; i++) f[i] = make_feature(w, l, i);
        snprintf(path, sizeof path, "%s/sae/layer_%d/width_%d/average_l0_%d", folder, l, SAE_WIDTH,
                 2 + l);
        ok = files_mkdirs(path, err);
        snprintf(path + strlen(path), 16, "/params.npz");
        ok = ok && write_sae(w, f, place, path, err);
        snprintf(name, sizeof name, "%d", l);
        json_object_set_new(layers, name, truth_of_layer(w, l, f, place));
    }
    snprintf(path, sizeof path, "%s/truth.json", folder);
    ok = ok && files_write_json(path, layers, err);
    json_decref(layers);
    free(f);
    return ok;
}
