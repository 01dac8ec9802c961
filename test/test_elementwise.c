#include "../nn/nn.h"
#include "random.h"
#include "test.h"

enum { N = 10007 };

static void test_elements(int threads) {
    nn_run run = {threads, NULL, nn_kernels_best()};
    real *x = random_reals(1, N, -7, 7), *y = malloc((N + 1) * sizeof *y), *s = malloc((N + 1) * sizeof *s);
    double *gelu = malloc(N * sizeof *gelu), *sigmoid = malloc(N * sizeof *sigmoid);
    int wrong = 0;
    y[N] = s[N] = -77; /* nothing is written behind the end */
    for (int i = 0; i < N; i++) {
        gelu[i] = (double)x[i] * 0.5 * (1 + erf((double)x[i] / sqrt(2)));
        sigmoid[i] = 1 / (1 + exp(-(double)x[i]));
    }
    nn_gelu_forward(&run, N, x, y);
    double bound = sizeof(real) == 8 ? 1e-15 : 6e-7; /* measured 8e-16, 4.6e-7 */
    CHECK_CLOSE("GELU", y, gelu, N, bound, 0);
    nn_sigmoid_forward(&run, N, x, s);
    CHECK_CLOSE("sigmoid", s, sigmoid, N, sizeof(real) == 8 ? 1e-15 : 1.2e-7, 0);
    nn_relu_forward(&run, N, x, s);
    for (int i = 0; i < N; i++) wrong += s[i] != (x[i] > 0 ? x[i] : 0);
    nn_add(&run, N, s, x, s);
    for (int i = 0; i < N; i++) wrong += s[i] != (x[i] > 0 ? x[i] + x[i] : x[i]);
    memcpy(s, x, N * sizeof *x);
    nn_gelu_forward(&run, N, s, s); /* in place */
    CHECK(wrong == 0 && memcmp(s, y, N * sizeof *y) == 0 && y[N] == -77 && s[N] == -77);
    free(x), free(y), free(s), free(gelu), free(sigmoid);
}

static void test_fourier(int threads) {
    enum { POINTS = 29, HALF = 11 };
    nn_run run = {threads, NULL, nn_kernels_best()};
    real *c = random_reals(4, 3 * POINTS, -0.2, 1.2), *g = random_reals(5, 3 * HALF, -3, 3), y[POINTS * 2 * HALF];
    double want[POINTS * 2 * HALF];
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < HALF; j++) {
            double turns = 0;
            for (int axis = 0; axis < 3; axis++)
                turns += (2 * (double)c[3 * i + axis] - 1) * (double)g[axis * HALF + j];
            want[i * 2 * HALF + j] = sin(2 * acos(-1) * turns);
            want[i * 2 * HALF + HALF + j] = cos(2 * acos(-1) * turns);
        }
    nn_fourier_forward(&run, POINTS, c, HALF, g, y);
    CHECK_CLOSE("Fourier features", y, want, POINTS * 2 * HALF, sizeof(real) == 8 ? 2e-14 : 6e-8,
                0); /* measured 6e-15, 3e-8 */
    free(c), free(g);
}

int main(void) {
    for (int threads = 1; threads <= 3; threads++) {
        test_elements(threads);
        test_fourier(threads);
    }
    return test_summary();
}
