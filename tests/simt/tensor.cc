/* tensor.cc - what a warp does together with its registers: products on tensor cores, and reading
 * matrices from shared memory. Layouts: kernels/ptx.h; tests/simt/test_fragments.cc compares them
 * with the PTX ISA's and CUTLASS's. Sums run over k in order, in f32. */
#include <string.h>

#include "tests/simt/simt.h"

namespace simt {

enum : unsigned { ALL_LANES = 0xffffffff };
enum { M_ROWS = 16, N_COLS = 8, MAX_K = 16 };

namespace {

/* Where a lane's registers lie in the matrices. */
struct Lane {
    int g, t;
    explicit Lane(int lane) : g(lane / 4), t(lane % 4) {}
    int row(int r) const {
        return g + 8 * (r % 2);
    } /* of register r of A */
};

typedef float Row __attribute__((vector_size(sizeof(float) * N_COLS)));

float f32_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* An operand that was not rounded to tf32 first. NaN may have any bits. */
void check_tf32(uint32_t bits, int lane) {
    if (bits & 0x1fffu && (bits & 0x7fffffffu) <= 0x7f800000u)
        fail("mma_tf32: lane %d gives %08x, which tf32_round has not rounded", lane, bits);
}

void unpack_a(MmaType type, const MmaTile *const lanes[WARP_SIZE], int i, float a[M_ROWS][MAX_K]) {
    for (int lane = 0; lane < WARP_SIZE; lane++) {
        Lane l(lane);
        for (int r = 0; r < 4; r++) {
            uint32_t bits = lanes[lane]->a[4 * i + r];
            if (type == MMA_BF16) {
                float *pair = &a[l.row(r)][2 * l.t + r / 2 * 8];
                pair[0] = f32_of(bits << 16), pair[1] = f32_of(bits & 0xffff0000u);
            } else {
                check_tf32(bits, lane);
                a[l.row(r)][l.t + r / 2 * 4] = f32_of(bits);
            }
        }
    }
}

void unpack_b(MmaType type, const MmaTile *const lanes[WARP_SIZE], int j, Row b[MAX_K]) {
    for (int lane = 0; lane < WARP_SIZE; lane++) {
        Lane l(lane);
        for (int r = 0; r < 2; r++) {
            uint32_t bits = lanes[lane]->b[2 * j + r];
            if (type == MMA_BF16) {
                b[2 * l.t + 8 * r][l.g] = f32_of(bits << 16);
                b[2 * l.t + 8 * r + 1][l.g] = f32_of(bits & 0xffff0000u);
            } else {
                check_tf32(bits, lane);
                b[l.t + 4 * r][l.g] = f32_of(bits);
            }
        }
    }
}

void multiply(MmaType type, const float a[M_ROWS][MAX_K], const Row b[MAX_K], Row d[M_ROWS]) {
    int depth = type == MMA_BF16 ? 16 : 8;
    for (int row = 0; row < M_ROWS; row++)
        for (int k = 0; k < depth; k++) d[row] += a[row][k] * b[k];
}

/* One product: D is taken from the lanes' registers and put back. */
void accumulate(MmaType type, const MmaTile *const lanes[WARP_SIZE], int at,
                const float a[M_ROWS][MAX_K], const Row b[MAX_K]) {
    Row d[M_ROWS];
    for (int lane = 0; lane < WARP_SIZE; lane++) {
        Lane l(lane);
        const float *mine = lanes[lane]->d + 4 * at;
        for (int r = 0; r < 4; r++) d[l.g + r / 2 * 8][2 * l.t + r % 2] = mine[r];
    }
    multiply(type, a, b, d);
    for (int lane = 0; lane < WARP_SIZE; lane++) {
        Lane l(lane);
        float *mine = lanes[lane]->d + 4 * at;
        for (int r = 0; r < 4; r++) mine[r] = d[l.g + r / 2 * 8][2 * l.t + r % 2];
    }
}

enum { MAX_TILES = 64 };

template <MmaType TYPE>
void mma_all(void *const given[WARP_SIZE], unsigned) {
    MmaTile *const *lanes = (MmaTile *const *)given;
    int M = lanes[0]->M, N = lanes[0]->N;
    static float a[M_ROWS][MAX_K]; /* off the small stack of a fiber */
    static Row b[MAX_TILES][MAX_K];
    for (int j = 0; j < N; j++) unpack_b(TYPE, lanes, j, b[j]);
    for (int i = 0; i < M; i++) {
        unpack_a(TYPE, lanes, i, a);
        for (int j = 0; j < N; j++) accumulate(TYPE, lanes, i * N + j, a, b[j]);
    }
}

struct Load {
    uint16_t row[8]; /* what lies at the lane's address */
    uint32_t *result;
};

template <int COUNT, bool TRANS>
void load_all(void *const given[WARP_SIZE], unsigned) {
    Load *const *lanes = (Load *const *)given;
    for (int i = 0; i < COUNT; i++)
        for (int lane = 0; lane < WARP_SIZE; lane++) {
            Lane l(lane);
            int row = TRANS ? 2 * l.t : l.g, col = TRANS ? l.g : 2 * l.t;
            uint32_t low = lanes[8 * i + row]->row[col];
            uint32_t high = lanes[8 * i + row + TRANS]->row[col + !TRANS];
            lanes[lane]->result[i] = low | high << 16;
        }
}

}  // namespace

void mma(MmaType type, MmaTile tile, const char *file, int line) {
    if (tile.N > MAX_TILES)
        fail("mma (%s:%d): more than %d columns of tiles", file, line, MAX_TILES);
    warp_together(type == MMA_BF16 ? "mma_bf16" : "mma_tf32", ALL_LANES,
                  type == MMA_BF16 ? mma_all<MMA_BF16> : mma_all<MMA_TF32>, &tile, file, line);
}

void ldmatrix(uint32_t *result, const void *row, int count, bool trans, const char *file,
              int line) {
    if ((uintptr_t)row % 16)
        fail("ldmatrix (%s:%d): the address %p is not a multiple of 16", file, line, row);
    if (!in_shared(row, 16)) fail("ldmatrix (%s:%d): %p is not in shared memory", file, line, row);
    Load mine;
    mine.result = result;
    memcpy(mine.row, row, sizeof mine.row); /* here, so that sanitizers blame the right thread */
    warp_together("ldmatrix", ALL_LANES,
                  count == 4 ? trans ? load_all<4, true> : load_all<4, false>
                  : trans ? load_all<2, true>
                             : load_all<2, false>,
                  &mine, file, line);
}

}  // namespace simt
