#include "nn.h"

void nn_patches(const nn_run *run, const real *window, const size_t spatial[3], const size_t patch[3], real *rows) {
    size_t gy = spatial[1] / patch[1], gx = spatial[2] / patch[2];
    size_t tokens = spatial[0] / patch[0] * gy * gx, voxels = patch[0] * patch[1] * patch[2];
    (void)run;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t t = 0; t < (ptrdiff_t)tokens; t++) {
        size_t token = (size_t)t, pz = token / (gy * gx), py = token / gx % gy, px = token % gx;
        real *to = rows + token * voxels;
        for (size_t z = 0; z < patch[0]; z++)
            for (size_t y = 0; y < patch[1]; y++) {
                size_t line = (pz * patch[0] + z) * spatial[1] + py * patch[1] + y;
                memcpy(to, window + line * spatial[2] + px * patch[2], patch[2] * sizeof(real));
                to += patch[2];
            }
    }
}

/* The product of SLAB cells at a time is made whole, then scattered: kernel = stride = 2, so each of a cell's 8 results
   per channel has a voxel of its own and nothing overlaps. */
enum { SLAB = 512, TAPS = 8 };

size_t nn_conv_transpose_scratch(size_t cells, size_t out_channels, int threads) {
    return nn_plus(nn_matmul_scratch(threads), nn_times(nn_times(cells < SLAB ? cells : SLAB, TAPS), out_channels));
}

static void scatter(const nn_run *run, const size_t grid[3], size_t first, size_t cells, size_t channels,
                    const real *products, const real *bias, real *y) {
    size_t gy = grid[1], gx = grid[2], voxels = grid[0] * gy * gx * TAPS;
    (void)run;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
        for (size_t i = 0; i < cells; i++) {
            size_t cell = first + i, z = cell / (gy * gx), row = cell / gx % gy, x = cell % gx;
            const real *from = products + (i * channels + (size_t)c) * TAPS;
            for (size_t tap = 0; tap < TAPS; tap++) {
                size_t line = (2 * z + (tap >> 2)) * 2 * gy + 2 * row + (tap >> 1 & 1);
                y[(size_t)c * voxels + line * 2 * gx + 2 * x + (tap & 1)] = from[tap] + bias[c];
            }
        }
}

void nn_conv_transpose_forward(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                               size_t channel_stride, const nn_panels *w, const real *bias, real *y) {
    size_t cells = grid[0] * grid[1] * grid[2], channels = w->n / TAPS;
    real *products = run->scratch + nn_matmul_scratch(run->threads);
    for (size_t first = 0; first < cells; first += SLAB) {
        size_t n = cells - first < SLAB ? cells - first : SLAB;
        nn_matmul(run, n, x + first * cell_stride, cell_stride, channel_stride, w, NULL, products, w->n);
        scatter(run, grid, first, n, channels, products, bias, y);
    }
}
