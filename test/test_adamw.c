#include "../nn/nn.h"
#include "random.h"
#include "test.h"

/* PyTorch's formula (torch/optim/adamw.py, 1.13) in double, from the moments of the step before; the steps' numbers are
   far apart. */
static void test_formula(int threads) {
    enum { N = 20011 };
    static const uint64_t steps[] = {1, 2, 3, 10, 1000, 123456789};
    const nn_adamw o = {1e-3, 0.9, 0.999, 1e-8, 1e-2};
    const nn_run run = {threads, NULL, nn_kernels_best()};
    real *w = random_reals(1, N, -1, 1), *m = calloc(N, sizeof *m), *v = calloc(N, sizeof *v), *g = NULL;
    double *want = malloc(N * sizeof *want);
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
        g = random_reals(k + 2, N, -1, 1);
        for (size_t i = 0; i < N; i++) g[i] = i % 7 == 0 ? 0 : g[i] * g[i] * g[i];
        for (size_t i = 0; i < N; i++) {
            double d = 0.25 * (double)g[i], first = (double)m[i] * 0.9 + 0.1 * d,
                   second = (double)v[i] * 0.999 + 0.001 * d * d, t = (double)steps[k];
            double root = sqrt(second) / sqrt(1 - pow(0.999, t)) + 1e-8;
            want[i] = (double)w[i] * (1 - 1e-3 * 1e-2) - 1e-3 / (1 - pow(0.9, t)) * first / root;
        }
        nn_adamw_step(&run, &o, steps[k], N, w, g, 0.25, m, v);
        /* measured 1.1e-16, 9.5e-8 */
        CHECK_CLOSE("AdamW", w, want, N, sizeof(real) == 8 ? 1e-15 : 2e-7, 0);
        free(g);
    }
    free(w), free(m), free(v), free(want);
}

/* Every element is its own: the same bits for any number of threads. A parameter without a gradient only decays. */
static void test_elements(void) {
    enum { N = 40001 };
    const nn_adamw o = {0.5, 0.9, 0.999, 1e-8, 0.5};
    real *first[3] = {NULL};
    for (int threads = 1; threads <= 3; threads++) {
        const nn_run run = {threads, NULL, nn_kernels_best()};
        real *now[3] = {random_reals(1, N, -1, 1), calloc(N, sizeof(real)), calloc(N, sizeof(real))};
        real *g = random_reals(2, N, -1, 1);
        g[7] = 0;
        real before = now[0][7];
        for (uint64_t step = 1; step <= 2; step++) nn_adamw_step(&run, &o, step, N, now[0], g, 1, now[1], now[2]);
        CHECK(now[0][7] == before * REAL_C(0.75) * REAL_C(0.75) && now[1][7] == 0 && now[2][7] == 0);
        for (int k = 0; k < 3; k++) {
            if (threads == 1) first[k] = now[k];
            CHECK(memcmp(first[k], now[k], N * sizeof(real)) == 0);
            if (threads > 1) free(now[k]);
        }
        free(g);
    }
    for (int k = 0; k < 3; k++) free(first[k]);
}

/* Whole numbers: exact in any order, so every element is counted once. */
static void test_square_sum(void) {
    static const size_t lengths[] = {0, 1, 15, 16, 17, 4095, 4096, 4097, 100003};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (int threads = 1; threads <= 3; threads++) {
            size_t n = lengths[i];
            real *g = random_wholes(i, n, -20, 20);
            nn_run run = {threads, aligned_reals(nn_loss_scratch(n)), nn_kernels_best()};
            double want = 0;
            for (size_t j = 0; j < n; j++) want += (double)g[j] * (double)g[j];
            CHECK(nn_square_sum(&run, n, g) == want);
            free(g), free(run.scratch);
        }
}

int main(void) {
    for (int threads = 1; threads <= 3; threads++) test_formula(threads);
    test_elements();
    test_square_sum();
    return test_summary();
}
