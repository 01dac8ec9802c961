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

/* A transposed convolution with its packed weight and its scratch. */
typedef struct convolution {
    real *w, *bias, *packed;
    nn_conv_transpose conv;
    nn_run run;
} convolution;

static convolution convolution_new(size_t in, size_t out, real *w, real *bias, size_t rows, int threads) {
    convolution c = {w, bias, aligned_reals(nn_conv_transpose_count(in, out)), {0}, {0}};
    c.run = (nn_run){threads, aligned_reals(nn_conv_transpose_scratch(in, out, rows, threads)), nn_kernels_best()};
    nn_conv_transpose_pack(c.run.kernels, w, in, out, c.packed);
    c.conv = (nn_conv_transpose){in, out, c.packed, bias};
    return c;
}

static void convolution_free(convolution *c) { free(c->w), free(c->bias), free(c->packed), free(c->run.scratch); }

/* Whole numbers, so that equality can be demanded; both layouts of the input; more cells than a task. */
static void test_conv_transpose(const size_t grid[3], size_t in, size_t out, int threads, bool channel_first) {
    size_t cells = grid[0] * grid[1] * grid[2];
    real *x = random_wholes(1, cells * in, -5, 5), *y = malloc(cells * 8 * out * sizeof *y);
    convolution c =
        convolution_new(in, out, random_wholes(2, in * out * 8, -5, 5), random_wholes(3, out, -50, 50), 0, threads);
    size_t cell_stride = channel_first ? 1 : in, channel_stride = channel_first ? cells : 1;
    nn_conv_transpose_forward(&c.run, grid, x, cell_stride, channel_stride, &c.conv, y);
    int wrong = 0;
    for (size_t o = 0; o < out; o++)
        for (size_t z = 0; z < 2 * grid[0]; z++)
            for (size_t r = 0; r < 2 * grid[1]; r++)
                for (size_t s = 0; s < 2 * grid[2]; s++) {
                    size_t cell = (z / 2 * grid[1] + r / 2) * grid[2] + s / 2, tap = z % 2 * 4 + r % 2 * 2 + s % 2;
                    long sum = (long)c.bias[o];
                    for (size_t i = 0; i < in; i++)
                        sum += (long)x[cell * cell_stride + i * channel_stride] * (long)c.w[(i * out + o) * 8 + tap];
                    wrong += y[((o * 2 * grid[0] + z) * 2 * grid[1] + r) * 2 * grid[2] + s] != (real)sum;
                }
    CHECK(wrong == 0);
    free(x), free(y);
    convolution_free(&c);
}

/* The fused product has the bits of convolution, GELU and product one after the other. */
static void test_gelu_product(const size_t grid[3], size_t in, size_t out, size_t rows, int threads) {
    size_t cells = grid[0] * grid[1] * grid[2], voxels = 8 * cells;
    real *x = random_reals(1, cells * in, -1, 1), *a = random_reals(4, rows * out, -1, 1);
    real *y = malloc(voxels * out * sizeof *y), *mixed = malloc(voxels * rows * sizeof *y),
         *expected = malloc(voxels * rows * sizeof *y);
    convolution c =
        convolution_new(in, out, random_reals(2, in * out * 8, -1, 1), random_reals(3, out, -1, 1), rows, threads);
    nn_conv_transpose_forward(&c.run, grid, x, 1, cells, &c.conv, y);
    nn_gelu_forward(&c.run, voxels * out, y, y);
    nn_matmul_naive(NN_CHUNK, rows, voxels, out, a, out, 1, y, 1, voxels, NULL, expected, voxels);
    nn_conv_transpose_gelu_product(&c.run, grid, x, 1, cells, &c.conv, rows, a, mixed);
    CHECK(memcmp(mixed, expected, voxels * rows * sizeof *y) == 0);
    free(x), free(a), free(y), free(mixed), free(expected);
    convolution_free(&c);
}

int main(void) {
    test_patches();
    for (int threads = 1; threads <= 3; threads++) {
        test_conv_transpose((size_t[]){2, 3, 5}, 7, 4, threads, false);
        test_conv_transpose((size_t[]){2, 3, 5}, 7, 4, threads, true);
        test_conv_transpose((size_t[]){9, 8, 11}, 3, 5, threads, true);
        test_conv_transpose((size_t[]){3, 1, 5}, 2, 3, threads, false); /* one cell less than a vector has */
        test_conv_transpose((size_t[]){1, 1, 1}, 1, 1, threads, false);
        test_gelu_product((size_t[]){2, 3, 5}, 7, 4, 4, threads);
        test_gelu_product((size_t[]){5, 4, 9}, 3, 300, 19, threads);
    }
    return test_summary();
}
