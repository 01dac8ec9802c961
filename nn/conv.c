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

/* Kernel = stride = 2: each of a cell's 8 results per channel has a voxel of its own and nothing overlaps. The product is
   made for SLAB cells at a time, whole lines of the grid, with (channel, tap) as rows and cells as columns:

        taps 000 and 001 of a line:  a0 a1 a2 …    b0 b1 b2 …     →     a line of the output:  a0 b0 a1 b1 a2 b2 …     */
enum { SLAB = 512, TAPS = 8 };

static size_t slab_lines(const size_t grid[3]) {
    size_t lines = SLAB / grid[2], all = nn_times(grid[0], grid[1]);
    return lines < 1 ? 1 : lines < all ? lines : all;
}

size_t nn_conv_transpose_scratch(const size_t grid[3], size_t in, size_t out, int threads) {
    size_t cells = nn_times(slab_lines(grid), grid[2]);
    return nn_plus(nn_plus(nn_matmul_scratch(threads), nn_panels_count(cells, in)),
                   nn_times(nn_times(out, TAPS), cells));
}

/* products (channels·8, cells), cells from grid line `first` on → y */
static void interleave(const nn_run *run, const size_t grid[3], size_t first, size_t cells, size_t channels,
                       const real *products, const real *bias, real *y) {
    size_t gy = grid[1], gx = grid[2], lines = cells / gx;
    (void)run;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t c = 0; c < (ptrdiff_t)channels; c++)
        for (size_t line = 0; line < lines; line++)
            for (size_t tap = 0; tap < TAPS; tap += 2) {
                size_t z = 2 * ((first + line) / gy) + (tap >> 2), row = 2 * ((first + line) % gy) + (tap >> 1 & 1);
                const real *even = products + ((size_t)c * TAPS + tap) * cells + line * gx, *odd = even + cells;
                real *to = y + (((size_t)c * 2 * grid[0] + z) * 2 * gy + row) * 2 * gx, b = bias[c];
                for (size_t i = 0; i < gx; i++) {
                    to[2 * i] = even[i] + b;
                    to[2 * i + 1] = odd[i] + b;
                }
            }
}

void nn_conv_transpose_forward(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                               size_t channel_stride, size_t in, size_t out, const real *w, const real *bias, real *y) {
    size_t all = grid[0] * grid[1], step = slab_lines(grid);
    real *panels = run->scratch + nn_matmul_scratch(run->threads);
    real *products = panels + nn_panels_count(step * grid[2], in);
    for (size_t line = 0; line < all; line += step) {
        size_t cells = (all - line < step ? all - line : step) * grid[2];
        nn_panels_pack(x + line * grid[2] * cell_stride, cells, in, cell_stride, channel_stride, panels, run->threads);
        nn_matmul(run, out * TAPS, w, 1, out * TAPS, &(nn_panels){.n = cells, .k = in, .data = panels}, NULL, products,
                  cells);
        interleave(run, grid, line, cells, out, products, bias, y);
    }
}
