/* fragment_layouts.cc - prints where each lane's registers lie in the matrices of mma and ldmatrix,
 * as CUTLASS's traits have it. Compiled and run by tools/make_golden_fragments.sh.
 *
 * A line is: fragment, lane, then "row,column" of each element in register order. For ldmatrix the
 * row is the lane that supplies the address, the column the element behind it. */
#include <cstdio>

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>

using namespace cute;

/* A CuTe layout gives each (lane, value) a column-major index into a matrix of `rows` rows. */
template <class Layout>
static void print_operand(const char *name, Layout layout, int rows) {
    for (int lane = 0; lane < size<0>(layout); lane++) {
        std::printf("%s %d", name, lane);
        for (int v = 0; v < size<1>(layout); v++) {
            int at = int(layout(lane, v));
            std::printf(" %d,%d", at % rows, at / rows);
        }
        std::puts("");
    }
}

template <class Atom>
static void print_product(const char *a, const char *b, const char *d) {
    using Traits = MMA_Traits<Atom>;
    print_operand(a, typename Traits::ALayout{}, 16);
    print_operand(b, typename Traits::BLayout{}, 8); /* stored (n, k): printed as column, row */
    print_operand(d, typename Traits::CLayout{}, 16);
}

/* Source and destination layouts name bits; equal numbers are the same bit. */
template <class Atom>
static void print_load(const char *name) {
    using Traits = Copy_Traits<Atom>;
    enum { ELEMENT = 16 };
    typename Traits::SrcLayout source;
    typename Traits::DstLayout destination;
    for (int lane = 0; lane < 32; lane++) {
        std::printf("%s %d", name, lane);
        for (int v = 0; v < size<1>(destination); v += ELEMENT)
            for (int from = 0; from < 32; from++)
                for (int e = 0; e < size<1>(source); e += ELEMENT)
                    if (source(from, e) == destination(lane, v)) {
                        std::printf(" %d,%d", from, e / ELEMENT);
                        from = 32; /* several lanes may name one row: the first counts */
                        break;
                    }
        std::puts("");
    }
}

int main() {
    print_product<SM80_16x8x16_F32BF16BF16F32_TN>("bf16_a", "bf16_b", "bf16_d");
    print_product<SM80_16x8x8_F32TF32TF32F32_TN>("tf32_a", "tf32_b", "tf32_d");
    print_load<SM75_U32x2_LDSM_N>("x2");
    print_load<SM75_U32x4_LDSM_N>("x4");
    print_load<SM75_U16x4_LDSM_T>("x2_trans");
    print_load<SM75_U16x8_LDSM_T>("x4_trans");
}
