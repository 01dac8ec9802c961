#include "nn.h"

/* Folds the 16 lanes of a sum by a fixed tree. */
static real fold(real lane[NN_LANES]) {
    for (int width = NN_LANES / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++) lane[l] += lane[l + width];
    return lane[0];
}

/* The same for up to 16 rows' sums at once, lanes (rows,16) → sum (16): a row is a lane now. */
static void fold_rows(const nn_kernels *kernels, size_t rows, const real *lanes, real sum[NN_LANES]) {
    real t[NN_LANES * NN_LANES];
    kernels->transpose(NN_LANES, lanes, NN_LANES, rows, NN_LANES, t);
    for (int width = NN_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width * NN_LANES; i++) t[i] += t[width * NN_LANES + i];
    memcpy(sum, t, NN_LANES * sizeof *sum);
}

static size_t blocks_of(size_t n) { return n / NN_SUM_BLOCK + (n % NN_SUM_BLOCK != 0); }

static size_t block_length(size_t n, size_t b) {
    size_t left = n - b * NN_SUM_BLOCK;
    return left < NN_SUM_BLOCK ? left : NN_SUM_BLOCK;
}

static real block_sum(const nn_kernels *kernels, size_t n, const real *x) {
    real lanes[NN_LANES];
    kernels->sums(n, x, lanes);
    return fold(lanes);
}

/* Sums block sums like terms, in place, until one is left. */
static real fold_blocks(const nn_kernels *kernels, size_t blocks, real *partial) {
    while (blocks > 1) {
        size_t fewer = blocks_of(blocks);
        for (size_t b = 0; b < fewer; b++)
            partial[b] = block_sum(kernels, block_length(blocks, b), partial + b * NN_SUM_BLOCK);
        blocks = fewer;
    }
    return blocks == 0 ? 0 : partial[0];
}

real nn_sum(const nn_run *run, size_t n, const real *x) {
    ptrdiff_t blocks = (ptrdiff_t)blocks_of(n);
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks; b++)
        run->scratch[b] = block_sum(run->kernels, block_length(n, (size_t)b), x + (size_t)b * NN_SUM_BLOCK);
    return fold_blocks(run->kernels, (size_t)blocks, run->scratch);
}

static real sum_of_squares(const nn_run *run, size_t n, const real *x, real mean) {
    ptrdiff_t blocks = (ptrdiff_t)blocks_of(n);
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks; b++) {
        real lanes[NN_LANES];
        run->kernels->squares(block_length(n, (size_t)b), x + (size_t)b * NN_SUM_BLOCK, mean, lanes);
        run->scratch[b] = fold(lanes);
    }
    return fold_blocks(run->kernels, (size_t)blocks, run->scratch);
}

size_t nn_layernorm_scratch(size_t width) { return blocks_of(width); }

static real scale_of(real variance, real eps) {
#ifdef SEGFM_REAL_DOUBLE
    return 1.0 / sqrt(variance + eps);
#else
    return 1.0f / sqrtf(variance + eps);
#endif
}

/* At most 16 rows of at most one block, by one thread. Their folds, divisions and roots go together: one after the other,
   each would wait for the one before. */
static void short_rows(const nn_kernels *kernels, size_t rows, size_t width, const real *x, const real *w,
                       const real *b, real eps, real *y) {
    real lanes[NN_LANES * NN_LANES], mean[NN_LANES], scale[NN_LANES];
    for (size_t r = 0; r < rows; r++) kernels->sums(width, x + r * width, lanes + r * NN_LANES);
    fold_rows(kernels, rows, lanes, mean);
    for (size_t r = 0; r < NN_LANES; r++) mean[r] /= (real)width;
    for (size_t r = 0; r < rows; r++) kernels->squares(width, x + r * width, mean[r], lanes + r * NN_LANES);
    fold_rows(kernels, rows, lanes, scale);
    for (size_t r = 0; r < NN_LANES; r++) scale[r] = scale_of(scale[r] / (real)width, eps);
    for (size_t r = 0; r < rows; r++) kernels->normalise(width, x + r * width, mean[r], scale[r], w, b, y + r * width);
}

/* A row of many blocks, which the threads share. */
static void long_row(const nn_run *run, size_t width, const real *x, const real *w, const real *b, real eps, real *y) {
    real mean = nn_sum(run, width, x) / (real)width;
    real scale = scale_of(sum_of_squares(run, width, x, mean) / (real)width, eps);
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t block = 0; block < (ptrdiff_t)blocks_of(width); block++) {
        size_t i = (size_t)block * NN_SUM_BLOCK;
        run->kernels->normalise(block_length(width, (size_t)block), x + i, mean, scale, w + i, b + i, y + i);
    }
}

/* x (rows,width) += residual, unless that is NULL; then y */
static void all_short_rows(const nn_run *run, size_t rows, size_t width, const real *residual, real *added,
                           const real *x, const real *w, const real *b, real eps, real *y) {
    size_t team = (size_t)nn_team(run->threads, nn_times(rows, width)), each = (rows + team - 1) / team;
    if (each > NN_LANES) each = NN_LANES;
#pragma omp parallel for num_threads((int)team) schedule(static)
    for (ptrdiff_t first = 0; first < (ptrdiff_t)rows; first += (ptrdiff_t)each) {
        size_t left = rows - (size_t)first, at = (size_t)first * width;
        size_t count = left < each ? left : each;
        if (residual != NULL) {
#pragma omp simd
            for (size_t i = 0; i < count * width; i++) added[at + i] += residual[at + i];
        }
        short_rows(run->kernels, count, width, x + at, w, b, eps, y + at);
    }
}

void nn_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *x, const real *w, const real *b,
                          real eps, real *y) {
    if (width <= NN_SUM_BLOCK) all_short_rows(run, rows, width, NULL, NULL, x, w, b, eps, y);
    else
        for (size_t i = 0; i < rows; i++) long_row(run, width, x + i * width, w, b, eps, y + i * width);
}

void nn_add_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *residual, real *x,
                              const real *w, const real *b, real eps, real *y) {
    if (width > NN_SUM_BLOCK) {
        nn_add(run, rows * width, x, residual, x);
        nn_layernorm_forward(run, rows, width, x, w, b, eps, y);
        return;
    }
    all_short_rows(run, rows, width, residual, x, x, w, b, eps, y);
}

/* Scratch of the backward: the rows' means and scales, then two sums for each block of one long row. */
size_t nn_layernorm_backward_scratch(size_t rows, size_t width, int threads) {
    (void)threads;
    return nn_plus(nn_times(2, rows), nn_times(2, blocks_of(width)));
}

/* As short_rows; mean and scale (rows) are kept. */
static void short_rows_backward(const nn_kernels *kernels, size_t rows, size_t width, const real *x, const real *w,
                                real eps, const real *dy, real *mean_of, real *scale_of_row, real *dx) {
    real lanes[2][NN_LANES * NN_LANES], mean[NN_LANES], scale[NN_LANES], g[NN_LANES], gh[NN_LANES];
    for (size_t r = 0; r < rows; r++) kernels->sums(width, x + r * width, lanes[0] + r * NN_LANES);
    fold_rows(kernels, rows, lanes[0], mean);
    for (size_t r = 0; r < NN_LANES; r++) mean[r] /= (real)width;
    for (size_t r = 0; r < rows; r++) kernels->squares(width, x + r * width, mean[r], lanes[0] + r * NN_LANES);
    fold_rows(kernels, rows, lanes[0], scale);
    for (size_t r = 0; r < NN_LANES; r++) scale[r] = scale_of(scale[r] / (real)width, eps);
    memcpy(mean_of, mean, rows * sizeof *mean);
    memcpy(scale_of_row, scale, rows * sizeof *scale);
    if (dx == NULL) return;
    for (size_t r = 0; r < rows; r++)
        kernels->normalise_sums(width, x + r * width, mean[r], scale[r], w, dy + r * width, lanes[0] + r * NN_LANES,
                                lanes[1] + r * NN_LANES);
    fold_rows(kernels, rows, lanes[0], g);
    fold_rows(kernels, rows, lanes[1], gh);
    for (size_t r = 0; r < rows; r++)
        kernels->normalise_backward(width, x + r * width, mean[r], scale[r], w, dy + r * width, g[r] / (real)width,
                                    gh[r] / (real)width, dx + r * width);
}

/* scratch: two sums for each block */
static void long_row_backward(const nn_run *run, size_t width, const real *x, const real *w, real eps, const real *dy,
                              real *mean_of, real *scale_of_row, real *scratch, real *dx) {
    nn_run inner = {run->threads, scratch, run->kernels};
    size_t blocks = blocks_of(width);
    real mean = nn_sum(&inner, width, x) / (real)width;
    real scale = scale_of(sum_of_squares(&inner, width, x, mean) / (real)width, eps);
    *mean_of = mean, *scale_of_row = scale;
    if (dx == NULL) return;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t b = 0; b < (ptrdiff_t)blocks; b++) {
        size_t i = (size_t)b * NN_SUM_BLOCK;
        real g[NN_LANES], gh[NN_LANES];
        run->kernels->normalise_sums(block_length(width, (size_t)b), x + i, mean, scale, w + i, dy + i, g, gh);
        scratch[b] = fold(g);
        scratch[blocks + (size_t)b] = fold(gh);
    }
    real mean_g = fold_blocks(run->kernels, blocks, scratch) / (real)width;
    real mean_gh = fold_blocks(run->kernels, blocks, scratch + blocks) / (real)width;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t b = 0; b < (ptrdiff_t)blocks; b++) {
        size_t i = (size_t)b * NN_SUM_BLOCK;
        run->kernels->normalise_backward(block_length(width, (size_t)b), x + i, mean, scale, w + i, dy + i, mean_g,
                                         mean_gh, dx + i);
    }
}

/* dw += Σ dy·h, db += Σ dy, column by column as nn_add_rows does; threads take stretches of columns. */
enum { COLUMNS = 64 };

static void column_sums(const nn_run *run, size_t rows, size_t width, const real *x, const real *mean,
                        const real *scale, const real *dy, real *dw, real *db) {
    ptrdiff_t tasks = (ptrdiff_t)(width / COLUMNS + (width % COLUMNS != 0));
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(rows, width))) schedule(static)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        size_t first = (size_t)task * COLUMNS, count = width - first < COLUMNS ? width - first : COLUMNS;
        for (size_t begin = 0; begin < rows; begin += NN_ROWS_CHUNK) {
            size_t end = rows - begin < NN_ROWS_CHUNK ? rows : begin + NN_ROWS_CHUNK;
            real weight[COLUMNS] = {0}, bias[COLUMNS] = {0};
            for (size_t r = begin; r < end; r++) {
                const real *xr = x + r * width + first, *dr = dy + r * width + first;
                real m = mean[r], s = scale[r];
#pragma omp simd
                for (size_t c = 0; c < count; c++) {
                    weight[c] += dr[c] * ((xr[c] - m) * s);
                    bias[c] += dr[c];
                }
            }
            for (size_t c = 0; dw != NULL && c < count; c++) dw[first + c] += weight[c];
            for (size_t c = 0; db != NULL && c < count; c++) db[first + c] += bias[c];
        }
    }
}

void nn_layernorm_backward(const nn_run *run, size_t rows, size_t width, const real *x, const real *w, real eps,
                           const real *dy, real *dx, real *dw, real *db) {
    real *mean = run->scratch, *scale = mean + rows, *sums = scale + rows;
    if (width <= NN_SUM_BLOCK) {
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(rows, width))) schedule(static)
        for (ptrdiff_t first = 0; first < (ptrdiff_t)rows; first += NN_LANES) {
            size_t left = rows - (size_t)first, at = (size_t)first * width;
            short_rows_backward(run->kernels, left < NN_LANES ? left : NN_LANES, width, x + at, w, eps, dy + at,
                                mean + first, scale + first, dx == NULL ? NULL : dx + at);
        }
    } else {
        for (size_t i = 0; i < rows; i++)
            long_row_backward(run, width, x + i * width, w, eps, dy + i * width, mean + i, scale + i, sums,
                              dx == NULL ? NULL : dx + i * width);
    }
    if (dw != NULL || db != NULL) column_sums(run, rows, width, x, mean, scale, dy, dw, db);
}
