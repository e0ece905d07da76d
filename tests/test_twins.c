/* What holds for every twin: watched, it reports itself once and under its name; counted, it
 * touches no memory; what its contract forbids ends the process; it takes the workspace that it
 * says, and stays in it. Prices themselves: test_bench.c. */
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"
#include "kernels/op_scope.h"
#include "tests/test.h"

/* ---------------------------------------------------------------------- a call of every op -- */

enum { TENSORS = 9, ROOM = 1024 };

/* Tensors of zeros, which are also indices; one document of one row; a sequence of one token. */
typedef struct Tensors {
    char *p[TENSORS];
    Segment *seg;
    const int32_t *len;
    Span *span;
} Tensors;

static const Segment one_row = {.len = 1};
static const AttnShape shape = {.H = 2, .K = 1, .E = 8, .scale = 1};
static const AttnShape no_shape = {.H = 3, .K = 2, .E = 8, .scale = 1};
static const Span all = {.at = 0, .n = 8};

static SaeEncoder sae(const Tensors *t, int topk) {
    return (SaeEncoder){.w = (float *)t->p[7],
                        .b = (float *)t->p[8],
                        .D = 8,
                        .S = 16,
                        .act = SAE_TOPK,
                        .topk = topk};
}

#define P(i) ((void *)t->p[i])

/* call_<op>: as the contract wants it. break_<op>: with an argument that it forbids. */
#define CALL(name, ...)                                   \
    static void call_##name(Exec *ex, const Tensors *t) { \
        (void)t;                                          \
        ex->op->name(ex, __VA_ARGS__);                    \
    }
#define BREAK(name, ...)                                   \
    static void break_##name(Exec *ex, const Tensors *t) { \
        (void)t;                                           \
        ex->op->name(ex, __VA_ARGS__);                     \
    }
#define ALLOWS_ALL(op) static void (*const break_##op)(Exec *, const Tensors *) = NULL;

/* clang-format off */
CALL(embed_fwd, P(0), P(1), P(2), 1, 8, 4, 1)   BREAK(embed_fwd, P(0), P(1), P(2), 1, 8, 0, 1)
CALL(embed_bwd, P(0), P(1), P(2), P(3), 1, 8, 4, 1)
BREAK(embed_bwd, P(0), P(1), P(2), P(3), 1, 8, 0, 1)
CALL(gather_rows, P(0), P(1), P(2), 1, 8)       BREAK(gather_rows, P(0), P(1), P(2), -1, 8)
CALL(scatter_rows, P(0), P(1), P(2), 1, 8)      BREAK(scatter_rows, P(0), P(1), P(2), 1, 0)
CALL(rmsnorm_fwd, P(0), P(1), P(2), P(3), 1, 8, 1)
BREAK(rmsnorm_fwd, P(0), P(1), P(2), P(3), 1, 8, 0)
CALL(rmsnorm_bwd, P(0), P(1), P(2), P(3), P(4), 1, 8)
BREAK(rmsnorm_bwd, P(0), P(1), P(2), P(3), P(4), 1, 8193)
CALL(rmsnorm_grad, P(0), P(1), P(2), P(3), 1, 8)
BREAK(rmsnorm_grad, P(0), P(1), P(2), P(3), 1, 8193)
CALL(residual_norm_fwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), 1, 8, 1)
BREAK(residual_norm_fwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), 1, 8, 0)
CALL(residual_norm_bwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), 1, 8)
BREAK(residual_norm_bwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), -1, 8)
CALL(rope_table, P(0), P(1), 4, 8, 1e4)         BREAK(rope_table, P(0), P(1), 4, 7, 1e4)
CALL(rope_fwd, P(0), P(1), P(2), P(3), 1, 1, 8) BREAK(rope_fwd, P(0), P(1), P(2), P(3), 1, 0, 8)
CALL(rope_bwd, P(0), P(1), P(2), P(3), 1, 1, 8) BREAK(rope_bwd, P(0), P(1), P(2), P(3), 1, 1, 7)
CALL(attn_fwd, P(0), P(1), P(2), P(3), P(4), t->seg, &one_row, 1, 1, shape)
BREAK(attn_fwd, P(0), P(1), P(2), P(3), P(4), t->seg, &one_row, 1, 2, shape)
CALL(attn_bwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), t->seg, &one_row, 1, 1, shape)
BREAK(attn_bwd, P(0), P(1), P(2), P(3), P(4), P(5), P(6), P(7), P(8), t->seg, &one_row, 1, 1,
      no_shape)
CALL(kv_put, P(0), P(1), P(2), P(3), P(4), P(5), 1, 4, 8)
BREAK(kv_put, P(0), P(1), P(2), P(3), P(4), P(5), 1, 0, 8)
CALL(attn_decode, P(0), P(1), P(2), P(3), P(4), t->len, 1, 4, shape)
BREAK(attn_decode, P(0), P(1), P(2), P(3), P(4), t->len, 1, 4, no_shape)
CALL(geglu_fwd, P(0), P(1), P(2), 8)            ALLOWS_ALL(geglu_fwd)
CALL(geglu_bwd, P(0), P(1), P(2), P(3), P(4), 8) ALLOWS_ALL(geglu_bwd)
CALL(gemm, P(0), 8, P(1), 8, P(2), 8, 1, 8, 8, GEMM_NT, 1, 0)
BREAK(gemm, P(0), 8, P(1), 8, P(2), 7, 1, 8, 8, GEMM_NT, 1, 0)
CALL(gemm_f32, P(0), 8, P(1), 8, P(2), 8, 1, 8, 8, GEMM_NT_FEW, 1, 0)
BREAK(gemm_f32, P(0), 8, P(1), 8, P(2), 8, 1, 8, 8, GEMM_NN, 1, 2)
CALL(gemm_grad, P(0), P(1), 8, P(2), 8, 1, 8, 8, 1)
BREAK(gemm_grad, P(0), P(1), 7, P(2), 8, 1, 8, 8, 1)
CALL(xent, P(0), P(1), P(2), P(3), P(4), 1, 8, 30)
BREAK(xent, P(0), P(1), P(2), P(3), P(4), 1, 8, -30)
CALL(logit_facts, P(0), P(1), P(2), P(3), P(4), 1, 8, 30)
BREAK(logit_facts, P(0), P(1), P(2), P(3), P(4), 1, 0, 30)
CALL(sample, P(0), P(1), P(2), 1, 8, 30, (Sampling){1, 1, 0})
BREAK(sample, P(0), P(1), NULL, 1, 8, 30, (Sampling){1, 1, 0})
CALL(cast, P(0), P(1), 8)                       ALLOWS_ALL(cast)
CALL(uncast, P(0), P(1), 8)                     ALLOWS_ALL(uncast)
CALL(add, P(0), P(1), 8, 1)                     ALLOWS_ALL(add)
CALL(sumsq, P(0), P(1), t->span, 1, 8)          ALLOWS_ALL(sumsq)
CALL(adamw, P(0), P(1), P(2), P(3), 8, 1, (AdamW){.eps = 1, .step = 1})
BREAK(adamw, P(0), P(1), P(2), P(3), 8, 1, (AdamW){.eps = 1, .step = 0})
CALL(split, P(0), P(1), P(2), 8)                ALLOWS_ALL(split)
CALL(join, P(0), P(1), P(2), 8)                 ALLOWS_ALL(join)
CALL(adamw_split, P(0), P(1), P(2), P(3), P(4), 8, 1, (AdamW){.eps = 1, .step = 1})
BREAK(adamw_split, P(0), P(1), P(2), P(3), P(4), 8, 1, (AdamW){.eps = 1, .step = 0})
CALL(project_out, P(0), P(1), P(2), 8, 2, 3)    BREAK(project_out, P(0), P(1), P(2), 8, 2, 9)
CALL(find_bad, P(0), P(1), 8)                   ALLOWS_ALL(find_bad)
CALL(find_bad_f32, P(0), P(1), 8)               ALLOWS_ALL(find_bad_f32)
CALL(sae_encode, P(0), P(1), sae(t, 3), 1)      BREAK(sae_encode, P(0), P(1), sae(t, 17), 1)
CALL(sae_stats, P(0), P(1), P(2), P(3), P(4), P(5), P(6), sae(t, 3), 1, 1)
BREAK(sae_stats, P(0), P(1), P(2), P(3), P(4), P(5), P(6), sae(t, 3), 1, 0)
CALL(top_k, P(0), P(1), 8, 2)                   BREAK(top_k, P(0), P(1), 8, 9)
CALL(svd, P(0), P(1), P(2), P(3), 3, 2)         BREAK(svd, P(0), P(1), P(2), P(3), 0, 2)
CALL(qr, P(0), 3, 2)                            BREAK(qr, P(0), 2, 3)

/* need_<op>: what it says of its workspace for that very call. */
#define NEED(name, how, ...)                                \
    static size_t need_##name(Exec *ex, const Tensors *t) { \
        (void)t;                                            \
        return ex->op->how(ex, __VA_ARGS__);                \
    }
NEED(rmsnorm_grad, rmsnorm_grad_scratch, 1, 8)
NEED(rope_table, rope_table_scratch, 8)
NEED(attn_fwd, attn_fwd_scratch, 1, 1, shape)
NEED(attn_bwd, attn_bwd_scratch, 1, 1, shape)
NEED(attn_decode, attn_decode_scratch, 1, 4, shape)
NEED(gemm, gemm_scratch, 1, 8, GEMM_NT)
NEED(gemm_f32, gemm_scratch, 1, 8, GEMM_NT_FEW)
NEED(gemm_grad, gemm_grad_scratch, 1, 8, 8)
NEED(xent, xent_scratch, 1, 8)
NEED(sample, sample_scratch, 1, 8, (Sampling){1, 1, 0})
NEED(top_k, top_k_scratch, 8)
NEED(project_out, project_out_scratch, 2, 3)
NEED(svd, svd_scratch, 3, 2)
NEED(qr, qr_scratch, 3, 2)
static size_t need_sae_encode(Exec *ex, const Tensors *t) {
    SaeEncoder e = sae(t, 3);
    return ex->op->sae_encode_scratch(ex, &e, 1);
}
static size_t need_sae_stats(Exec *ex, const Tensors *t) {
    SaeEncoder e = sae(t, 3);
    return ex->op->sae_stats_scratch(ex, &e, 1);
}

static const struct Need {
    const char *op;
    void (*call)(Exec *ex, const Tensors *t);
    size_t (*bytes)(Exec *ex, const Tensors *t);
} needs[] = {
#define X(name) {#name, call_##name, need_##name},
    X(rmsnorm_grad) X(rope_table) X(attn_fwd) X(attn_bwd) X(attn_decode) X(gemm) X(gemm_f32)
        X(gemm_grad) X(xent) X(sample) X(project_out) X(sae_encode) X(sae_stats) X(top_k)
            X(svd) X(qr)
#undef X
};
enum { NEEDS = sizeof needs / sizeof *needs };
#define X(name) +1
_Static_assert(NEEDS == 1 SAILS_SCRATCHES(X), "all of the table, and gemm_f32 by gemm's");
#undef X

static const struct Case {
    const char *op;
    void (*call)(Exec *ex, const Tensors *t);
    void (*break_it)(Exec *ex, const Tensors *t); /* NULL: there is nothing to break */
} cases[] = {
#define X(op) {#op, call_##op, break_##op},
    SAILS_OPS(X)
#undef X
};
enum { CASES = sizeof cases / sizeof *cases };

/* clang-format on */

/* --------------------------------------------------------------------------------- memory -- */

static void *device_copy(Exec *ex, const void *host, size_t bytes) {
    void *p = test_alloc(ex, bytes);
    exec_copy_in(ex, p, host, bytes);
    return p;
}

static void clear(Exec *ex, const Tensors *t) {
    for (int i = 0; i < TENSORS; i++) exec_zero(ex, t->p[i], ROOM);
}

static Tensors tensors(Exec *ex) {
    const int32_t len = 1;
    Tensors t;
    for (int i = 0; i < TENSORS; i++) t.p[i] = test_alloc(ex, ROOM);
    clear(ex, &t);
    t.seg = device_copy(ex, &one_row, sizeof one_row);
    t.len = device_copy(ex, &len, sizeof len);
    t.span = device_copy(ex, &all, sizeof all);
    return t;
}

static void tensors_free(Exec *ex, Tensors *t) {
    for (int i = 0; i < TENSORS; i++) test_free(ex, t->p[i]);
    test_free(ex, t->seg), test_free(ex, (void *)t->len), test_free(ex, t->span);
}

/* Addresses that nobody can follow; lengths, which a price depends on, are real. */
static Tensors wild(const Tensors *real) {
    Tensors t = *real;
    for (int i = 0; i < TENSORS; i++) t.p[i] = (char *)(uintptr_t)(64 * (i + 1));
    t.seg = (Segment *)64, t.span = (Span *)64;
    return t;
}

/* ---------------------------------------------------------------------------------- tests -- */

typedef struct Seen {
    OpCall last;
    int calls;
} Seen;

static void see(void *context, const OpCall *call) {
    Seen *s = context;
    s->last = *call;
    s->calls++;
}

static void expect_once(const Exec *ex, const Seen *s, const char *op) {
    const OpCall *c = &s->last;
    EXPECT(s->calls == 1, "%s: %s was reported %d times", ex->op->name, op, s->calls);
    EXPECT(strcmp(c->op, op) == 0, "%s: %s calls itself %s", ex->op->name, op, c->op);
    EXPECT(c->bytes > 0 && c->flops >= 0 && c->seconds >= 0 && c->seconds < 60, "%s: %s", op,
           c->shape);
    EXPECT(c->shape[0] && !strchr(c->shape, ','), "%s: shape '%s'", op, c->shape);
}

/* Watched and only counted: the same call at the same price. */
static void test_each_op(Exec *ex) {
    Tensors t = tensors(ex), nowhere = wild(&t);
    for (const struct Case *c = cases; c < cases + CASES; c++) {
        Seen counted = {.calls = 0}, watched = {.calls = 0};
        const void *scratch = ex->scratch;
        exec_count(ex, see, &counted);
        c->call(ex, &nowhere);
        EXPECT(ex->scratch == scratch, "%s: %s only counted, and took scratch", ex->op->name,
               c->op);
        clear(ex, &t); /* the last op may have left what is no index */
        exec_watch(ex, see, &watched);
        c->call(ex, &t);
        exec_watch_end(ex);
        expect_once(ex, &counted, c->op);
        expect_once(ex, &watched, c->op);
        EXPECT(counted.last.bytes == watched.last.bytes &&
                   counted.last.flops == watched.last.flops &&
                   counted.last.unit == watched.last.unit &&
                   strcmp(counted.last.shape, watched.last.shape) == 0,
               "%s: another price when only counted", c->op);
        clear(ex, &t);
        c->call(ex, &t);
        EXPECT(watched.calls == 1, "%s: reported after the end", c->op);
    }
    tensors_free(ex, &t);
}

/* Only counted: where nothing dies, the child is not to wait for threads that fork did not copy. */
static void test_broken(Exec *ex) {
    Tensors t = tensors(ex);
    Seen s = {.calls = 0};
    exec_count(ex, see, &s);
    for (const struct Case *c = cases; c < cases + CASES; c++)
        if (c->break_it) TEST_DIES(ex, c->break_it(ex, &t));
    exec_watch_end(ex);
    tensors_free(ex, &t);
}

/* An op may call others, which are part of it. */
static void contract_outer(OpScope *s, int n) {
    OP_COST(s, n * size, 0, UNIT_VECTOR, "%d", n);
}
static void outer(Exec *ex, const Tensors *t) {
    OP_SCOPE(ex, outer, 3);
    call_cast(ex, t);
    call_uncast(ex, t);
}

static void test_nested(Exec *ex) {
    Tensors t = tensors(ex);
    Seen s = {.calls = 0};
    exec_watch(ex, see, &s);
    outer(ex, &t);
    expect_once(ex, &s, "outer");
    call_cast(ex, &t);
    EXPECT(s.calls == 2 && strcmp(s.last.op, "cast") == 0, "%d calls, the last of %s", s.calls,
           s.last.op);
    exec_watch_end(ex);
    tensors_free(ex, &t);
}

enum { GUARD = 64 };

/* From now on the Exec has exactly so much workspace, and a guard behind it. */
static const char *give_scratch(Exec *ex, size_t bytes) {
    char guard[GUARD];
    memset(guard, 0x5a, GUARD);
    exec_free(ex, ex->scratch);
    ex->scratch = exec_alloc(ex, bytes + GUARD, "scratch");
    ex->scratch_bytes = bytes;
    exec_copy_in(ex, (char *)ex->scratch + bytes, guard, GUARD);
    return ex->scratch;
}

static void test_scratch(Exec *ex) {
    Tensors t = tensors(ex);
    for (const struct Need *n = needs; n < needs + NEEDS; n++) {
        char guard[GUARD];
        int changed = 0;
        size_t bytes = n->bytes(ex, &t);
        const char *given = give_scratch(ex, bytes);
        clear(ex, &t);
        n->call(ex, &t);
        EXPECT(ex->scratch == given, "%s: %s wants more than %zu bytes", ex->op->name, n->op,
               bytes);
        exec_copy_out(ex, guard, (char *)ex->scratch + bytes, GUARD);
        for (int i = 0; i < GUARD; i++) changed += guard[i] != 0x5a;
        EXPECT(changed == 0, "%s: %s wrote behind its workspace", ex->op->name, n->op);
        if (bytes == 0) continue;
        give_scratch(ex, bytes - 1);
        clear(ex, &t);
        n->call(ex, &t);
        EXPECT(ex->scratch_bytes >= bytes, "%s: %s takes less than %zu bytes", ex->op->name, n->op,
               bytes);
    }
    tensors_free(ex, &t);
}

static void body(Exec *ex) {
    test_each_op(ex);
    test_broken(ex);
    test_nested(ex);
    test_scratch(ex);
}

int main(void) {
    test_each_exec(body);
    return test_done("twins");
}
