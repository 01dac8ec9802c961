#include "../nn/nn.h"
#include "random.h"
#include "test.h"

enum { N = 10007, SAMPLES = 3 };

/* The formulas, plainly, in double. */
static double dice(size_t n, const real *x, const uint8_t *t) {
    double both = 0, sum = 1;
    for (size_t i = 0; i < n; i++) {
        double p = 1 / (1 + exp(-(double)x[i]));
        both += t[i] ? p : 0;
        sum += p + t[i];
    }
    return 1 - 2 * both / sum;
}

static double bce(size_t n, const real *x, const uint8_t *t) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += log1p(exp(t[i] ? -(double)x[i] : (double)x[i]));
    return sum / (double)n;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

int main(void) {
    real *x = random_reals(1, SAMPLES * N, -20, 20), first[4] = {0}, *other = random_reals(2, SAMPLES * N, -9, 30);
    uint8_t *t = malloc(SAMPLES * N);
    double want[4] = {0};
    for (size_t i = 0; i < SAMPLES * N; i++) t[i] = i % 3 == 0;
    for (size_t s = 0; s < SAMPLES; s++) want[0] += dice(N, x + s * N, t + s * N) / SAMPLES;
    want[1] = bce(SAMPLES * N, x, t);
    for (size_t i = 0; i < SAMPLES * N; i++) {
        want[2] += pow(sigmoid((double)x[i]) - sigmoid((double)other[i]), 2) / (SAMPLES * N);
        want[3] += sigmoid((double)x[i]) * (double)other[i] / (SAMPLES * N);
    }
    for (int threads = 1; threads <= 3; threads++) {
        nn_run run = {threads, aligned_reals(nn_loss_scratch(SAMPLES * N)), nn_kernels_best()};
        real got[4] = {nn_dice_loss(&run, SAMPLES, N, x, t), nn_bce_loss(&run, SAMPLES * N, x, t),
                       nn_consistency_loss(&run, SAMPLES * N, x, other), nn_boundary_loss(&run, SAMPLES * N, x, other)};
        CHECK_CLOSE("losses", got, want, 4, 0, sizeof(real) == 8 ? 1e-14 : 1.5e-7); /* measured 2e-15, 6e-8 */
        if (threads == 1) memcpy(first, got, sizeof first);
        CHECK(memcmp(got, first, sizeof first) == 0);

        const real far[4] = {-1000, 1000, -1000, 1000}; /* nothing overflows: losses 0, 0, 1000, 1000 */
        CHECK(nn_bce_loss(&run, 4, far, (uint8_t[]){0, 1, 1, 0}) == 500);
        const real zeros[4] = {0};
        CHECK(nn_dice_loss(&run, 1, 4, zeros, (uint8_t[]){0, 0, 0, 0}) == 1); /* no truth: 1 − 0/(2 + 1) */
        CHECK(nn_dice_loss(&run, 1, 4, zeros, (uint8_t[]){9, 1, 0, 0}) == REAL_C(1.0) - (real)(2.0 / 5.0));
        CHECK(nn_consistency_loss(&run, 4, far, far) == 0);
        CHECK(nn_boundary_loss(&run, 4, far, (real[]){7, 1, -3, -2}) == REAL_C(-0.25));
        free(run.scratch);
    }
    free(x), free(t), free(other);
    return test_summary();
}
