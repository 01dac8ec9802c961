/* Elementary functions with the same bits everywhere: only + − × ÷, comparisons and integer operations, no branch that
   depends on data (so that loops over them vectorise). The float build's polynomials come from
   tools/reference/fit_math.py; test/test_math.c measures their errors. The double build, which makes no promise of
   bits, calls libm. Included by nn.h. */
#ifndef SEGFM_NN_MATH_H
#define SEGFM_NN_MATH_H

#include <math.h>
#include <string.h>

/* Adding and subtracting 1.5·2^23 (2^52) rounds a small float (double) to a whole number, ties to even; the low bits of
   the sum are that number. */
#define NN_ROUND_F 12582912.0f
#define NN_ROUND_D 6755399441055744.0

/* Before a loop that calls one of these: a vector loop, except over libm's scalar functions. (tcc knows no _Pragma.) */
#if defined(SEGFM_REAL_DOUBLE) || defined(__TINYC__)
#define NN_SIMD_MATH
#else
#define NN_SIMD_MATH _Pragma("omp simd")
#endif

#ifdef SEGFM_REAL_DOUBLE

static inline real nn_exp(real x) { return exp(x); }
static inline real nn_erf(real x) { return erf(x); }
static inline real nn_tanh(real x) { return tanh(x); }
static inline real nn_log(real x) { return log(x); }
static inline real nn_log1p(real x) { return log1p(x); }

#else

static inline float nn_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t nn_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* e^x = 2^whole · y: x = whole·ln 2 + r, |r| ≤ ln 2 / 2, y = e^r by a polynomial; |x| ≤ 104 */
static inline float nn_exp_parts(float x, uint32_t *whole) {
    float shifted = x * 0x1.715476p+0f + NN_ROUND_F; /* log2(e) */
    float n = shifted - NN_ROUND_F;
    *whole = nn_to_bits(shifted) - nn_to_bits(NN_ROUND_F); /* n, two's complement */
    float r = x - n * 0x1.63p-1f; /* ln 2 in two parts; the first has 9 bits, so n times it is exact */
    r = r - n * -0x1.bd0106p-13f;
    float q = 0x1.6a23d0p-10f;
    q = q * r + 0x1.123a20p-7f;
    q = q * r + 0x1.5558f2p-5f;
    q = q * r + 0x1.555492p-3f;
    q = q * r + 0x1.fffffcp-2f;
    return (q * (r * r) + r) + 1.0f;
}

/* 2^n as two factors, so that results below the normal range round once and results above it become infinity. */
static inline float nn_exp(float x) {
    x = x > 89.0f ? 89.0f : x; /* a NaN passes through all of this */
    x = x < -104.0f ? -104.0f : x;
    uint32_t whole;
    float y = nn_exp_parts(x, &whole);
    uint32_t first = (whole >> 1) | (whole & 0x80000000U); /* n/2, rounded down */
    uint32_t second = whole - first;
    return y * nn_from_bits((first + 127U) << 23) * nn_from_bits((second + 127U) << 23);
}

/* The same bits for |x| ≤ 87, where nothing leaves the normal range. */
static inline float nn_exp_near(float x) {
    uint32_t whole;
    float y = nn_exp_parts(x, &whole);
    return y * nn_from_bits((whole + 127U) << 23);
}

/* erf: an odd polynomial up to 0.9375, beyond it 1 − e^(−x − x·l(x)); 1 from 4 on. */
static inline float nn_erf(float x) {
    float a = x < 0.0f ? -x : x;
    a = a > 4.0f ? 4.0f : a;
    float s = a * a;
    float p = 0x1.5ac36cp-14f;
    p = p * s + -0x1.a99f0cp-11f;
    p = p * s + 0x1.54b5e8p-8f;
    p = p * s + -0x1.b80cb4p-6f;
    p = p * s + 0x1.ce2df4p-4f;
    p = p * s + -0x1.812742p-2f;
    p = p * s + 0x1.06eba8p-3f;
    float small = p * a + a;
    float l = 0x1.78dbccp-17f;
    l = l * a + -0x1.527be4p-12f;
    l = l * a + 0x1.dd6c98p-9f;
    l = l * a + -0x1.85514ep-6f;
    l = l * a + 0x1.b32570p-4f;
    l = l * a + 0x1.45328ep-1f;
    l = l * a + 0x1.0778dcp-3f;
    float large = 1.0f - nn_exp_near(-(l * a + a)); /* at least e^-18 */
    float y = a > 0.9375f ? large : small;
    y = x != x ? x : y;
    return x < 0.0f ? -y : y;
}

/* tanh: an odd polynomial up to 0.625, beyond it 1 − 2/(e^(2x) + 1). */
static inline float nn_tanh(float x) {
    float a = x < 0.0f ? -x : x;
    float s = a * a;
    float t = -0x1.75e1cep-8f;
    t = t * s + 0x1.52269cp-6f;
    t = t * s + -0x1.b83c5ap-5f;
    t = t * s + 0x1.110726p-3f;
    t = t * s + -0x1.555532p-2f;
    float small = (t * s) * a + a;
    float large = 1.0f - 2.0f / (nn_exp(a + a) + 1.0f);
    float y = a > 0.625f ? large : small;
    return x < 0.0f ? -y : y;
}

/* log: x = 2^n·(1 + f), √½ ≤ 1 + f < √2; log(1 + f) by a polynomial. Below 0: NaN. */
static inline float nn_log(float x) {
    bool small = x < 0x1p-126f;
    uint32_t bits = nn_to_bits(small ? x * 0x1p+23f : x);
    uint32_t biased = (bits + (0x3F800000U - 0x3F3504F3U)) >> 23; /* n + 127; 0x3F3504F3 is √½ */
    float n = (float)(int32_t)biased - (small ? 150.0f : 127.0f);
    float f = nn_from_bits(bits - ((biased - 127U) << 23)) - 1.0f;
    float s = f * f;
    float l = -0x1.38b582p-4f;
    l = l * f + 0x1.055b6cp-3f;
    l = l * f + -0x1.0d8542p-3f;
    l = l * f + 0x1.22da1cp-3f;
    l = l * f + -0x1.547244p-3f;
    l = l * f + 0x1.99a008p-3f;
    l = l * f + -0x1.000226p-2f;
    l = l * f + 0x1.555554p-2f;
    float y = (l * f) * s + n * -0x1.bd0106p-13f; /* ln 2 in two parts, as in nn_exp */
    y = (y - 0.5f * s) + f;
    y = y + n * 0x1.63p-1f;
    y = x < INFINITY ? y : x;
    y = x == 0.0f ? -INFINITY : y;
    return x < 0.0f ? NAN : y;
}

/* log(1 + x): what rounding 1 + x leaves out is put back with log's derivative there. */
static inline float nn_log1p(float x) {
    float u = 1.0f + x;
    float rest = (x - (u - 1.0f)) / u;
    bool plain = u > 0.0f && u < INFINITY;
    return nn_log(u) + (plain ? rest : 0.0f);
}

#endif

static inline real nn_sigmoid(real x) { return REAL_C(1.0) / (REAL_C(1.0) + nn_exp(-x)); }

/* sin(2πt) and cos(2πt) for |t| < 2^50, in double in every build (the argument is reduced exactly in turns; Taylor
   coefficients 1/n! on |angle| ≤ π/4): rounded to float they are right but for ties. */
static inline void nn_sin_cos_turns(double t, double *sine, double *cosine) {
    double quarter = (4.0 * t + NN_ROUND_D) - NN_ROUND_D; /* nearest number of quarter turns */
    double a = (t - 0.25 * quarter) * 6.283185307179586;
    double s = a * a;
    double p = -1.0 / 1307674368000.0;
    p = p * s + 1.0 / 6227020800.0;
    p = p * s - 1.0 / 39916800.0;
    p = p * s + 1.0 / 362880.0;
    p = p * s - 1.0 / 5040.0;
    p = p * s + 1.0 / 120.0;
    p = p * s - 1.0 / 6.0;
    double near_sine = (p * s) * a + a;
    double q = 1.0 / 20922789888000.0;
    q = q * s - 1.0 / 87178291200.0;
    q = q * s + 1.0 / 479001600.0;
    q = q * s - 1.0 / 3628800.0;
    q = q * s + 1.0 / 40320.0;
    q = q * s - 1.0 / 720.0;
    q = q * s + 1.0 / 24.0;
    double near_cosine = (q * s - 0.5) * s + 1.0;
    double turn = quarter - 4.0 * floor(0.25 * quarter); /* 0, 1, 2 or 3 */
    bool swap = turn == 1.0 || turn == 3.0;
    double u = swap ? near_cosine : near_sine, v = swap ? near_sine : near_cosine;
    *sine = turn >= 2.0 ? -u : u;
    *cosine = turn == 1.0 || turn == 2.0 ? -v : v;
}

#endif
