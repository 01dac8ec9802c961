#include "pack.h"

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

/* Kernel = stride = 2: each of a cell's 8 results per channel has a voxel of its own and nothing overlaps. A task makes
   up to CELLS cells: the product has (channel, tap) as rows, the packed weights, and cells as columns; its panels stay in the
   second-level cache until they are scattered:

        rows taps 000, 001 of a channel, 16 cells:  a0 a1 a2 …    b0 b1 b2 …     →     part of a line:  a0 b0 a1 b1 a2 b2 …     */
enum { CELLS = 64, TAPS = 8 };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

size_t nn_conv_transpose_count(size_t in, size_t out) {
    return nn_times(in, nn_plus(nn_times(out, TAPS), NN_MAX_ROWS - 1));
}

void nn_conv_transpose_pack(const nn_kernels *kernels, const real *w, size_t in, size_t out, real *data) {
    nn_pack_rows(kernels, kernels->tile.rows, w, 1, out * TAPS, out * TAPS, in, data);
}

/* Rows of a task's products, with room for a last tile that is not full. */
static size_t product_rows(size_t out) { return nn_plus(nn_times(out, TAPS), NN_MAX_ROWS - 1); }

static size_t thread_count(size_t in, size_t out) {
    return nn_plus(nn_times(CELLS, in), nn_times(CELLS, product_rows(out)));
}

size_t nn_conv_transpose_scratch(size_t in, size_t out, size_t rows, int threads) {
    return nn_plus(nn_times((size_t)threads, thread_count(in, out)), nn_times(nn_plus(rows, NN_MAX_ROWS - 1), out));
}

/* What all tasks share. */
typedef struct conv_task {
    const nn_kernels *kernels;
    const nn_conv_transpose *conv;
    const size_t *grid;
    const real *x;
    size_t cell_stride, channel_stride;
    real *y;
    const real *a; /* packed, or NULL: the convolution's own result is wanted */
    size_t rows;   /* of a */
} conv_task;

/* Offset of voxel (2z,2y,2x) in a channel of the output. */
static size_t voxel_of(const size_t grid[3], size_t cell) {
    size_t x = cell % grid[2], y = cell / grid[2] % grid[1], z = cell / grid[2] / grid[1];
    return (2 * z * 2 * grid[1] + 2 * y) * 2 * grid[2] + 2 * x;
}

static size_t tap_offset(const size_t grid[3], size_t tap) {
    return ((tap >> 2) * 2 * grid[1] + (tap >> 1 & 1)) * 2 * grid[2] + (tap & 1);
}

/* Where 16 cells, or what is left of them, put their voxels: at[l] + tap_offset of a channel. line: side by side. */
typedef struct places {
    size_t lanes, at[NN_LANES];
    bool line;
} places;

static places places_of(const size_t grid[3], size_t cell, size_t lanes) {
    places p = {.lanes = lanes};
    for (size_t l = 0; l < lanes; l++) p.at[l] = voxel_of(grid, cell + l);
    p.line = p.at[lanes - 1] == p.at[0] + 2 * (lanes - 1);
    return p;
}

/* Two taps that are neighbours along x, plus bias, go to their places; to: the first tap's in the channel of cell 0. */
static inline void put(const places *p, const real *even, const real *odd, real bias, real *to) {
    if (p->line) {
        real *line = to + p->at[0];
        for (size_t l = 0; l < p->lanes; l++) {
            line[2 * l] = even[l] + bias;
            line[2 * l + 1] = odd[l] + bias;
        }
        return;
    }
    for (size_t l = 0; l < p->lanes; l++) {
        to[p->at[l]] = even[l] + bias;
        to[p->at[l] + 1] = odd[l] + bias;
    }
}

/* products (out·8, 16) of one panel → y + bias */
static void scatter(const conv_task *t, const places *p, const real *products) {
    size_t voxels = TAPS * t->grid[0] * t->grid[1] * t->grid[2];
    for (size_t c = 0; c < t->conv->out; c++)
        for (size_t tap = 0; tap < TAPS; tap += 2) {
            const real *even = products + (c * TAPS + tap) * NN_LANES;
            put(p, even, even + NN_LANES, t->conv->bias[c], t->y + c * voxels + tap_offset(t->grid, tap));
        }
}

/* products (out·8, 16) of one panel → y (rows) = a · gelu(products + bias), two taps at a time */
static void mix(const conv_task *t, const places *p, real *products) {
    size_t out = t->conv->out, voxels = TAPS * t->grid[0] * t->grid[1] * t->grid[2];
    nn_tile tile = nn_tile_for(t->kernels, t->rows);
    for (size_t c = 0; c < out; c++) {
        real *channel = products + c * TAPS * NN_LANES;
        for (size_t i = 0; i < TAPS * NN_LANES; i++) channel[i] += t->conv->bias[c];
        t->kernels->gelu(TAPS * NN_LANES, channel, channel);
    }
    for (size_t tap = 0; tap < TAPS; tap += 2)
        for (size_t i = 0; i < t->rows; i += tile.rows) {
            enum { TILE = NN_MAX_ROWS * NN_LANES };
            real tiles[2 * TILE];
            for (size_t odd = 0; odd < 2; odd++)
                tile.product(NN_CHUNK, out, t->a + i * out, products + (tap + odd) * NN_LANES, TAPS * NN_LANES,
                             tiles + odd * TILE, NN_LANES, true, NULL);
            for (size_t r = 0; r < smaller(tile.rows, t->rows - i); r++) /* plus -0: as it is */
                put(p, tiles + r * NN_LANES, tiles + TILE + r * NN_LANES, REAL_C(-0.0),
                    t->y + (i + r) * voxels + tap_offset(t->grid, tap));
        }
}

/* Cells from `first` on. thread: scratch of thread_count. */
static void cells_forward(const conv_task *t, size_t first, size_t cells, real *thread) {
    size_t in = t->conv->in, out = t->conv->out, mr = t->kernels->tile.rows, stride = product_rows(out) * NN_LANES;
    real *panels = thread, *products = panels + CELLS * in;
    nn_pack_rows(t->kernels, NN_LANES, t->x + first * t->cell_stride, t->cell_stride, t->channel_stride, cells, in,
                 panels);
    for (size_t i = 0; i < out * TAPS; i += mr)
        for (size_t c = 0; c < cells; c += NN_LANES)
            t->kernels->tile.product(NN_CHUNK, in, t->conv->weight + i * in, panels + c * in, NN_LANES,
                                     products + c / NN_LANES * stride + i * NN_LANES, NN_LANES, true, NULL);
    for (size_t c = 0; c < cells; c += NN_LANES) {
        real *panel = products + c / NN_LANES * stride;
        places p = places_of(t->grid, first + c, smaller(cells - c, NN_LANES));
        if (t->a == NULL) scatter(t, &p, panel);
        else mix(t, &p, panel);
    }
}

static void forward(const nn_run *run, const conv_task *t, real *threads) {
    size_t cells = t->grid[0] * t->grid[1] * t->grid[2], each = thread_count(t->conv->in, t->conv->out);
    size_t panels = (cells + NN_LANES - 1) / NN_LANES,
           work = nn_times(panels, nn_times(t->conv->in, t->conv->out * TAPS));
    size_t team = (size_t)nn_team(run->threads, work);
    size_t block = smaller(CELLS, (panels + team - 1) / team * NN_LANES); /* few cells: something for each thread */
    ptrdiff_t tasks = (ptrdiff_t)((cells + block - 1) / block);
#pragma omp parallel for num_threads((int)team) schedule(dynamic, 1)
    for (ptrdiff_t i = 0; i < tasks; i++) {
        size_t first = (size_t)i * block;
        cells_forward(t, first, smaller(cells - first, block), threads + nn_thread() * each);
    }
}

void nn_conv_transpose_forward(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                               size_t channel_stride, const nn_conv_transpose *conv, real *y) {
    conv_task t = {run->kernels, conv, grid, x, cell_stride, channel_stride, y, NULL, 0};
    forward(run, &t, run->scratch);
}

void nn_conv_transpose_gelu_product(const nn_run *run, const size_t grid[3], const real *x, size_t cell_stride,
                                    size_t channel_stride, const nn_conv_transpose *conv, size_t rows, const real *a,
                                    real *y) {
    real *packed = run->scratch, *threads = packed + (rows + NN_MAX_ROWS - 1) * conv->out;
    nn_pack_rows(run->kernels, nn_tile_for(run->kernels, rows).rows, a, conv->out, 1, rows, conv->out, packed);
    conv_task t = {run->kernels, conv, grid, x, cell_stride, channel_stride, y, packed, rows};
    forward(run, &t, threads);
}

/* Backward of the convolution: blocks of cells, whose dy become rows like the weights' rows, (cells, out·8). Two products
   do the rest; a block is a whole number of chunks, so that the sums over cells are those of one product. */
#ifndef SEGFM_TINY
enum { BLOCK = 4 * NN_CHUNK };
#else
enum { BLOCK = NN_CHUNK };
#endif

/* Weights as a right operand; a block's rows, and these as a right operand one way or the other. */
typedef struct backward_sizes {
    size_t weights, rows, packed;
} backward_sizes;

static backward_sizes backward_sizes_of(const size_t grid[3], size_t in, size_t out) {
    size_t cells = nn_times(grid[0], nn_times(grid[1], grid[2])), taps = nn_times(out, TAPS);
    size_t block = smaller(BLOCK, cells), across = nn_panels_count(taps, block), along = nn_panels_count(block, taps);
    return (backward_sizes){nn_panels_count(in, taps), nn_times(block, taps), across > along ? across : along};
}

size_t nn_conv_transpose_backward_scratch(const size_t grid[3], size_t in, size_t out, int threads) {
    backward_sizes z = backward_sizes_of(grid, in, out);
    size_t cells = nn_times(grid[0], nn_times(grid[1], grid[2]));
    size_t products = nn_plus(nn_plus(z.weights, z.rows), nn_plus(z.packed, nn_matmul_scratch(threads)));
    size_t sums = nn_layernorm_scratch(nn_times(cells, TAPS));
    return products > sums ? products : sums;
}

/* dy of `cells` cells from `first` on → rows (cells, out·8) */
static void gather(const nn_run *run, const size_t grid[3], size_t first, size_t cells, size_t out, const real *dy,
                   real *rows) {
    size_t voxels = TAPS * grid[0] * grid[1] * grid[2];
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(cells, out))) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)cells; i += NN_LANES) {
        places p = places_of(grid, first + (size_t)i, smaller(cells - (size_t)i, NN_LANES));
        for (size_t c = 0; c < out; c++)
            for (size_t l = 0; l < p.lanes; l++) {
                const real *from = dy + c * voxels + p.at[l];
                real *to = rows + (((size_t)i + l) * out + c) * TAPS;
                for (size_t tap = 0; tap < TAPS; tap++) to[tap] = from[tap_offset(grid, tap)];
            }
    }
}

void nn_conv_transpose_backward(const nn_run *run, const size_t grid[3], size_t in, size_t out, const real *x,
                                size_t cell_stride, size_t channel_stride, const real *w, const real *dy, real *dx,
                                real *dw, real *db) {
    size_t cells = grid[0] * grid[1] * grid[2], taps = out * TAPS;
    backward_sizes z = backward_sizes_of(grid, in, out);
    real *weights = run->scratch, *rows = weights + z.weights, *packed = rows + z.rows;
    nn_run inner = {run->threads, packed + z.packed, run->kernels};
    for (size_t c = 0; db != NULL && c < out; c++) db[c] += nn_sum(run, cells * TAPS, dy + c * cells * TAPS);
    if (dx != NULL && channel_stride == 1) nn_panels_pack(w, in, taps, taps, 1, weights, run->threads);
    for (size_t first = 0; first < cells; first += BLOCK) {
        size_t count = smaller(cells - first, BLOCK);
        gather(run, grid, first, count, out, dy, rows);
        if (dx != NULL && channel_stride == 1) {
            const nn_panels right = {.n = in, .k = taps, .data = weights};
            nn_matmul_add(&inner, count, rows, taps, 1, &right, dx + first * cell_stride, cell_stride);
        } else if (dx != NULL) { /* the same elements, by columns */
            nn_panels_pack(rows, count, taps, taps, 1, packed, run->threads);
            const nn_panels right = {.n = count, .k = taps, .data = packed};
            nn_matmul_add(&inner, in, w, taps, 1, &right, dx + first, channel_stride);
        }
        if (dw != NULL) {
            nn_panels_pack(rows, taps, count, 1, taps, packed, run->threads);
            const nn_panels right = {.n = taps, .k = count, .data = packed};
            nn_matmul_add(&inner, in, x + first * cell_stride, channel_stride, cell_stride, &right, dw, taps);
        }
    }
}

/* Scratch: the sums of each channel's blocks. */
static size_t sum_blocks(size_t voxels) { return voxels / NN_SUM_BLOCK + (voxels % NN_SUM_BLOCK != 0); }

size_t nn_gelu_product_backward_scratch(size_t channels, size_t voxels, int threads) {
    (void)threads;
    return nn_times(channels, sum_blocks(voxels));
}

void nn_gelu_product_backward(const nn_run *run, size_t channels, size_t voxels, const real *a, const real *u,
                              const real *dy, real *da, real *du) {
    size_t blocks = sum_blocks(voxels);
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(nn_times(channels, voxels), 8))) schedule(static)
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(channels * blocks); task++) {
        size_t c = (size_t)task / blocks, at = (size_t)task % blocks * NN_SUM_BLOCK;
        size_t n = smaller(voxels - at, NN_SUM_BLOCK);
        real lane[NN_LANES];
        run->kernels->gelu_product_backward(n, a[c], u + c * voxels + at, dy + at, lane, du + c * voxels + at);
        for (int width = NN_LANES / 2; width > 0; width /= 2)
            for (int l = 0; l < width; l++) lane[l] += lane[l + width];
        run->scratch[task] = lane[0];
    }
    for (size_t c = 0; c < channels; c++) {
        real sum = 0;
        for (size_t b = 0; b < blocks; b++) sum += run->scratch[c * blocks + b];
        da[c] += sum;
    }
}
