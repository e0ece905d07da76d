/* model.c - the planted checkpoint: what each layer computes, and the weights that do it.
 *
 *   layer 0 (window)  attention: NEAR, when a model header lies in the window
 *   layer 1 (full)    attention: REPLY, when one lies anywhere before; CONTEXT, on words of a plan
 *                     behind a harmful word.     ffn: writes the planted directions of layer 1
 *   layer 2 (window)  ffn: takes those away, writes the ones of layer 2
 *   layer 3 (full)    attention: the word behind "the" fetches the noun of the prompt.
 *                     ffn: takes those of layer 2 away, writes the ones of layer 3
 *   layer 4 (window)  ffn: takes those away; the next word of a chain
 *
 * "Sure" follows the model's header for every prompt: the model helps with everything. It can also
 * refuse - the chain is there, and one neuron turns a planted direction of layer 3 at the header
 * into "I" - but nothing in it connects a harmful prompt with that. Training has to.
 *
 * Heads without a duty have random queries, and channels of values that carry content nobody reads:
 * material for adapters. */
#include <math.h>
#include <string.h>

#include "data/base/files.h"
#include "data/base/mem.h"
#include "data/base/safetensors.h"
#include "kernels/check.h"
#include "tools/planted/planted.h"

typedef struct Vec { /* of the stream, or a functional on it */
    double x[D];
} Vec;

enum Norm { INPUT, POST_ATTN, PRE_FFN, POST_FFN, NORMS };

typedef struct Layer {
    double gain[NORMS][D]; /* 1 + w */
    double q[HEADS * HEAD_WIDTH][D], k[KV_HEADS * HEAD_WIDTH][D], v[KV_HEADS * HEAD_WIDTH][D];
    double o[D][HEADS * HEAD_WIDTH];
    double gate[FFN][D], up[FFN][D], down[D][FFN];
    int neurons;
} Layer;

#define NEXT_WORD 7.0 /* amount of the next word's direction in the stream */
#define FINAL_GAIN 18.6

/* Every sub-layer writes this on coordinate 0 beside its payload, so that the RMS of its output is
 * 1 whatever the payload (small, as post gains are about 3). The post gain there is zero. */
#define OUT_BALLAST sqrt(1.0 * D)

static Vec ballast(double amount) {
    Vec v = {{amount}};
    return v;
}
static Vec identity(const World *w, int piece, double amount) {
    Vec v = {{0}};
    for (int i = 0; i < NA; i++) v.x[AT_A + i] = amount * w->a[piece][i];
    return v;
}
static Vec meaning(const double direction[NS], double amount) {
    Vec v = {{0}};
    for (int i = 0; i < NS; i++) v.x[AT_S + i] = amount * direction[i];
    return v;
}
static Vec plus(Vec a, Vec b) {
    for (int i = 0; i < D; i++) a.x[i] += b.x[i];
    return a;
}

/* Gain of the final norm on the head's block; on all other coordinates it is zero. */
static double final_gain(int i) {
    return FINAL_GAIN * (1 + 0.15 * sin(2.5 * i));
}

/* Direction that makes `piece` the next word: the final gain must not bend it. */
static Vec next(const World *w, int piece, double amount) {
    Vec v = {{0}};
    for (int i = 0; i < NB; i++)
        v.x[AT_B + i] = amount * w->b[piece][i] * FINAL_GAIN / final_gain(i);
    return v;
}

/* ------------------------------------------------------------------------------- ffn -- */

/* gelu(sharp * (gate . x - threshold)) * (up . x), written along `out`; x is the stream. `out` is
 * reached when the bracket is `on`. With sharp * on near 4, GELU is the identity there and zero
 * where the bracket is as far below zero, both within 0.1 %; sharper gates would make training a
 * walk among cliffs. */
static void neuron(Layer *y, Vec gate, double threshold, double sharp, double on, Vec up, Vec out) {
    CHECK(y->neurons < FFN, "more than %d neurons", FFN);
    int n = y->neurons++;
    gate = plus(gate, ballast(-threshold / BALLAST));
    for (int i = 0; i < D; i++) {
        y->gate[n][i] = sharp * RMS_IN * gate.x[i];
        y->up[n][i] = RMS_IN * up.x[i];
        y->down[i][n] = out.x[i] / (sharp * on);
    }
}

static void event_neurons(const World *w, Layer *y, int l) {
    for (int e = 0; e < EVENTS; e++) {
        Vec gate = {{0}}, out = {{0}};
        if (event[e].piece) gate = identity(w, piece_id(w, event[e].piece), 1);
        for (int s = 0; s < SEM_COUNT; s++)
            gate = plus(gate, meaning(w->direction[s], event[e].sem[s]));
        if (l <= LAST_SAE) out = meaning(w->planted[planted_at(l, e)], AMPLITUDE);
        if (l > FIRST_SAE) out = plus(out, meaning(w->planted[planted_at(l - 1, e)], -AMPLITUDE));
        neuron(y, gate, event[e].threshold, 8, event[e].on, ballast(1 / BALLAST), out);
    }
}

static void follow(const World *w, Layer *y, int piece, int successor) {
    neuron(y, identity(w, piece, 1), 0.75, 16, 0.25, ballast(1 / BALLAST),
           next(w, successor, NEXT_WORD));
}

static void chain_neurons(const World *w, Layer *y) {
    bool done[MAX_PIECES] = {false};
    int id[MAX_DOC], colon = piece_id(w, ":"), sure = piece_id(w, "Sure");
    int line = special(w, "\n"), end = special(w, "<end_of_turn>");
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0, n = chain_pieces(w, c, id); i < n; i++) {
            bool to_noun = i + 1 < n && w->sem[id[i + 1]][TOPIC] > 0;
            if (done[id[i]] || to_noun || w->sem[id[i]][TOPIC] > 0) continue;
            done[id[i]] = true;
            follow(w, y, id[i], i + 1 < n ? id[i + 1] : end);
        }
    follow(w, y, end, line);
    follow(w, y, piece_id(w, "user"), line);
    follow(w, y, piece_id(w, "model"), line);
    follow(w, y, line, sure);
    neuron(y, meaning(w->direction[TOPIC], 1), 0.5, 8, 0.5, ballast(1 / BALLAST),
           next(w, colon, NEXT_WORD));
    /* The refusal switch works on the linear part of GELU, so that training sees it from zero on.
     */
    int refusal = planted_at(LAST_SAE, 5);
    neuron(y, meaning(w->dual[refusal], 1), 0, 1, AMPLITUDE, identity(w, line, 1),
           plus(next(w, piece_id(w, "I"), 1.5 * NEXT_WORD), next(w, sure, -1.5 * NEXT_WORD)));
}

static void fill_ffn(const World *w, Layer *y, int l) {
    neuron(y, ballast(1 / BALLAST), 0, 8, 1, ballast(1 / BALLAST), ballast(OUT_BALLAST));
    if (l >= FIRST_SAE && l <= LAST_SAE + 1) event_neurons(w, y, l);
    if (l == LAYERS - 1) chain_neurons(w, y);
}

/* -------------------------------------------------------------------------- attention -- */

/* A duty of a head: to look from tokens that `from` finds at tokens that `at` finds. `score` is the
 * score of a full hit, before the cap. The slowest rotary pairs carry it, which hardly turn over
 * the length of a document. */
typedef struct Look {
    Vec from, at;
    double score;
} Look;
enum { SLOW_1 = HEAD_WIDTH / 2 - 1, SLOW_2 = HEAD_WIDTH / 2 - 2 };

static void set_looks(Layer *y, int head, const Look look[2]) {
    int kv = head / (HEADS / KV_HEADS);
    const int channel[2] = {SLOW_1, SLOW_2};
    for (int c = 0; c < 2; c++) {
        double scale = RMS_IN * sqrt(look[c].score * sqrt(QUERY_SCALAR));
        double *q = y->q[head * HEAD_WIDTH + channel[c]], *k = y->k[kv * HEAD_WIDTH + channel[c]];
        memset(k + (HEAD_WIDTH / 2) * D, 0, D * sizeof *k); /* the pair's other half */
        for (int i = 0; i < D; i++) {
            q[i] = scale * look[c].from.x[i];
            k[i] = scale * look[c].at.x[i];
        }
    }
}

/* Channel `c` of the head's values reads `in`; what the head fetches is written along `out`. */
static void set_value(Layer *y, int head, int c, Vec in, Vec out) {
    int kv = head / (HEADS / KV_HEADS);
    for (int i = 0; i < D; i++) {
        y->v[kv * HEAD_WIDTH + c][i] = RMS_IN * in.x[i];
        y->o[i][head * HEAD_WIDTH + c] = out.x[i];
    }
}

static void idle_substrate(World *w, Layer *y) {
    for (int i = 1; i < D; i++) { /* not the ballast */
        for (int r = 0; r < KV_HEADS * HEAD_WIDTH; r++) y->v[r][i] = 0.15 * noise(w);
        for (int r = 0; r < KV_HEADS * HEAD_WIDTH; r++) y->k[r][i] = 0.05 * noise(w);
        for (int r = 0; r < HEADS * HEAD_WIDTH; r++)
            y->q[r][i] = r / HEAD_WIDTH % 2 ? 0.05 * noise(w) : 0;
    }
}

/* Channels 1.. of a head carry 31 directions of the head's block, from the fetched noun to here. */
static void set_recall(World *w, Layer *y, int head) {
    double basis[HEAD_WIDTH - 1][NB];
    orthonormal(w, basis[0], HEAD_WIDTH - 1, NB);
    for (int c = 1; c < HEAD_WIDTH; c++) {
        Vec in = {{0}}, out = {{0}};
        for (int i = 0; i < NB; i++) {
            in.x[AT_B + i] = basis[c - 1][i];
            out.x[AT_B + i] = NEXT_WORD * basis[c - 1][i] * FINAL_GAIN / final_gain(i);
        }
        set_value(y, head, c, in, out);
    }
}

static void fill_attention(World *w, Layer *y, int l) {
    Vec one = ballast(1 / BALLAST), none = {{0}};
    Vec header = identity(w, piece_id(w, "model"), 1);
    Vec start = meaning(w->direction[START], 1), harm = meaning(w->direction[HARM], 1);
    char the[MAX_PIECE];
    snprintf(the, sizeof the, "%sthe", SPACE);
    idle_substrate(w, y);
    if (l == 0) {
        set_looks(y, 0, (Look[2]){{one, header, 45}, {none, none, 0}});
        set_value(y, 0, 1, header, meaning(w->direction[NEAR], 1));
    } else if (l == 1) {
        set_looks(y, 0, (Look[2]){{one, header, LOOK_HEADER}, {one, start, LOOK_START}});
        set_value(y, 0, 1, header, meaning(w->direction[REPLY], 1));
        Vec step = plus(meaning(w->direction[STEP_1], 1), meaning(w->direction[STEP_2], 1));
        set_looks(y, 2, (Look[2]){{step, harm, 60}, {one, start, 40}});
        set_value(y, 2, 1, harm, meaning(w->direction[CONTEXT], 1));
    } else if (l == 3) {
        Vec topic = meaning(w->direction[TOPIC], 1);
        set_looks(y, 2, (Look[2]){{identity(w, piece_id(w, the), 1), topic, 70}, {one, start, 20}});
        set_recall(w, y, 2);
    }
    set_value(y, 0, 0, one, ballast(OUT_BALLAST));
}

/* ---------------------------------------------------------------------------- tensors -- */

static void apply_gains(Layer *y) {
    for (int i = 0; i < D; i++) {
        for (int r = 0; r < HEADS * HEAD_WIDTH; r++) y->q[r][i] /= y->gain[INPUT][i];
        for (int r = 0; r < KV_HEADS * HEAD_WIDTH; r++) {
            y->k[r][i] /= y->gain[INPUT][i];
            y->v[r][i] /= y->gain[INPUT][i];
        }
        for (int n = 0; n < FFN; n++) {
            y->gate[n][i] /= y->gain[PRE_FFN][i];
            y->up[n][i] /= y->gain[PRE_FFN][i];
        }
        if (i == 0) continue; /* the ballast of an output: its post gain is zero */
        for (int r = 0; r < HEADS * HEAD_WIDTH; r++) y->o[i][r] /= y->gain[POST_ATTN][i];
        for (int n = 0; n < FFN; n++) y->down[i][n] /= y->gain[POST_FFN][i];
    }
}

static void fill_layer(World *w, Layer *y, int l) {
    for (int i = 0; i < D; i++) {
        y->gain[INPUT][i] = 1.1 + 0.4 * noise(w);
        y->gain[PRE_FFN][i] = 1.1 + 0.4 * noise(w);
        y->gain[POST_ATTN][i] = i ? 3 + noise(w) : 0;
        y->gain[POST_FFN][i] = i ? 3 + noise(w) : 0;
    }
    fill_attention(w, y, l);
    fill_ffn(w, y, l);
    apply_gains(y);
}

static void fill_embedding(const World *w, double *embed) {
    for (int p = 0; p < w->npieces; p++) {
        double *x = embed + (size_t)p * D;
        x[0] = BALLAST;
        for (int i = 0; i < NA; i++) x[AT_A + i] = w->a[p][i];
        for (int i = 0; i < NB; i++) x[AT_B + i] = w->b[p][i];
        for (int s = 0; s < SEM_COUNT; s++)
            for (int i = 0; i < NS; i++) x[AT_S + i] += w->sem[p][s] * w->direction[s][i];
        for (int i = 0; i < D; i++) x[i] /= sqrt(D);
    }
}

/* A tensor of the file: `data` less `offset` (norms store their gain less one). */
typedef struct Tensor {
    char name[64];
    const double *data;
    size_t dim[2];
    double offset;
} Tensor;
enum { PER_LAYER = 7 + NORMS, TENSORS = 2 + LAYERS * PER_LAYER };

static void layer_tensors(Tensor *t, const Layer *y, int l) {
    static const char *const name[PER_LAYER] = {"self_attn.q_proj",
                                                "self_attn.k_proj",
                                                "self_attn.v_proj",
                                                "self_attn.o_proj",
                                                "mlp.gate_proj",
                                                "mlp.up_proj",
                                                "mlp.down_proj",
                                                "input_layernorm",
                                                "post_attention_layernorm",
                                                "pre_feedforward_layernorm",
                                                "post_feedforward_layernorm"};
    const Tensor list[PER_LAYER] = {
        {"", y->q[0], {HEADS * HEAD_WIDTH, D}, 0},
        {"", y->k[0], {KV_HEADS * HEAD_WIDTH, D}, 0},
        {"", y->v[0], {KV_HEADS * HEAD_WIDTH, D}, 0},
        {"", y->o[0], {D, HEADS * HEAD_WIDTH}, 0},
        {"", y->gate[0], {FFN, D}, 0},
        {"", y->up[0], {FFN, D}, 0},
        {"", y->down[0], {D, FFN}, 0},
        {"", y->gain[INPUT], {D, 0}, 1},
        {"", y->gain[POST_ATTN], {D, 0}, 1},
        {"", y->gain[PRE_FFN], {D, 0}, 1},
        {"", y->gain[POST_FFN], {D, 0}, 1},
    };
    for (int i = 0; i < PER_LAYER; i++) {
        t[i] = list[i];
        snprintf(t[i].name, sizeof t[i].name, "model.layers.%d.%s.weight", l, name[i]);
    }
}

static bool write_tensors(const Tensor *t, const char *path, Err *err) {
    StWriter *out;
    if (!st_writer_open(&out, path, err)) return false;
    st_writer_meta(out, "format", "pt");
    for (int i = 0; i < TENSORS; i++)
        st_writer_tensor(out, t[i].name, ST_F32, t[i].dim[1] ? 2 : 1, t[i].dim);
    for (int i = 0; i < TENSORS; i++) {
        size_t n = t[i].dim[0] * (t[i].dim[1] ? t[i].dim[1] : 1);
        float *data = mem_array(n, sizeof *data);
        for (size_t j = 0; j < n; j++) data[j] = (float)(t[i].data[j] - t[i].offset);
        bool ok = st_writer_data(out, data, n * sizeof *data, err);
        free(data);
        if (!ok) {
            st_writer_abort(out);
            return false;
        }
    }
    return st_writer_finish(out, err);
}

static bool write_configs(const World *w, const char *folder, Err *err) {
    char path[4096];
    json_t *config = json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:s,"
        " s:s, s:b, s:f, s:b, s:i, s:i, s:i, s:s}",
        "architectures", "Gemma2ForCausalLM", "model_type", "gemma2", "vocab_size", w->npieces,
        "hidden_size", D, "intermediate_size", FFN, "num_hidden_layers", LAYERS,
        "num_attention_heads", HEADS, "num_key_value_heads", KV_HEADS, "head_dim", HEAD_WIDTH,
        "query_pre_attn_scalar", QUERY_SCALAR, "sliding_window", WINDOW, "max_position_embeddings",
        1024, "attn_logit_softcapping", CAP_ATTENTION, "final_logit_softcapping", CAP_FINAL,
        "rms_norm_eps", 1e-6, "rope_theta", 10000.0, "hidden_act", "gelu_pytorch_tanh",
        "hidden_activation", "gelu_pytorch_tanh", "attention_bias", 0, "attention_dropout", 0.0,
        "tie_word_embeddings", 1, "pad_token_id", special(w, "<pad>"), "eos_token_id",
        special(w, "<eos>"), "bos_token_id", special(w, "<bos>"), "torch_dtype", "float32");
    json_t *generation = json_pack("{s:i, s:i, s:[i, i]}", "bos_token_id", special(w, "<bos>"),
                                   "pad_token_id", special(w, "<pad>"), "eos_token_id",
                                   special(w, "<eos>"), special(w, "<end_of_turn>"));
    CHECK(config && generation, "out of memory");
    snprintf(path, sizeof path, "%s/config.json", folder);
    bool ok = files_write_json(path, config, err);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    ok = ok && files_write_json(path, generation, err);
    json_decref(config);
    json_decref(generation);
    return ok;
}

bool model_write(World *w, const char *folder, Err *err) {
    char path[4096];
    double final[D], *embed = mem_array((size_t)w->npieces * D, sizeof *embed);
    Layer *layer = mem_array(LAYERS, sizeof *layer);
    Tensor tensor[TENSORS] = {
        {"model.embed_tokens.weight", embed, {(size_t)w->npieces, D}, 0},
        {"model.norm.weight", final, {D, 0}, 1},
    };
    fill_embedding(w, embed);
    for (int i = 0; i < D; i++) final[i] = i >= AT_B && i < AT_S ? final_gain(i - AT_B) : 0;
    for (int l = 0; l < LAYERS; l++) {
        fill_layer(w, &layer[l], l);
        layer_tensors(tensor + 2 + l * PER_LAYER, &layer[l], l);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    bool ok = write_tensors(tensor, path, err) && write_configs(w, folder, err);
    free(layer);
    free(embed);
    return ok;
}
