/* tile_amx.h - gemm_kernel.h's tile by AMX: 32 rows by PANEL columns, in blocks of two by two of
 * the processor's own tiles of 16 rows of 64 bytes.
 *
 * An instruction multiplies 16 rows by 16 columns over 16 units: for each element of C the products
 * of the pairs' first halves form one chain of fused multiply-adds in order of k, those of the
 * second halves another, both from zero; their sum is added to C. All of it rounds to nearest and
 * takes denormal numbers for zero. So the bits of an element depend on k alone, not on how rows and
 * columns are cut; a run begins at a multiple of 16 units, and its last step is completed with
 * zeros. tests/test_amx.c repeats it in plain C. */
#ifndef SAILS_TILE_AMX_H
#define SAILS_TILE_AMX_H

enum {
    AMX_ROWS = 16, /* of a tile of the processor's; a right operand's has as many columns */
    AMX_UNITS = 16,
    AMX_DEEP = AMX_UNITS * UNIT,     /* elements of K in a tile */
    AMX_TILE = AMX_ROWS * AMX_UNITS, /* units in one: a KB */
    TILE_ROWS = 2 * AMX_ROWS,        /* of a block of two by two */
    TILE_COLS = 2 * AMX_ROWS,
    AMX_AHEAD = 4 /* steps: so far ahead memory is asked for an operand that no cache has */
};

/* Steps that K elements take. */
static inline int amx_steps(int K) {
    return (K + AMX_DEEP - 1) / AMX_DEEP;
}

/* The tiles' numbers, which instructions hold: sums, the left operand's and the right one's. */
#define SUM_00 0
#define SUM_01 1
#define SUM_10 2
#define SUM_11 3
#define LEFT_0 4
#define LEFT_1 5
#define RIGHT_0 6
#define RIGHT_1 7

/* The intrinsics do not tell gcc that they read memory: what they read must have been written. */
static inline void amx_memory(void) {
    __asm__ volatile("" ::: "memory");
}

/* Shapes of all tiles, as the processor reads them. */
typedef struct AmxShapes {
    uint8_t palette, start, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} AmxShapes;

/* The rows of the two blocks that this thread's tiles now have, 16 n + m; 0: none yet. Giving them
 * takes 80 ns, a fifth of the time of a run, and is needed at a matrix's lower edge alone. So no
 * library may use or release tiles on our threads: none that we link does. */
extern _Thread_local int amx_now __attribute__((tls_model("local-exec")));

/* Tiles for n rows in the first block, m in the second. */
static inline void amx_shape(int n, int m) {
    if (amx_now == 16 * n + m) return;
    amx_now = 16 * n + m;
    uint8_t a = (uint8_t)n, b = (uint8_t)m;
    AmxShapes s = {.palette = 1,
                   .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                   .rows = {a, a, b, b, a, b, AMX_UNITS, AMX_UNITS}};
    __asm__ volatile("" : : "r"(&s) : "memory"); /* all of it: see amx_memory */
    _tile_loadconfig(&s);
}

/* Of one step of a block of `rows` by `cols` tiles, both constants where this is inlined: the left
 * tiles are taken up, and then multiplied by right ones. `bytes` lie between the rows of a tile in
 * memory. */
static inline __attribute__((always_inline)) void amx_left(const void *left, const void *below,
                                                           size_t bytes, const int rows) {
    _tile_loadd(LEFT_0, left, bytes);
    if (rows == 2) _tile_loadd(LEFT_1, below, bytes);
}
static inline __attribute__((always_inline)) void amx_times(const unit *right, const unit *beside,
                                                            size_t bytes, const int rows,
                                                            const int cols) {
    _tile_loadd(RIGHT_0, right, bytes);
    _tile_dpbf16ps(SUM_00, LEFT_0, RIGHT_0);
    if (rows == 2) _tile_dpbf16ps(SUM_10, LEFT_1, RIGHT_0);
    if (cols == 2) {
        _tile_loadd(RIGHT_1, beside, bytes);
        _tile_dpbf16ps(SUM_01, LEFT_0, RIGHT_1);
        if (rows == 2) _tile_dpbf16ps(SUM_11, LEFT_1, RIGHT_1);
    }
}

/* The sums of a block, `bytes` from row to row: taken up, and put down. */
static inline __attribute__((always_inline)) void sums_begin(const float *c, const float *below,
                                                             size_t bytes, enum TileOut out,
                                                             const int rows, const int cols) {
    amx_memory();
    if (out == TILE_ADD) {
        _tile_loadd(SUM_00, c, bytes);
        if (cols == 2) _tile_loadd(SUM_01, c + AMX_ROWS, bytes);
        if (rows == 2) _tile_loadd(SUM_10, below, bytes);
        if (rows == 2 && cols == 2) _tile_loadd(SUM_11, below + AMX_ROWS, bytes);
        return;
    }
    _tile_zero(SUM_00);
    if (cols == 2) _tile_zero(SUM_01);
    if (rows == 2) _tile_zero(SUM_10);
    if (rows == 2 && cols == 2) _tile_zero(SUM_11);
}
static inline __attribute__((always_inline)) void sums_end(float *c, float *below, size_t bytes,
                                                           const int rows, const int cols) {
    _tile_stored(SUM_00, c, bytes);
    if (cols == 2) _tile_stored(SUM_01, c + AMX_ROWS, bytes);
    if (rows == 2) _tile_stored(SUM_10, below, bytes);
    if (rows == 2 && cols == 2) _tile_stored(SUM_11, below + AMX_ROWS, bytes);
}

/* Asks the memory for a line of each of n rows, `step` apart. */
static inline __attribute__((always_inline)) void amx_ask(const cell *p, size_t step, const int n) {
    TILE_UNROLL
    for (int r = 0; r < n; r++) __builtin_prefetch(p + r * step);
}

/* What is needed after a run, packed: for each step of it some lines are asked for. */
typedef struct AmxNext {
    const char *p;
    int lines;
} AmxNext;

/* A block over `steps` steps of operands that are packed as tiles, each a KB in one piece: for each
 * step two tiles of the left one, and `parts` pairs of the right one, by which they are multiplied
 * in turn. c: rows `stride` floats apart. */
static inline __attribute__((always_inline)) void amx_packed_run(
    float *c, size_t stride, const unit *left, const unit *right, int steps, enum TileOut out,
    AmxNext next, const int parts, const int rows, const int cols) {
    enum { ROW_BYTES = AMX_UNITS * sizeof(unit) };
    float *below = c + AMX_ROWS * stride;
    sums_begin(c, below, stride * sizeof *c, out, rows, cols);
    for (int k = 0; k < steps; k++, left += 2 * AMX_TILE) {
        for (int i = 0; i < next.lines; i++, next.p += 64) __builtin_prefetch(next.p, 0, 2);
        amx_left(left, left + AMX_TILE, ROW_BYTES, rows);
        for (int p = 0; p < parts; p++, right += 2 * AMX_TILE)
            amx_times(right, right + AMX_TILE, ROW_BYTES, rows, cols);
    }
    sums_end(c, below, stride * sizeof *c, rows, cols);
}

/* The last units of each row, completed with zeros: what follows them is another row's. */
typedef struct AmxEnd {
    _Alignas(64) cell row[TILE_ROWS][AMX_UNITS * UNIT];
} AmxEnd;

static inline void amx_end(AmxEnd *end, Left a, int at, int depth, int rows) {
    if (at == depth) return;
    memset(end, 0, sizeof *end);
    for (int r = 0; r < rows; r++)
        memcpy(end->row[r], a.p + r * a.row_step + at * UNIT,
               (size_t)(depth - at) * UNIT * sizeof(cell));
}

/* Where the rows of a left operand are. Of streamed ones the steps ahead are asked for, at their
 * end the first ones of the rows below: each row is too short a stream to be foreseen. */
enum LeftRows { LEFT_CACHED, LEFT_STREAMED };

/* `rows` and `cols` of blocks, and `from`, are constants where this is inlined. */
static inline __attribute__((always_inline)) void amx_run(float *c, Left a, const unit *panel,
                                                          int depth, const AmxEnd *end,
                                                          enum TileOut out, enum LeftRows from,
                                                          const int rows, const int cols) {
    enum { STRIDE = PANEL * sizeof(float), AHEAD = AMX_AHEAD * AMX_UNITS };
    const size_t step = a.row_step * sizeof *a.p, end_step = sizeof end->row[0];
    const cell *below_a = a.p + (size_t)rows * AMX_ROWS * a.row_step;
    float *below = c + AMX_ROWS * PANEL;
    int k = 0;
    sums_begin(c, below, STRIDE, out, rows, cols);
    for (; k + AMX_UNITS <= depth;
         k += AMX_UNITS, panel += AMX_UNITS * PANEL, a.p += AMX_UNITS * UNIT) {
        if (from == LEFT_STREAMED)
            amx_ask(k + AHEAD < depth ? a.p + AHEAD * UNIT : below_a + (k + AHEAD - depth) * UNIT,
                    a.row_step, rows * AMX_ROWS);
        amx_left(a.p, a.p + AMX_ROWS * a.row_step, step, rows);
        amx_times(panel, panel + TILE_VEC, STRIDE, rows, cols);
    }
    if (k < depth) {
        amx_left(end->row[0], end->row[AMX_ROWS], end_step, rows);
        amx_times(panel, panel + TILE_VEC, STRIDE, rows, cols);
    }
    sums_end(c, below, STRIDE, rows, cols);
}

/* tile_rows of gemm_kernel.h; here k_step is UNIT, and the panel is completed with zeros to whole
 * steps. */
static inline int amx_rows(float *c, Left a, const unit *panel, int depth, enum TileOut out,
                           enum LeftRows from, int rows, int vecs) {
    AmxEnd end;
    if (rows > TILE_ROWS) rows = TILE_ROWS;
    amx_end(&end, a, depth / AMX_UNITS * AMX_UNITS, depth, rows);
    bool two = rows > AMX_ROWS;
    if (two)
        amx_shape(AMX_ROWS, rows - AMX_ROWS);
    else
        amx_shape(rows, rows);
    for (int v = 0; v < vecs; v += 2, c += 2 * TILE_VEC, panel += 2 * TILE_VEC)
        if (two && v + 1 < vecs)
            amx_run(c, a, panel, depth, &end, out, from, 2, 2);
        else if (two)
            amx_run(c, a, panel, depth, &end, out, from, 2, 1);
        else if (v + 1 < vecs)
            amx_run(c, a, panel, depth, &end, out, from, 1, 2);
        else
            amx_run(c, a, panel, depth, &end, out, from, 1, 1);
    return rows;
}

/* What is needed soon is not asked for here: tiles wait for the first cache, not for memory. */
static inline int tile_rows(float *c, Left a, const unit *panel, int depth, enum TileOut out,
                            Soon soon, int rows, int vecs) {
    (void)soon;
    return amx_rows(c, a, panel, depth, out, LEFT_CACHED, rows, vecs);
}

#endif
