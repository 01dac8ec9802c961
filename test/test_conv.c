#include "../nn/nn.h"
#include "random.h"
#include "test.h"

/* Every voxel lands at (token, place in its patch) in raster order. */
static void test_patches(void) {
    const size_t spatial[3] = {6, 8, 15}, patch[3] = {2, 4, 5};
    real *x = malloc(6 * 8 * 15 * sizeof *x), *rows = malloc(6 * 8 * 15 * sizeof *rows);
    int wrong = 0;
    for (size_t i = 0; i < 6 * 8 * 15; i++) x[i] = (real)i;
    nn_patches(&(nn_run){2, NULL, nn_kernels_best()}, x, spatial, patch, rows);
    for (size_t z = 0; z < 6; z++)
        for (size_t y = 0; y < 8; y++)
            for (size_t c = 0; c < 15; c++) {
                size_t token = (z / 2 * 2 + y / 4) * 3 + c / 5, place = (z % 2 * 4 + y % 4) * 5 + c % 5;
                wrong += rows[token * 40 + place] != (real)((z * 8 + y) * 15 + c);
            }
    CHECK(wrong == 0);
    free(x), free(rows);
}

/* Whole numbers, so that equality can be demanded; both layouts of the input; more cells than a slab. */
static void test_conv_transpose(const size_t grid[3], size_t in, size_t out, int threads, bool channel_first) {
    size_t cells = grid[0] * grid[1] * grid[2];
    real *x = random_wholes(1, cells * in, -5, 5), *w = random_wholes(2, in * out * 8, -5, 5),
         *bias = random_wholes(3, out, -50, 50);
    real *y = malloc(cells * 8 * out * sizeof *y);
    real *scratch = aligned_reals(nn_conv_transpose_scratch(grid, in, out, threads));
    size_t cell_stride = channel_first ? 1 : in, channel_stride = channel_first ? cells : 1;
    nn_conv_transpose_forward(&(nn_run){threads, scratch, nn_kernels_best()}, grid, x, cell_stride, channel_stride, in,
                              out, w, bias, y);
    int wrong = 0;
    for (size_t c = 0; c < out; c++)
        for (size_t z = 0; z < 2 * grid[0]; z++)
            for (size_t r = 0; r < 2 * grid[1]; r++)
                for (size_t s = 0; s < 2 * grid[2]; s++) {
                    size_t cell = (z / 2 * grid[1] + r / 2) * grid[2] + s / 2, tap = z % 2 * 4 + r % 2 * 2 + s % 2;
                    long sum = (long)bias[c];
                    for (size_t i = 0; i < in; i++)
                        sum += (long)x[cell * cell_stride + i * channel_stride] * (long)w[(i * out + c) * 8 + tap];
                    wrong += y[((c * 2 * grid[0] + z) * 2 * grid[1] + r) * 2 * grid[2] + s] != (real)sum;
                }
    CHECK(wrong == 0);
    free(x), free(w), free(bias), free(y), free(scratch);
}

int main(void) {
    test_patches();
    for (int threads = 1; threads <= 3; threads++) {
        test_conv_transpose((size_t[]){2, 3, 5}, 7, 4, threads, false);
        test_conv_transpose((size_t[]){2, 3, 5}, 7, 4, threads, true);
        test_conv_transpose((size_t[]){9, 8, 11}, 3, 5, threads, true);
        test_conv_transpose((size_t[]){1, 1, 1}, 1, 1, threads, false);
    }
    return test_summary();
}
