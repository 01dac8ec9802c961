#include "nn.h"

/* Folds 16 lanes by a fixed tree. */
static real fold(real lane[NN_LANES]) {
    for (int width = NN_LANES / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++) lane[l] += lane[l + width];
    return lane[0];
}

/* Sum of at most NN_SUM_BLOCK terms x − mean, or of their squares. */
static real block_sum(size_t n, const real *x) {
    real lane[NN_LANES] = {0};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
#pragma omp simd
        for (int l = 0; l < NN_LANES; l++) lane[l] += x[i + (size_t)l];
    }
    for (size_t l = 0; i + l < n; l++) lane[l] += x[i + l];
    return fold(lane);
}

static real block_squares(size_t n, const real *x, real mean) {
    real lane[NN_LANES] = {0};
    size_t i = 0;
    for (; i + NN_LANES <= n; i += NN_LANES) {
#pragma omp simd
        for (int l = 0; l < NN_LANES; l++) {
            real d = x[i + (size_t)l] - mean;
            lane[l] += d * d;
        }
    }
    for (size_t l = 0; i + l < n; l++) {
        real d = x[i + l] - mean;
        lane[l] += d * d;
    }
    return fold(lane);
}

static size_t blocks_of(size_t n) { return n / NN_SUM_BLOCK + (n % NN_SUM_BLOCK != 0); }

static size_t block_length(size_t n, size_t b) {
    size_t left = n - b * NN_SUM_BLOCK;
    return left < NN_SUM_BLOCK ? left : NN_SUM_BLOCK;
}

/* Sums block sums like terms, in place, until one is left. */
static real fold_blocks(size_t blocks, real *partial) {
    while (blocks > 1) {
        size_t fewer = blocks_of(blocks);
        for (size_t b = 0; b < fewer; b++) partial[b] = block_sum(block_length(blocks, b), partial + b * NN_SUM_BLOCK);
        blocks = fewer;
    }
    return blocks == 0 ? 0 : partial[0];
}

real nn_sum(size_t n, const real *x, real *partial, int threads) {
    ptrdiff_t blocks = (ptrdiff_t)blocks_of(n);
    (void)threads;
#pragma omp parallel for num_threads(nn_team(threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks; b++)
        partial[b] = block_sum(block_length(n, (size_t)b), x + (size_t)b * NN_SUM_BLOCK);
    return fold_blocks((size_t)blocks, partial);
}

static real sum_of_squares(size_t n, const real *x, real mean, real *partial, int threads) {
    ptrdiff_t blocks = (ptrdiff_t)blocks_of(n);
    (void)threads;
#pragma omp parallel for num_threads(nn_team(threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks; b++)
        partial[b] = block_squares(block_length(n, (size_t)b), x + (size_t)b * NN_SUM_BLOCK, mean);
    return fold_blocks((size_t)blocks, partial);
}

size_t nn_layernorm_scratch(size_t width) { return blocks_of(width); }

static real scale_of(real variance, real eps) {
#ifdef SEGFM_REAL_DOUBLE
    return 1.0 / sqrt(variance + eps);
#else
    return 1.0f / sqrtf(variance + eps);
#endif
}

/* A row of at most one block, by one thread. */
static void short_row(size_t width, const real *x, const real *w, const real *b, real eps, real *y) {
    real mean = block_sum(width, x) / (real)width;
    real scale = scale_of(block_squares(width, x, mean) / (real)width, eps);
#pragma omp simd
    for (size_t i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

/* A row of many blocks, which the threads share. */
static void long_row(const nn_run *run, size_t width, const real *x, const real *w, const real *b, real eps, real *y) {
    real mean = nn_sum(width, x, run->scratch, run->threads) / (real)width;
    real variance = sum_of_squares(width, x, mean, run->scratch, run->threads) / (real)width;
    real scale = scale_of(variance, eps);
#pragma omp parallel for simd num_threads(run->threads) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)width; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

void nn_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *x, const real *w, const real *b,
                          real eps, real *y) {
    if (width > NN_SUM_BLOCK) {
        for (size_t i = 0; i < rows; i++) long_row(run, width, x + i * width, w, b, eps, y + i * width);
        return;
    }
#pragma omp parallel for num_threads(nn_team(run->threads, rows *width)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i++)
        short_row(width, x + (size_t)i * width, w, b, eps, y + (size_t)i * width);
}

void nn_add_layernorm_forward(const nn_run *run, size_t rows, size_t width, const real *residual, real *x,
                              const real *w, const real *b, real eps, real *y) {
    if (width > NN_SUM_BLOCK) {
        nn_add(run, rows * width, x, residual, x);
        nn_layernorm_forward(run, rows, width, x, w, b, eps, y);
        return;
    }
#pragma omp parallel for num_threads(nn_team(run->threads, rows *width)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i++) {
        real *row = x + (size_t)i * width;
        const real *added = residual + (size_t)i * width;
#pragma omp simd
        for (size_t c = 0; c < width; c++) row[c] += added[c];
        short_row(width, row, w, b, eps, y + (size_t)i * width);
    }
}
