/* Where the registers of mma and ldmatrix lie in their matrices. Three sources must agree, element
 * by element: the formulas of the PTX ISA, written down here; CUTLASS's traits, in
 * tests/golden/fragments.txt (tools/make_golden_fragments.sh); and what the simulated device does.
 * Its rounding to tf32 is checked here too. */
#include <math.h>

#include <functional>
#include <map>
#include <random>

#include "kernels/ptx.h"
#include "tests/simt/cases.h"

static int failures;

static void fail_if(bool bad, const char *what, int lane, int v) {
    if (bad && failures++ < 20) printf("FAIL %s: lane %d element %d\n", what, lane, v);
}

/* ----------------------------------------------------------------------- the two tables -- */

struct Place {
    int row, col;
};
struct Layout {
    int values; /* elements a lane */
    std::function<Place(int g, int t, int v)> at;
    Place of(int lane, int v) const {
        return at(lane / 4, lane % 4, v);
    }
};

/* PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type", "... for mma.m16n8k8",
 * "ldmatrix": g is groupID, t threadID_in_group, v the index i of ai, bi, ci. B is listed as
 * (column, row), as CUTLASS stores it; for ldmatrix the row is the lane whose address it is. */
static Place accumulator(int g, int t, int v) {
    return {v < 2 ? g : g + 8, 2 * t + (v & 1)};
}
static const std::map<std::string, Layout> isa = {
    {"bf16_a",
     {8,
      [](int g, int t, int v) {
          return Place{v < 2 || (v >= 4 && v < 6) ? g : g + 8, 2 * t + (v & 1) + (v < 4 ? 0 : 8)};
      }}},
    {"bf16_b",
     {4,
      [](int g, int t, int v) {
          return Place{g, 2 * t + (v & 1) + (v < 2 ? 0 : 8)};
      }}},
    {"bf16_d", {4, accumulator}},
    {"tf32_a",
     {4,
      [](int g, int t, int v) {
          return Place{v == 0 || v == 2 ? g : g + 8, v < 2 ? t : t + 4};
      }}},
    {"tf32_b",
     {2,
      [](int g, int t, int v) {
          return Place{g, v == 0 ? t : t + 4};
      }}},
    {"tf32_d", {4, accumulator}},
    {"x2",
     {4,
      [](int g, int t, int v) {
          return Place{8 * (v / 2) + g, 2 * t + (v & 1)};
      }}},
    {"x4",
     {8,
      [](int g, int t, int v) {
          return Place{8 * (v / 2) + g, 2 * t + (v & 1)};
      }}},
    {"x2_trans",
     {4,
      [](int g, int t, int v) {
          return Place{8 * (v / 2) + 2 * t + (v & 1), g};
      }}},
    {"x4_trans",
     {8,
      [](int g, int t, int v) {
          return Place{8 * (v / 2) + 2 * t + (v & 1), g};
      }}},
};

static void compare_with_cutlass() {
    FILE *f = fopen("tests/golden/fragments.txt", "r");
    if (!f) puts("FAIL tests/golden/fragments.txt does not open"), failures++;
    char name[32];
    int lane, lines = 0;
    for (; f && fscanf(f, "%31s %d", name, &lane) == 2; lines++) {
        const Layout &l = isa.at(name);
        for (int v = 0; v < l.values; v++) {
            Place p = {-1, -1}, want = l.of(lane, v);
            bool read = fscanf(f, "%d,%d", &p.row, &p.col) == 2;
            fail_if(!read || p.row != want.row || p.col != want.col, name, lane, v);
        }
    }
    fail_if(lines != WARP * (int)isa.size(), "lines of tests/golden/fragments.txt", lines, 0);
    if (f) fclose(f);
}

/* ---------------------------------------------------------------------------- products -- */

struct Bf16 { /* how the wrappers take elements: two in a register, or one */
    enum { DEPTH = 16, PER_REGISTER = 2 };
    static uint32_t bits(float f) {
        return bf16_from_f32(f).bits;
    }
    template <int M, int N>
    static void mma(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
        mma_bf16(d, a, b);
    }
};
struct Tf32 {
    enum { DEPTH = 8, PER_REGISTER = 1 };
    static uint32_t bits(float f) {
        return tf32_round(f);
    }
    template <int M, int N>
    static void mma(float (&d)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
        mma_tf32(d, a, b);
    }
};

/* M x N products by one warp. Fragments lie in memory as the wrappers want them. */
template <class Type, int M, int N>
static __global__ void k_product(float *d, const uint32_t *a, const uint32_t *b) {
    int lane = threadIdx.x;
    uint32_t ra[M][4], rb[N][2];
    float rd[M][N][4];
    memcpy(ra, a + lane * 4 * M, sizeof ra);
    memcpy(rb, b + lane * 2 * N, sizeof rb);
    memcpy(rd, d + lane * 4 * M * N, sizeof rd);
    Type::mma(rd, ra, rb);
    memcpy(d + lane * 4 * M * N, rd, sizeof rd);
}

/* Fragments of a matrix, whose element (row, col) is value(row, col), as layout l says. */
template <class Type>
static void pack(uint32_t *regs, const Layout &l, int lane,
                 const std::function<float(int, int)> &value) {
    for (int v = 0; v < l.values; v++) {
        Place p = l.of(lane, v);
        uint32_t bits = Type::bits(value(p.row, p.col));
        uint32_t *r = &regs[v / Type::PER_REGISTER];
        *r = v % Type::PER_REGISTER ? *r | bits << 16 : bits;
    }
}

/* D = C + A B for M x N tiles: A (16 M, DEPTH), B given as (column, row), (8 N, DEPTH). */
template <class Type, int M, int N>
static void product(const char *what, const std::string &type,
                    const std::function<float(int, int)> &A,
                    const std::function<float(int, int)> &B,
                    const std::function<float(int, int)> &C) {
    const Layout &la = isa.at(type + "_a"), &lb = isa.at(type + "_b"), &ld = isa.at(type + "_d");
    std::vector<uint32_t> a(WARP * 4 * M), b(WARP * 2 * N);
    std::vector<float> d(WARP * 4 * M * N);
    for (int lane = 0; lane < WARP; lane++) {
        for (int i = 0; i < M; i++)
            pack<Type>(&a[lane * 4 * M + 4 * i], la, lane,
                       [&](int r, int c) { return A(16 * i + r, c); });
        for (int j = 0; j < N; j++)
            pack<Type>(&b[lane * 2 * N + 2 * j], lb, lane,
                       [&](int c, int r) { return B(8 * j + c, r); });
        for (int tile = 0; tile < M * N; tile++)
            for (int v = 0; v < 4; v++) {
                Place p = ld.of(lane, v);
                d[lane * 4 * M * N + 4 * tile + v] =
                    C(16 * (tile / N) + p.row, 8 * (tile % N) + p.col);
            }
    }
    float *y = device(d);
    LAUNCH((k_product<Type, M, N>), 1, WARP, 0, y, device(a), device(b));
    std::vector<float> got = host(y, d.size());
    for (int lane = 0; lane < WARP; lane++)
        for (int tile = 0; tile < M * N; tile++)
            for (int v = 0; v < 4; v++) {
                Place p = ld.of(lane, v);
                int row = 16 * (tile / N) + p.row, col = 8 * (tile % N) + p.col;
                float want = C(row, col);
                for (int k = 0; k < Type::DEPTH; k++) want += A(row, k) * B(col, k);
                fail_if(!(got[lane * 4 * M * N + 4 * tile + v] == want), what, lane, 4 * tile + v);
            }
}

/* One operand is a single one, the other tells its elements apart: each place by itself. */
template <class Type>
static void probe(const std::string &type) {
    auto number = [](int row, int k) { return (float)(row * Type::DEPTH + k + 1); }; /* <= 256 */
    auto zero = [](int, int) { return 0.0f; };
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < Type::DEPTH; k++)
            product<Type, 1, 1>(
                "A", type, [&](int r, int c) { return (float)(r == row && c == k); }, number, zero);
    for (int col = 0; col < 8; col++)
        for (int k = 0; k < Type::DEPTH; k++)
            product<Type, 1, 1>(
                "B", type, number, [&](int c, int r) { return (float)(c == col && r == k); }, zero);
    /* all at once, in tiles; small whole numbers: exact in any order */
    product<Type, 2, 3>(
        "tiles", type, [](int r, int k) { return (float)((r * 7 + k * 3) % 11 - 5); },
        [](int c, int k) { return (float)((c * 5 + k) % 13 - 6); },
        [](int r, int c) { return (float)(r * 100 + c); });
}

/* ------------------------------------------------------------------------------- loads -- */

template <int COUNT, bool TRANS>
static __global__ void k_load(uint32_t *y) {
    __shared__ __align__(16) uint16_t rows[WARP][8];
    int lane = threadIdx.x, mine = WARP - 1 - lane; /* rows need not lie in order */
    for (int i = 0; i < 8; i++) rows[mine][i] = (uint16_t)(lane * 8 + i);
    __syncwarp();
    uint32_t r[COUNT];
    ldmatrix<COUNT, TRANS>(r, rows[mine]);
    for (int i = 0; i < COUNT; i++) y[lane * COUNT + i] = r[i];
}

template <int COUNT, bool TRANS>
static void load(const char *name) {
    uint32_t *y = fresh<uint32_t>(WARP * COUNT);
    LAUNCH((k_load<COUNT, TRANS>), 1, WARP, 0, y);
    std::vector<uint32_t> got = host(y, WARP * COUNT);
    for (int lane = 0; lane < WARP; lane++)
        for (int v = 0; v < 2 * COUNT; v++) {
            Place p = isa.at(name).of(lane, v);
            uint32_t element = got[lane * COUNT + v / 2] >> 16 * (v % 2) & 0xffff;
            fail_if(element != (uint32_t)(p.row * 8 + p.col), name, lane, v);
        }
}

/* ------------------------------------------------------------------------------ rounding -- */

/* tf32_round against its definition: the nearer neighbour, ties away from zero. */
static void rounding() {
    std::mt19937 random(1);
    for (int i = 0; i < 100000; i++) {
        uint32_t bits = random() & (i % 3 ? ~0u : ~0xfffu); /* a third are ties or exact */
        float f, got;
        memcpy(&f, &bits, 4);
        if (!isfinite(f)) continue;
        uint32_t rounded = tf32_round(f);
        memcpy(&got, &rounded, 4);
        int exponent = (bits >> 23 & 255) ? (int)(bits >> 23 & 255) : 1;
        double step = ldexp(1, exponent - 127 - 10);
        double want = copysign(floor(fabs((double)f) / step + 0.5) * step, f);
        if (want > 3.4028234e38 || want < -3.4028234e38) want = copysign(INFINITY, f);
        fail_if(!((double)got == want), "tf32_round", (int)bits, 0);
    }
    uint32_t bits = tf32_round(NAN);
    float nan;
    memcpy(&nan, &bits, 4);
    fail_if(!isnan(nan), "tf32_round of NaN", 0, 0);
}

int main() {
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    compare_with_cutlass();
    probe<Bf16>("bf16");
    probe<Tf32>("tf32");
    load<2, false>("x2"), load<4, false>("x4");
    load<2, true>("x2_trans"), load<4, true>("x4_trans");
    rounding();
    printf("test_fragments: %s\n", failures ? "FAIL" : "ok");
    return failures != 0;
}
