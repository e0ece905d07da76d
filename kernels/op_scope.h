/* op_scope.h - how every twin begins: its contract is checked and, where somebody watches, the call
 * is priced, timed and reported when the twin returns.
 *
 * A twin names what its contract wants to know (contracts.h):
 *   OP_BEGIN(ex, gemm, ldc, lda, ldb, M, N, K, form, beta);
 * On a CPU twin.h adds the gate to strict memory. Unwatched, all this costs the checks and the test
 * of a pointer. */
#ifndef SAILS_OP_SCOPE_H
#define SAILS_OP_SCOPE_H

#include "kernels/exec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A call of an op. While nobody watches nothing is set behind `watched`. */
typedef struct OpScope {
    Exec *ex;
    const char *op;
    bool watched;
    OpCall call;
    double start;
} OpScope;

static inline void op_open(OpScope *s, Exec *ex, const char *op) {
    s->ex = ex;
    s->op = op;
    s->watched = ex->watch.sink && !ex->watch.inside;
}

/* For a watched call alone. `shape`: a format as printf's. */
__attribute__((format(printf, 5, 6))) void op_price(OpScope *s, double bytes, double flops,
                                                    enum OpUnit unit, const char *shape, ...);
bool op_start_watched(OpScope *s);
void op_report(OpScope *s);

/* Is the work to be done? */
static inline bool op_start(OpScope *s) {
    return !s->watched || op_start_watched(s);
}
__attribute__((unused)) static inline void op_close(OpScope *s) {
    if (s->watched) op_report(s);
}

/* A call's cost, worked out only where somebody watches. It may use `size`, of a storage element;
 * what follows the unit is the shape. */
#define OP_COST(s, bytes, flops, unit, ...)                         \
    do {                                                            \
        if ((s)->watched) {                                         \
            const double size = (double)dtype_size((s)->ex->dtype); \
            (void)size;                                             \
            op_price(s, bytes, flops, unit, __VA_ARGS__);           \
        }                                                           \
    } while (0)

/* Opens the scope: what contract_<op> forbids dies here, and a call that is only counted returns.
 */
#define OP_SCOPE(ex, op, ...)                             \
    __attribute__((cleanup(op_close))) OpScope op_scope_; \
    op_open(&op_scope_, ex, #op);                         \
    contract_##op(&op_scope_, __VA_ARGS__);               \
    if (!op_start(&op_scope_)) return

double op_clock(void); /* seconds, monotonic */

#ifdef __cplusplus
}
#endif
#endif
