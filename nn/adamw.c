/* AdamW. The elements' arithmetic is in reals, as PyTorch's is; what is the same for all of them is found in double. */
#include "nn.h"

/* base^exponent, by squaring: the same operations everywhere. */
static double power(double base, uint64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

static real root(real x) {
#ifdef SEGFM_REAL_DOUBLE
    return sqrt(x);
#else
    return sqrtf(x);
#endif
}

void nn_adamw_step(const nn_run *run, const nn_adamw *o, uint64_t step, size_t n, real *w, const real *g, double scale,
                   real *m, real *v) {
    real keep = (real)(1 - o->rate * o->decay), eps = (real)o->eps, factor = (real)scale;
    real beta1 = (real)o->beta1, rest1 = (real)(1 - o->beta1), beta2 = (real)o->beta2, rest2 = (real)(1 - o->beta2);
    real rate = (real)(o->rate / (1 - power(o->beta1, step))), correction = (real)sqrt(1 - power(o->beta2, step));
    (void)run;
#pragma omp parallel for simd num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) {
        real d = factor * g[i];
        m[i] = m[i] * beta1 + rest1 * d;
        v[i] = v[i] * beta2 + rest2 * (d * d);
        w[i] = w[i] * keep - rate * (m[i] / (root(v[i]) / correction + eps));
    }
}
