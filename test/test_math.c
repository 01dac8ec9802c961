#include "../nn/nn.h"
#include "test.h"

/* Size of the last place of a float near v. */
static double ulp(double v) {
    int e;
    if (fabs(v) < 0x1p-126) return 0x1p-149;
    frexp(v, &e);
    return ldexp(1.0, e - 24);
}

typedef real function(real);
typedef double oracle(double);

static double sigmoid_oracle(double x) { return 1.0 / (1.0 + exp(-x)); }

/* The largest error in ulps of float over a grid that steps through [low, high]. */
static double worst(function *f, oracle *reference, double low, double high) {
    double most = 0;
    for (double x = low; x < high; x += (high - low) / 400009) {
        real v = (real)(float)x;
        double want = reference((double)v), error = fabs((double)f(v) - want) / ulp(want);
        if (!(error <= most)) most = error;
    }
    return most;
}

/* Bounds beside what was measured (float build). */
static void test_errors(void) {
    CHECK(worst(nn_exp, exp, -87, 88.7) <= 1.0); /* 0.98 */
    CHECK(worst(nn_exp, exp, -104, -87) <= 1.0); /* below the normal range: 0.5 of the smallest number */
    CHECK(worst(nn_erf, erf, -4.5, 4.5) <= 1.2); /* 1.12 */
    CHECK(worst(nn_erf, erf, -0.01, 0.01) <= 1.2);
    CHECK(worst(nn_tanh, tanh, -10, 10) <= 1.3); /* 1.25 */
    CHECK(worst(nn_tanh, tanh, -0.01, 0.01) <= 1.3);
    CHECK(worst(nn_log, log, 0.7, 1.5) <= 0.9); /* 0.83 */
    CHECK(worst(nn_log, log, 0x1p-148, 4) <= 0.9);
    CHECK(worst(nn_log, log, 0x1p-140, 0x1p-124) <= 0.9); /* below the normal range too */
    CHECK(worst(nn_log, log, 1, 1e30) <= 0.9);
    CHECK(worst(nn_log1p, log1p, -0.999, 2) <= 1.5); /* 1.44 */
    CHECK(worst(nn_log1p, log1p, -1e-6, 1e-6) <= 1.5);
    CHECK(worst(nn_sigmoid, sigmoid_oracle, -80, 80) <= 2.5); /* 1.95 */
}

static void test_special_values(void) {
    const real inf = (real)INFINITY;
    CHECK(nn_exp(0) == 1 && nn_exp(-inf) == 0 && nn_exp(inf) == inf && isnan(nn_exp((real)NAN)));
    CHECK(nn_erf(0) == 0 && nn_erf(inf) == 1 && nn_erf(-inf) == -1 && isnan(nn_erf((real)NAN)));
    CHECK(nn_tanh(0) == 0 && nn_tanh(inf) == 1 && nn_tanh(-inf) == -1 && isnan(nn_tanh((real)NAN)));
    CHECK(nn_log(1) == 0 && nn_log(0) == -inf && nn_log(inf) == inf && isnan(nn_log(-1)) && isnan(nn_log((real)NAN)));
    CHECK(nn_log1p(0) == 0 && nn_log1p(-1) == -inf && nn_log1p(inf) == inf && isnan(nn_log1p(-2)) &&
          isnan(nn_log1p((real)NAN)) && nn_log1p(REAL_C(1e-30)) == REAL_C(1e-30));
    CHECK(nn_sigmoid(0) == REAL_C(0.5) && nn_sigmoid(inf) == 1 && nn_sigmoid(-inf) == 0);
    CHECK((float)nn_exp((real)88.8f) == INFINITY || sizeof(real) == 8);
    CHECK(nn_erf((real)0.9375f) <= nn_erf(nextafterf(0.9375f, 1.0f))); /* the two branches meet */
    CHECK(nn_tanh((real)0.625f) <= nn_tanh(nextafterf(0.625f, 1.0f)));
#ifndef SEGFM_REAL_DOUBLE /* the bits where a logarithm's power of two changes, and just below */
    CHECK(nn_log(0x1.6a09e6p+0f) == 0x1.62e42ep-2f && nn_log(0x1.6a09e4p+0f) == 0x1.62e428p-2f);
#endif
}

static void test_turns(void) {
    double most = 0, sine, cosine;
    for (double t = -40; t < 40; t += 3.7e-4) {
        nn_sin_cos_turns(t, &sine, &cosine);
        double angle = 6.283185307179586 * (t - floor(t)); /* the reduction keeps the oracle's argument exact */
        most = fmax(most, fmax(fabs(sine - sin(angle)), fabs(cosine - cos(angle))));
    }
    CHECK(most <= 1e-15);           /* 6e-16, mostly the oracle's own argument */
    for (int k = -9; k <= 9; k++) { /* quarter turns are exact */
        static const int sines[4] = {0, 1, 0, -1};
        nn_sin_cos_turns(0.25 * k, &sine, &cosine);
        CHECK(sine == sines[(k + 40) % 4] && cosine == sines[(k + 41) % 4]);
    }
}

/* SPEC 11: the mask is 1/(1 + e^-x) > 1/2 in float32 arithmetic, in both builds. */
static void test_above_half(void) {
    CHECK(!nn_sigmoid_above_half(0) && !nn_sigmoid_above_half(REAL_C(6e-8)) && nn_sigmoid_above_half(REAL_C(1e-7)));
    CHECK(!nn_sigmoid_above_half(REAL_C(-1e-3)) && nn_sigmoid_above_half(1) && !nn_sigmoid_above_half((real)NAN));
#ifndef SEGFM_REAL_DOUBLE
    bool same = true;
    for (float x = -3e-7f; same && x < 3e-7f; x += 1.1e-10f) same = nn_sigmoid_above_half(x) == (nn_sigmoid(x) > 0.5f);
    CHECK(same);
#endif
}

int main(void) {
    test_errors();
    test_special_values();
    test_turns();
    test_above_half();
    return test_summary();
}
