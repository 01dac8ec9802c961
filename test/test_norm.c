#include "../nn/nn.h"
#include "random.h"
#include "test.h"

/* Rows and blocks of every length around lanes (16) and sum blocks (4096) against double arithmetic; the same bits for
   any number of threads. */
static void test_layernorm(void) {
    static const size_t widths[] = {1, 2, 15, 16, 17, 96, 4095, 4096, 4097, 20000};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (size_t rows = 1; rows <= 31; rows += rows + 1) {
            size_t width = widths[i], n = rows * width;
            real *x = random_reals(i, n, 2, 5), *w = random_reals(i + 9, width, 0.5, 1.5),
                 *b = random_reals(i + 19, width, -1, 1);
            real *y = malloc(n * sizeof *y), *again = malloc(n * sizeof *again),
                 *scratch = aligned_reals(nn_layernorm_scratch(width));
            double *want = malloc(n * sizeof *want);
            for (size_t r = 0; r < rows; r++) {
                double mean = 0, variance = 0;
                for (size_t j = 0; j < width; j++) mean += (double)x[r * width + j] / (double)width;
                for (size_t j = 0; j < width; j++) variance += pow((double)x[r * width + j] - mean, 2) / (double)width;
                for (size_t j = 0; j < width; j++)
                    want[r * width + j] =
                        ((double)x[r * width + j] - mean) / sqrt(variance + 1e-5) * (double)w[j] + (double)b[j];
            }
            nn_layernorm_forward(&(nn_run){1, scratch, nn_kernels_best()}, rows, width, x, w, b, REAL_C(1e-5), y);
            double bound = sizeof(real) == 8 ? 1e-12 : 3e-6; /* measured 4e-15 (1e-13 for width 2), 1.2e-6 */
            CHECK_CLOSE("layer norm", y, want, n, bound, bound);
            nn_layernorm_forward(&(nn_run){3, scratch, nn_kernels_best()}, rows, width, x, w, b, REAL_C(1e-5), again);
            CHECK(memcmp(y, again, n * sizeof *y) == 0);
            memcpy(again, x, n * sizeof *x);
            nn_layernorm_forward(&(nn_run){2, scratch, nn_kernels_best()}, rows, width, again, w, b, REAL_C(1e-5),
                                 again); /* in place */
            CHECK(memcmp(y, again, n * sizeof *y) == 0);
            free(x), free(w), free(b), free(y), free(again), free(scratch), free(want);
        }
}

/* Whole numbers add up exactly, whatever the order: every element is counted once. */
static void test_sum(void) {
    static const size_t lengths[] = {0, 1, 15, 16, 17, 4096, 4097, 8192, 100001};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t n = lengths[i];
        real *x = random_wholes(i, n, -20, 30), partial[64];
        long want = 0;
        for (size_t j = 0; j < n; j++) want += (long)x[j];
        CHECK(nn_sum(&(nn_run){1, partial, nn_kernels_best()}, n, x) == (real)want);
        CHECK(nn_sum(&(nn_run){3, partial, nn_kernels_best()}, n, x) == (real)want);
        free(x);
    }
    /* more blocks than a block has terms: the sums of sums are summed the same way */
    size_t many = 4096 * 4100 + 5;
    real *ones = malloc(many * sizeof *ones), *partial = malloc(4101 * sizeof *partial);
    for (size_t j = 0; j < many; j++) ones[j] = j % 4 == 0;
    CHECK(nn_sum(&(nn_run){2, partial, nn_kernels_best()}, many, ones) == (real)((many + 3) / 4));
    free(ones), free(partial);
}

int main(void) {
    test_layernorm();
    test_sum();
    return test_summary();
}
