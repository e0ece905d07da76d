/* The sum over packs: bit for bit the tree that grad_tree.h describes, written here as recursion
 * over ranges of leaves, for every number of packs up to a few levels; and not the sum in a row. */
#include "model/grad_tree.h"

#include <string.h>

#include "data/base/mem.h"
#include "tests/test.h"

enum { ELEMENTS = 37, MOST = 19 };

/* The gradient of a pack: of very different sizes, so that every order of adding has other bits,
 * and at one place -0, which a zero added for an absent leaf would turn into +0. */
static float leaf(int pack, int i) {
    if (i == 0) return -0.0f;
    float f = (float)test_noise(7, (uint64_t)(pack * ELEMENTS + i));
    return pack % 3 == 1 ? f * 0x1p20f : f; /* exact: an addition may fuse with it */
}

/* Leaves first .. first + width - 1, of which those from `packs` on are absent. */
static float node(int first, int width, int packs, int i) {
    if (width == 1) return leaf(first, i);
    float left = node(first, width / 2, packs, i);
    return first + width / 2 < packs ? left + node(first + width / 2, width / 2, packs, i) : left;
}

static float in_a_row(int packs, int i) {
    float sum = leaf(0, i);
    for (int p = 1; p < packs; p++) sum += leaf(p, i);
    return sum;
}

static void put_leaf(Params *p, int pack) {
    float g[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++) g[i] = leaf(pack, i);
    exec_copy_in(p->ex, p->param[0].grad, g, sizeof g);
}

static void test_packs(GradTree *t, int packs) {
    Params *p = t->params;
    float got[ELEMENTS], want[ELEMENTS];
    for (int pack = 0; pack < packs; pack++) {
        put_leaf(p, pack);
        if (pack + 1 < packs) {
            grad_tree_add(t, 1);
            exec_copy_out(p->ex, got, p->param[0].grad, sizeof got);
            EXPECT(got[1] == 0 && got[ELEMENTS - 1] == 0, "%d packs: not zero after one", packs);
        }
    }
    grad_tree_finish(t, 1);
    exec_copy_out(p->ex, got, p->param[0].grad, sizeof got);
    for (int i = 0; i < ELEMENTS; i++) want[i] = node(0, 32, packs, i);
    EXPECT(memcmp(got, want, sizeof got) == 0, "%d packs: not the tree's bits", packs);
    if (packs < 6) return; /* few packs can agree by chance */
    for (int i = 0; i < ELEMENTS; i++) want[i] = in_a_row(packs, i);
    EXPECT(memcmp(got, want, sizeof got) != 0, "%d packs: this test cannot tell orders", packs);
}

static void body(Exec *ex) {
    Params p;
    GradTree t;
    params_init(&p, ex, 1);
    params_add(&p, PARAM_ALIGNED, ELEMENTS, 1, "weight");
    params_allocate(&p, true);
    grad_tree_init(&t, &p, MOST);
    for (int packs = 1; packs <= MOST; packs++) test_packs(&t, packs);
    grad_tree_free(&t);
    params_free(&p);
}

int main(void) {
    EXPECT(grad_tree_levels(1) == 0 && grad_tree_levels(2) == 1 && grad_tree_levels(3) == 2,
           "levels");
    EXPECT(grad_tree_levels(4) == 2 && grad_tree_levels(5) == 3 && grad_tree_levels(9) == 4,
           "levels");
    test_each_exec(body);
    return test_done("test_grad_tree");
}
