#include "../nn/nn.h"
#include "random.h"
#include "test.h"

typedef struct shape {
    size_t queries, keys, heads, dim;
} shape;

static const shape shapes[] = {{1, 1, 1, 1},    {7, 64, 8, 12},   {64, 7, 8, 6},    {16, 16, 2, 16},
                               {17, 255, 3, 5}, {33, 257, 1, 64}, {40, 513, 2, 20}, {5, 300, 2, 260}};

/* The blocked form gives the oracle's bits, for strides wider than the heads and for any number of threads. */
static void test_against_naive(int threads) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        shape s = shapes[i];
        size_t width = s.heads * s.dim;
        real *q = random_reals(i, s.queries * (width + 1), -2, 2),
             *k = random_reals(i + 50, s.keys * (width + 2), -2, 2);
        real *v = random_reals(i + 90, s.keys * (width + 3), -2, 2),
             *out = random_reals(3, s.queries * (width + 4), 8, 9);
        real *want = random_reals(3, s.queries * (width + 4), 8, 9), *scores = malloc(s.keys * sizeof *scores);
        real *scratch = aligned_reals(nn_attention_scratch(s.queries, s.keys, s.heads, s.dim, threads));
        nn_attention at = {s.queries, s.keys,    s.heads,   s.dim, q,         k,          v,
                           width + 1, width + 2, width + 3, out,   width + 4, REAL_C(0.3)};
        nn_run run = {threads, scratch, nn_kernels_best()};
        nn_attention_forward(&run, &at);
        at.out = want;
        nn_attention_naive(&at, scores);
        CHECK(memcmp(out, want, s.queries * (width + 4) * sizeof *out) == 0);
        free(q), free(k), free(v), free(out), free(want), free(scores), free(scratch);
    }
}

/* The oracle against a plain softmax in long double, large scores included. */
static void test_oracle(void) {
    enum { Q = 3, K = 70, D = 4 };
    real *q = random_reals(1, Q * D, -9, 9), *k = random_reals(2, K * D, -9, 9), *v = random_reals(3, K * D, -1, 1),
         out[Q * D], scores[K];
    nn_attention at = {Q, K, 1, D, q, k, v, D, D, D, out, D, REAL_C(0.5)};
    nn_attention_naive(&at, scores);
    double want[Q * D];
    for (int i = 0; i < Q; i++) {
        long double sum = 0, mix[D] = {0};
        for (int j = 0; j < K; j++) {
            long double s = 0;
            for (int d = 0; d < D; d++) s += (long double)q[i * D + d] * (long double)k[j * D + d];
            long double e = expl(s * 0.5L);
            sum += e;
            for (int d = 0; d < D; d++) mix[d] += e * (long double)v[j * D + d];
        }
        for (int d = 0; d < D; d++) want[i * D + d] = (double)(mix[d] / sum);
    }
    double bound = sizeof(real) == 8 ? 1e-13 : 3e-5; /* measured 1.1e-14, 5e-6: scores near 100 carry 4e-6 */
    CHECK_CLOSE("attention against long double", out, want, Q * D, bound, bound);
    free(q), free(k), free(v);
}

int main(void) {
    for (int threads = 1; threads <= 3; threads++) test_against_naive(threads);
    test_oracle();
    return test_summary();
}
