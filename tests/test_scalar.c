/* The scalar functions of the twins over the whole range of floats, against libm in double, and
 * the bf16 conversions over all values and all ties. A fault here would hide inside the tolerances
 * of every op. */
#include "kernels/scalar.h"

#include <math.h>
#include <stdio.h>

#include "kernels/check.h"
#include "tests/test.h"

/* Primes: every exponent is met with many mantissas. */
static uint64_t stride(void) {
    return test_brief() ? 9973 : 997;
}

static const double K = 1.5957691216057308; /* 2 sqrt(2/pi) */

/* One unit in the last place of an f32 near x; denormals share the smallest. */
static double ulp(double x) {
    int e;
    frexp(x, &e);
    return ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

/* The range of a function's argument that is tested, and its tolerance at x. */
typedef struct Case {
    const char *name;
    float (*f)(float);
    double (*ref)(double);
    double (*tol)(double x, double ref);
} Case;

static int check_at(const Case *c, float x, double *worst, float *where) {
    double ref = c->ref(x), got = c->f(x);
    if (isnan(ref)) return isnan(got);
    if (fabs(ref) >= 0x1.ffffffp127) ref = copysign(INFINITY, ref); /* rounds to infinity */
    if (isinf(ref) || isinf(got)) return got == ref;
    double over = fabs(got - ref) / c->tol(x, ref);
    if (over > *worst) *worst = over, *where = x;
    return over <= 1;
}

static int check(Case c) {
    static const float special[] = {0,      -0.0f,   INFINITY, -INFINITY, NAN,    1e-45f, -1e-45f,
                                    1e-38f, 3.4e38f, -3.4e38f, 88.72283f, 88.73f, -87.4f, -103.97f,
                                    -104,   0.625f,  -0.625f,  9.01f,     -16,    16};
    double worst = 0;
    float where = 0;
    uint64_t bad = 0;
    for (uint64_t u = 0, step = stride(); u < 0x100000000u; u += step)
        bad += !check_at(&c, scalar_from_bits((uint32_t)u), &worst, &where);
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        bad += !check_at(&c, special[i], &worst, &where);
    if (!test_quiet) {
        printf("%-22s worst %.3f of tolerance at %.9g\n", c.name, worst, where);
        EXPECT(bad == 0, "%s: %llu floats beyond tolerance", c.name, (unsigned long long)bad);
    }
    return bad == 0;
}

/* ---- references and tolerances ---- */

/* exp: half an ulp for the last fma, and as much again for the polynomial before it, which is at
 * most 0.42 of the result. tanh: the same twice, through exp and the quotient, damped by 1 - t.
 * sigmoid: exp, a sum and a quotient; it is 0 where e^-x is beyond f32. */
static double tol_exp(double x, double ref) {
    return (void)x, 1.1 * ulp(ref);
}
static double tol_tanh(double x, double ref) {
    return (void)x, 1.5 * ulp(ref);
}
static double ref_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double tol_sigmoid(double x, double ref) {
    return (void)x, 3 * ulp(ref) + 0x1p-126;
}
/* gelu = g s(a), s the sigmoid. Two constants, a square and a product are rounded on the way to a:
 * an error of 4 |a| roundings, which reaches s with the factor 1 - s, relatively. */
static double gelu_arg(double g) {
    return K * (g + 0.044715 * g * g * g);
}
static double ref_gelu(double g) {
    if (g < -40) return -0.0; /* also at -infinity, where g * 0 is not a number */
    return g * ref_sigmoid(gelu_arg(g));
}
static double tol_gelu(double g, double ref) {
    double a = gelu_arg(fmax(-40, fmin(g, 40)));
    return (8 + 4 * fabs(a) * ref_sigmoid(-a)) * fabs(ref) * 0x1p-24 + fabs(g) * 0x1p-125 +
           ulp(ref);
}
/* The derivative has two terms, of opposite signs for g < 0: errors are relative to each. */
static double gelu_grad_term(double g) {
    double a = gelu_arg(g);
    return g * ref_sigmoid(a) * ref_sigmoid(-a) * K * (1 + 3 * 0.044715 * g * g);
}
static double ref_gelu_grad(double g) {
    if (fabs(g) > 40) return g > 0;
    return ref_sigmoid(gelu_arg(g)) + gelu_grad_term(g);
}
static double tol_gelu_grad(double g, double ref) {
    double c = fmax(-40, fmin(g, 40)), a = gelu_arg(c), s = ref_sigmoid(a);
    (void)ref;
    return (s * (6 + 4 * fabs(a) * (1 - s)) + fabs(gelu_grad_term(c)) * (12 + 4 * fabs(a))) *
               0x1p-24 +
           0x1p-110;
}
static float softcap30(float x) {
    return scalar_softcap(x, 30);
}
static double ref_softcap30(double x) {
    return 30 * tanh(x / 30);
}
/* tanh's, three roundings around it, and x / cap may be denormal where x is not. */
static double tol_softcap(double x, double ref) {
    return (void)x, 3.5 * ulp(ref) + 30 * 0x1p-150;
}

/* ---- planted faults ---- */

static float exp_two_ulp_off(float x) {
    return scalar_exp(x) * (1 + 0x1p-22f);
}
static float exp_no_denormals(float x) {
    return x < -87.3f ? 0 : scalar_exp(x);
}
static float tanh_by_sigmoid(float x) { /* cancels near 0 */
    return 2 * scalar_sigmoid(2 * x) - 1;
}
static float gelu_by_tanh(float g) { /* cancels for g < 0, NaN at -infinity */
    return 0.5f * g * (1 + scalar_tanh(0.7978845608f * (g + 0.044715f * g * g * g)));
}
static float gelu_slope(float g) {
    return scalar_gelu_both(g).slope;
}
static float gelu_value(float g) {
    return scalar_gelu_both(g).y;
}
static float gelu_grad_short(float g) {
    return scalar_sigmoid((float)K * (g + 0.044715f * g * g * g));
}

static void test_functions(void) {
    Case e = {"scalar_exp", scalar_exp, exp, tol_exp};
    Case t = {"scalar_tanh", scalar_tanh, tanh, tol_tanh};
    Case s = {"scalar_sigmoid", scalar_sigmoid, ref_sigmoid, tol_sigmoid};
    Case g = {"scalar_gelu", scalar_gelu, ref_gelu, tol_gelu};
    Case b = {"scalar_gelu_both.y", gelu_value, ref_gelu, tol_gelu};
    Case d = {"scalar_gelu_both.slope", gelu_slope, ref_gelu_grad, tol_gelu_grad};
    Case c = {"scalar_softcap", softcap30, ref_softcap30, tol_softcap};
    check(e), check(t), check(s), check(g), check(b), check(d), check(c);
    e.f = exp_two_ulp_off;
    TEST_DETECTS(check(e));
    e.f = exp_no_denormals;
    TEST_DETECTS(check(e));
    t.f = tanh_by_sigmoid;
    TEST_DETECTS(check(t));
    g.f = gelu_by_tanh;
    TEST_DETECTS(check(g));
    d.f = gelu_grad_short;
    TEST_DETECTS(check(d));
}

/* The derivatives once more, without a formula for them: central differences of the references. */
static void test_derivatives(void) {
    for (double x = -12; x <= 12; x += 1.0 / 64) {
        double h = 1e-4, slope = (ref_gelu(x + h) - ref_gelu(x - h)) / (2 * h);
        EXPECT(fabs(slope - gelu_slope((float)x)) < 1e-6, "gelu' at %g", x);
        double z = ref_softcap30(4 * x);
        slope = (ref_softcap30(4 * x + h) - ref_softcap30(4 * x - h)) / (2 * h);
        EXPECT(fabs(slope - scalar_softcap_grad((float)z, 30)) < 1e-6, "softcap' at %g", 4 * x);
    }
}

static void test_exact(void) {
    EXPECT(scalar_exp(0) == 1 && scalar_exp(-0.0f) == 1, "e^0");
    for (uint64_t u = 0, step = stride(); u <= 0x7f800000u; u += step) {
        float x = scalar_from_bits((uint32_t)u), t = scalar_tanh(x);
        EXPECT(scalar_bits(scalar_tanh(-x)) == (scalar_bits(t) | 0x80000000u) && t <= 1,
               "tanh is not odd, or exceeds 1, at %g", x);
    }
    EXPECT(scalar_bits(scalar_tanh(-0.0f)) == 0x80000000u, "tanh(-0) is -0");
    EXPECT(scalar_tanh(9.02f) == 1, "tanh saturates");
}

static void test_order(void) {
    static const float rising[] = {-INFINITY, -3.4e38f, -1, -1e-38f, -1e-45f, -0.0f,   0,
                                   1e-45f,    1e-38f,   1,  2,       3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof rising / sizeof rising[0]; i++) {
        int32_t k = scalar_order(rising[i]);
        EXPECT(scalar_bits(scalar_from_order(k)) == scalar_bits(rising[i]), "%g", rising[i]);
        EXPECT(i == 0 || scalar_order(rising[i - 1]) < k, "order at %g", rising[i]);
    }
    EXPECT(scalar_order(NAN) > scalar_order(INFINITY), "NaN lies beyond infinity");
}

/* All bf16 values survive the way to f32 and back; between each two neighbours, the midpoint and
 * the floats next to it go where nearest-even says. */
static void test_bf16(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        bf16 in = {(uint16_t)h}, out = bf16_from_f32(bf16_to_f32(in));
        int is_nan = (h & 0x7fff) > 0x7f80;
        EXPECT(out.bits == (is_nan ? h | 0x40 : h), "%04x became %04x", h, out.bits);
        EXPECT(isnan(bf16_to_f32(in)) == is_nan, "%04x", h);
    }
    for (uint32_t h = 0; h < 0x7f80; h++) { /* up to the last finite one: it rounds to infinity */
        static const uint32_t low[] = {1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xffff};
        for (int i = 0; i < 6; i++) {
            uint32_t u = h << 16 | low[i];
            uint32_t want = low[i] > 0x8000 ? h + 1 : low[i] < 0x8000 ? h : h + (h & 1);
            EXPECT(bf16_from_f32(scalar_from_bits(u)).bits == want, "%08x", u);
            EXPECT(bf16_from_f32(-scalar_from_bits(u)).bits == (want | 0x8000), "-%08x", u);
        }
    }
    for (uint32_t low = 1; low < 0x10000;
         low += 0xff) { /* NaN whose payload lies in the low half */
        uint16_t b = bf16_from_f32(scalar_from_bits(0x7f800000u | low)).bits;
        EXPECT((b & 0x7fff) > 0x7f80, "NaN %08x became %04x", 0x7f800000u | low, b);
    }
}

int main(void) {
    test_bf16();
    test_order();
    test_exact();
    test_functions();
    test_derivatives();
    return test_done("test_scalar");
}
