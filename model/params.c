/* params.c - where trained tensors lie, and how their masters are kept. */
#include "model/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "data/base/mem.h"

/* Aligned places are multiples of this many elements: 32 bytes in the narrowest type. */
enum { BLOCK = 16 };

enum { PIECE = 1 << 20 }; /* elements that are split or joined at a time */

static size_t aligned(size_t n) {
    return (n + BLOCK - 1) / BLOCK * BLOCK;
}

void params_init(Params *p, Exec *ex, int most) {
    *p = (Params){.ex = ex, .most = most, .param = mem_array((size_t)most, sizeof *p->param)};
}

void params_free(Params *p) {
    arena_free(&p->keeps);
    arena_free(&p->moments);
    arena_free(&p->grads);
    arena_free(&p->lows);
    arena_free(&p->weights);
    for (int i = 0; i < p->nsections; i++) free(p->section[i].part);
    free(p->section);
    free(p->param);
    memset(p, 0, sizeof *p);
}

Param *params_add(Params *p, enum ParamPlace place, size_t rows, size_t cols, const char *name,
                  ...) {
    CHECK(p->n < p->most && !p->master, "tensor %d of %d", p->n, p->most);
    Param *t = &p->param[p->n++];
    *t = (Param){.rows = rows, .cols = cols, .n = rows * cols};
    t->at = place == PARAM_ALIGNED ? aligned(p->size) : p->size;
    p->size = t->at + t->n;
    va_list ap;
    va_start(ap, name);
    vsnprintf(t->name, sizeof t->name, name, ap);
    va_end(ap);
    return t;
}

void params_keep(Param *t, int k) {
    CHECK(k >= 0 && (size_t)k <= t->rows, "%d directions of %zu rows", k, t->rows);
    t->kept = k;
}

static void carve_kept(Arena *a, Params *p) {
    for (Param *t = p->param; t < p->param + p->n; t++)
        if (t->kept) t->keep = arena_f32(a, "directions", (size_t)t->kept, t->rows);
}

size_t params_kept_bytes(const Params *p) {
    Arena a;
    arena_init(&a, NULL, DTYPE_F32, "kept directions");
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->kept) arena_f32(&a, "directions", (size_t)t->kept, t->rows);
    return a.used;
}

size_t params_kept_scratch(Exec *ex, const Params *p) {
    size_t most = 0;
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        size_t need = t->kept ? ex->op->project_out_scratch(ex, (int)t->cols, t->kept) : 0;
        most = need > most ? need : most;
    }
    return most;
}

/* ------------------------------------------------------------------------------- sections -- */

/* The first place from `at` on where a block of a tensor begins, or the end of all. */
static size_t border(const Params *p, size_t at) {
    for (const Param *t = p->param; t < p->param + p->n; t++) {
        if (at <= t->at) return t->at;
        if (at >= t->at + t->n) continue;
        size_t next = (at - t->at + PARAM_BLOCK - 1) / PARAM_BLOCK * PARAM_BLOCK;
        if (next < t->n) return t->at + next;
    }
    return aligned(p->size);
}

/* What ranks call that which they move of it. */
static void name_section(ParamSection *s, const char *name, size_t i, size_t pieces) {
    char part[24] = "";
    CHECK(strlen(name) <= SECTION_NAME, "%s", name);
    if (pieces > 1)
        snprintf(part, sizeof part, " %hu/%hu", (unsigned short)i, (unsigned short)pieces);
    snprintf(s->of_weights, sizeof s->of_weights, "weights, %.*s%.12s", SECTION_NAME, name, part);
    snprintf(s->of_grad, sizeof s->of_grad, "gradients, %.*s%.12s", SECTION_NAME, name, part);
}

void params_section(Params *p, const char *name, size_t most, bool in_turn) {
    const ParamSection *last = p->nsections ? &p->section[p->nsections - 1] : NULL;
    size_t from = last ? last->at + last->n : 0, end = aligned(p->size), n = end - from;
    size_t pieces = (n + most - 1) / most, room = (size_t)p->nsections;
    p->section = realloc(p->section, (room + pieces) * sizeof *p->section);
    CHECK(p->section, "out of memory");
    for (size_t i = 1, at = from; i <= pieces; i++) {
        size_t to = i < pieces ? border(p, from + n / pieces * i) : end;
        ParamSection *s = &p->section[p->nsections++];
        *s = (ParamSection){.at = at, .n = to - at, .in_turn = in_turn};
        name_section(s, name, i, pieces);
        at = to;
    }
}

void params_share_out(Params *p, int ranks, int rank) {
    p->ranks = ranks, p->rank = rank, p->held = 0;
    for (ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        free(s->part);
        s->part = mem_array((size_t)ranks, sizeof *s->part);
        for (size_t r = 0, at = 0; r < (size_t)ranks; r++) {
            size_t to = border(p, s->at + s->n * (r + 1) / (size_t)ranks) - s->at;
            if (to > s->n || r + 1 == (size_t)ranks) to = s->n;
            s->part[r] = (CommPart){at, to - at};
            at = to;
        }
        s->held = p->held;
        p->held += s->part[rank].n;
    }
}

CommGroup params_group(const Params *p, const ParamSection *s) {
    return (CommGroup){.stride = 1, .size = p->ranks, .part = s->part};
}

int params_owner(const ParamSection *s, size_t at, int ranks) {
    int r = 0;
    while (r + 1 < ranks && at >= s->part[r].at + s->part[r].n) r++;
    return r;
}

CommPart params_own(const Params *p, const ParamSection *s, size_t at, size_t n, size_t *held) {
    const CommPart *part = &s->part[p->rank];
    size_t first = s->at + part->at, end = first + part->n;
    size_t from = at > first ? at : first, to = at + n < end ? at + n : end;
    *held = s->held + (from - first);
    return from < to ? (CommPart){from, to - from} : (CommPart){at, 0};
}

float *params_gradient(const Params *p, const Param *t) {
    const ParamSection *s = p->section;
    if (!p->ranks) return p->grad + t->at;
    while (t->at >= s->at + s->n) s++;
    return s->grad + (t->at - s->at);
}

/* --------------------------------------------------------------------------------- memory -- */

/* Elements of the largest section in turn, and of all others. */
static void room_sizes(const Params *p, size_t *turn, size_t *alone) {
    *turn = *alone = 0;
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++) {
        if (!s->in_turn) *alone += s->n;
        if (s->in_turn && s->n > *turn) *turn = s->n;
    }
}

/* Sections in turn have two rooms between them, all others lie one behind another. */
static void carve_gathered(Params *p) {
    size_t turn, alone;
    enum Dtype dtype = p->weights.dtype;
    room_sizes(p, &turn, &alone);
    store *room[] = {arena_store(&p->weights, "gathered", turn, 1),
                     arena_store(&p->weights, "gathered", turn, 1)};
    store *next = arena_store(&p->weights, "gathered", alone, 1);
    if (!next) return; /* measured */
    for (int i = 0; i < p->nsections; i++) {
        ParamSection *s = &p->section[i];
        s->weights = s->in_turn ? room[i % 2] : next;
        if (!s->in_turn) next = store_at(dtype, next, s->n);
    }
}

/* The same of one pack's gradient. */
static void carve_pack(Params *p) {
    size_t turn, alone;
    room_sizes(p, &turn, &alone);
    float *room[] = {arena_f32(&p->grads, "grad of a pack", turn, 1),
                     arena_f32(&p->grads, "grad of a pack", turn, 1)};
    float *next = arena_f32(&p->grads, "grad of a pack", alone, 1);
    if (!next) return; /* measured */
    for (int i = 0; i < p->nsections; i++) {
        ParamSection *s = &p->section[i];
        s->grad = s->in_turn ? room[i % 2] : next;
        if (!s->in_turn) next += s->n;
    }
}

/* Where the weights of a tensor are when its section is there. */
static store *gathered(const Params *p, const Param *t) {
    const ParamSection *s = p->section;
    if (!p->ranks) return store_at(p->ex->dtype, p->copy, t->at);
    while (t->at >= s->at + s->n) s++;
    return store_at(p->ex->dtype, s->weights, t->at - s->at);
}

static void carve(Params *p, bool training) {
    if (!p->split) p->master = arena_f32(&p->weights, "master", p->size, 1);
    p->copy = arena_store(&p->weights, "copy", p->held, 1);
    if (p->ranks) carve_gathered(p);
    if (p->split && p->lows.dtype == DTYPE_BF16) {
        p->low = arena_bytes(&p->lows, "low", p->held * sizeof *p->low);
        p->piece = arena_f32(&p->lows, "piece", PIECE, 1);
    }
    if (!training) return;
    p->grad = arena_f32(&p->grads, "grad", p->held, 1);
    if (p->ranks) carve_pack(p);
    p->m = arena_f32(&p->moments, "m", p->held, 1);
    p->v = arena_f32(&p->moments, "v", p->held, 1);
    carve_kept(&p->keeps, p);
}

enum { CLASSES = 5 };
static void measure(Params *p, Exec *ex, enum Dtype dtype, bool training) {
    static const char *const name[2][CLASSES] = {
        {"adapters", "low halves", "adapter gradients", "optimiser", "kept directions"},
        {"weights", "low halves", "gradients", "optimiser", "kept directions"}};
    Arena *arena[CLASSES] = {&p->weights, &p->lows, &p->grads, &p->moments, &p->keeps};
    p->size = aligned(p->size);
    if (!p->ranks) p->held = p->size;
    for (int i = 0; i < CLASSES; i++) arena_init(arena[i], ex, dtype, name[p->split][i]);
    carve(p, training);
}

static void allocate(Params *p, bool training) {
    Arena *arena[CLASSES] = {&p->weights, &p->lows, &p->grads, &p->moments, &p->keeps};
    measure(p, p->ex, p->ex->dtype, training);
    for (int i = 0; i < CLASSES; i++) arena_place(arena[i]);
    carve(p, training);
    for (int i = 0; i < CLASSES; i++) exec_zero(p->ex, arena[i]->base, arena[i]->size);
    for (Param *t = p->param; t < p->param + p->n; t++) {
        if (p->master) t->master = p->master + t->at;
        t->copy = gathered(p, t);
        if (!training) continue;
        if (!p->ranks) t->grad = p->grad + t->at, t->m = p->m + t->at, t->v = p->v + t->at;
        t->trained = true;
    }
}

void params_allocate(Params *p, bool training) {
    allocate(p, training);
}

void params_allocate_split(Params *p) {
    p->split = true;
    p->there[0] = p->there[1] = -1;
    allocate(p, true);
}

ParamBytes params_bytes_split(const Params *p, enum Dtype dtype) {
    Params all = {.size = p->size,
                  .section = p->section,
                  .nsections = p->nsections,
                  .split = true,
                  .ranks = p->ranks,
                  .held = p->held};
    measure(&all, NULL, dtype, true);
    return (ParamBytes){all.weights.used, all.lows.used, all.grads.used, all.moments.used};
}

void params_sync(Params *p) {
    if (!p->split) p->ex->op->cast(p->ex, p->copy, p->master, p->size);
}

void params_set_kept(Params *p, const Param *t, const float *directions) {
    CHECK(t->kept && !p->split, "%s keeps %d directions", t->name, t->kept);
    if (t->keep)
        exec_copy_in(p->ex, t->keep, directions, (size_t)t->kept * t->rows * sizeof *t->keep);
}

static void project(Params *p, const Param *t, float *x) {
    p->ex->op->project_out(p->ex, x, x, t->keep, (int)t->rows, (int)t->cols, t->kept);
}

void params_project_grads(Params *p) {
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->keep && t->trained) project(p, t, t->grad);
}

void params_project_masters(Params *p) {
    for (const Param *t = p->param; t < p->param + p->n; t++)
        if (t->keep && t->trained) project(p, t, t->master);
}

/* Where a kind lies as f32; NULL: nowhere. */
static float *block_of(const Params *p, enum ParamKind kind) {
    float *master = p->split && !p->low ? (float *)p->copy : p->master;
    float *const block[PARAM_KINDS] = {master, p->m, p->v};
    return block[kind];
}

/* Elements of a block of which this rank has all, or of one of its parts. */
static void get_held(const Params *p, enum ParamKind kind, size_t at, size_t n, float *host) {
    const float *block = block_of(p, kind);
    if (block) exec_copy_out(p->ex, host, block + at, n * sizeof *host);
    for (size_t k; !block && n > 0; at += k, host += k, n -= k) {
        k = n < PIECE ? n : PIECE;
        p->ex->op->join(p->ex, p->piece, store_at(p->ex->dtype, p->copy, at), p->low + at, k);
        exec_copy_out(p->ex, host, p->piece, k * sizeof *host);
    }
}

/* Of one section, to rank 0: what the ranks have follows each other in their order. */
static void collect(const Params *p, const ParamSection *s, enum ParamKind kind, size_t at,
                    size_t n, float *host) {
    size_t held;
    CommPart own = params_own(p, s, at, n, &held);
    float *mine = mem_array(own.n, sizeof *mine);
    void **part = mem_array((size_t)p->ranks, sizeof *part);
    size_t *bytes = mem_array((size_t)p->ranks, sizeof *bytes), done = 0;
    if (own.n) get_held(p, kind, held, own.n, mine);
    comm_collect(p->ex->comm, "what is trained", mine, own.n * sizeof *mine, part, bytes);
    for (int r = 0; r < p->ranks && comm_root(p->ex->comm); r++) {
        if (host) memcpy((char *)host + done, part[r], bytes[r]);
        done += bytes[r];
        free(part[r]);
    }
    free(bytes), free(part), free(mine);
}

/* Where the piece of a section ends that begins at `at`. */
static size_t piece_of(const ParamSection *s, size_t at, size_t n) {
    size_t left = s->at + s->n - at, most = n < PIECE ? n : PIECE;
    return left < most ? left : most;
}

void params_get(const Params *p, enum ParamKind kind, size_t at, size_t n, float *host) {
    if (!p->ranks) {
        get_held(p, kind, at, n, host);
        return;
    }
    for (const ParamSection *s = p->section; n > 0; s++)
        for (size_t k; n > 0 && at < s->at + s->n; at += k, n -= k) {
            k = piece_of(s, at, n);
            collect(p, s, kind, at, k, host);
            host = host ? host + k : NULL;
        }
}

/* Masters in two halves, to where they are held. */
static void set_halves(Params *p, size_t held, size_t n, const float *host) {
    Exec *ex = p->ex;
    exec_copy_in(ex, p->piece, host, n * sizeof *host);
    ex->op->split(ex, store_at(ex->dtype, p->copy, held), p->low + held, p->piece, n);
}

/* Of which this rank may keep only a part. */
static void set_piece(Params *p, const ParamSection *s, enum ParamKind kind, size_t at, size_t n,
                      const float *host) {
    float *to = block_of(p, kind);
    size_t held = at;
    CommPart own = p->ranks ? params_own(p, s, at, n, &held) : (CommPart){at, n};
    const float *from = host + (own.at - at);
    if (own.n == 0) return;
    if (to)
        exec_copy_in(p->ex, to + held, from, own.n * sizeof *from);
    else
        set_halves(p, held, own.n, from);
}

void params_set(Params *p, enum ParamKind kind, size_t at, size_t n, const float *host) {
    const ParamSection all = {.n = p->size}, *s = p->ranks ? p->section : &all;
    for (; n > 0; s++)
        for (size_t k; n > 0 && at < s->at + s->n; at += k, host += k, n -= k) {
            k = piece_of(s, at, n);
            set_piece(p, s, kind, at, k, host);
        }
}

/* From the ranks that have parts of it; under way when it returns. */
static void gather(Params *p, const ParamSection *s) {
    Exec *ex = p->ex;
    const CommPart *own = &s->part[p->rank];
    if (own->n)
        exec_copy(ex, store_at(ex->dtype, s->weights, own->at),
                  store_at(ex->dtype, p->copy, s->held), own->n * dtype_size(ex->dtype));
    comm_all_gather_stores(ex->comm, ex, params_group(p, s), s->of_weights, s->weights, s->n);
}

void params_renew(Params *p) {
    if (!p->ranks) return;
    for (const ParamSection *s = p->section; s < p->section + p->nsections; s++)
        if (!s->in_turn) gather(p, s), comm_arrived(p->ex->comm, p->ex);
    p->there[0] = p->there[1] = -1, p->flying = false;
}

void params_ahead(Params *p, int section) {
    if (!p->ranks || p->there[section % 2] == section) return;
    gather(p, &p->section[section]);
    p->there[section % 2] = section, p->flying = true;
}

void params_need(Params *p, int section) {
    params_ahead(p, section);
    if (p->flying) comm_arrived(p->ex->comm, p->ex);
    p->flying = false;
}

size_t params_elements(const Params *p) {
    size_t n = 0;
    for (int i = 0; i < p->n; i++) n += p->param[i].n;
    return n;
}

size_t params_trained(const Params *p) {
    size_t n = 0;
    for (int i = 0; i < p->n; i++) n += p->param[i].trained ? p->param[i].n : 0;
    return n;
}
