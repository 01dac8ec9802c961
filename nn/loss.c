/* The losses and their derivatives. Sums are in double: blocks of NN_SUM_BLOCK, then the blocks' sums in their order. */
#include "nn.h"

static ptrdiff_t blocks_of(size_t n) { return (ptrdiff_t)((n + NN_SUM_BLOCK - 1) / NN_SUM_BLOCK); }

static size_t block_end(size_t n, ptrdiff_t block) {
    size_t end = ((size_t)block + 1) * NN_SUM_BLOCK;
    return end < n ? end : n;
}

/* So many voxels' terms are computed as vectors, then added to the double sums one by one. */
enum { STRIP = 256 };

static size_t strip_end(size_t n, ptrdiff_t block, size_t begin) {
    size_t end = block_end(n, block);
    return end - begin < STRIP ? end : begin + STRIP;
}

/* Three doubles for each block; a double takes the room of two floats. */
size_t nn_loss_scratch(size_t n) { return nn_times((size_t)blocks_of(n), 6); }

typedef struct dice_sums {
    double both, all; /* Σ p·t, Σ p + Σ t + 1 */
} dice_sums;

static dice_sums dice_sums_of(const nn_run *run, size_t n, const real *x, const uint8_t *t) {
    double(*sums)[3] = (double(*)[3])(void *)run->scratch, both = 0, predicted = 0, inside = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double sum[3] = {0};
        for (size_t begin = (size_t)b * NN_SUM_BLOCK, end; begin < block_end(n, b); begin = end) {
            real p[STRIP];
            end = strip_end(n, b, begin);
            NN_SIMD_MATH
            for (size_t i = begin; i < end; i++) p[i - begin] = nn_sigmoid(x[i]);
            for (size_t i = begin; i < end; i++) {
                double one = (double)p[i - begin], is = t[i] != 0;
                sum[0] += one * is, sum[1] += one, sum[2] += is;
            }
        }
        for (int k = 0; k < 3; k++) sums[b][k] = sum[k];
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) both += sums[b][0], predicted += sums[b][1], inside += sums[b][2];
    return (dice_sums){both, predicted + inside + 1};
}

real nn_dice_loss(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t) {
    double sum = 0;
    for (size_t s = 0; s < samples; s++) {
        dice_sums d = dice_sums_of(run, n, x + s * n, t + s * n);
        sum += 1 - 2 * d.both / d.all;
    }
    return (real)(sum / (double)samples);
}

/* By p: −2·(t·all − both) / all². By x: times p·(1 − p). */
void nn_dice_backward(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t, real scale,
                      real *dx) {
    for (size_t s = 0; s < samples; s++, x += n, t += n, dx += n) {
        dice_sums d = dice_sums_of(run, n, x, t);
        double factor = -2 * (double)scale / (double)samples / (d.all * d.all);
        real inside = (real)(factor * (d.all - d.both)), outside = (real)(factor * -d.both);
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
        for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
            size_t end = block_end(n, b);
            NN_SIMD_MATH
            for (size_t i = (size_t)b * NN_SUM_BLOCK; i < end; i++) {
                real p = nn_sigmoid(x[i]);
                dx[i] += (t[i] != 0 ? inside : outside) * (p * (REAL_C(1.0) - p));
            }
        }
    }
}

real nn_bce_loss(const nn_run *run, size_t n, const real *x, const uint8_t *t) {
    double *sums = (double *)(void *)run->scratch, sum = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double block = 0;
        for (size_t begin = (size_t)b * NN_SUM_BLOCK, end; begin < block_end(n, b); begin = end) {
            real curved[STRIP];
            end = strip_end(n, b, begin);
            NN_SIMD_MATH
            for (size_t i = begin; i < end; i++) curved[i - begin] = nn_exp(x[i] < 0 ? x[i] : -x[i]);
            NN_SIMD_MATH /* gcc makes vectors of the two functions one at a time only */
            for (size_t i = 0; i < end - begin; i++) curved[i] = nn_log1p(curved[i]);
            for (size_t i = begin; i < end; i++) {
                real above = x[i] < 0 ? 0 : x[i];
                block += (double)(above - (t[i] != 0 ? x[i] : 0)) + (double)curved[i - begin];
            }
        }
        sums[b] = block;
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) sum += sums[b];
    return (real)(sum / (double)n);
}

void nn_bce_backward(const nn_run *run, size_t n, const real *x, const uint8_t *t, real scale, real *dx) {
    real factor = (real)((double)scale / (double)n);
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        size_t end = block_end(n, b);
        NN_SIMD_MATH
        for (size_t i = (size_t)b * NN_SUM_BLOCK; i < end; i++)
            dx[i] += factor * (nn_sigmoid(x[i]) - (t[i] != 0 ? REAL_C(1.0) : REAL_C(0.0)));
    }
}

real nn_consistency_loss(const nn_run *run, size_t n, const real *a, const real *b) {
    double *sums = (double *)(void *)run->scratch, sum = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t k = 0; k < blocks_of(n); k++) {
        double block = 0;
        for (size_t begin = (size_t)k * NN_SUM_BLOCK, end; begin < block_end(n, k); begin = end) {
            real p[STRIP], q[STRIP];
            end = strip_end(n, k, begin);
            NN_SIMD_MATH
            for (size_t i = begin; i < end; i++) p[i - begin] = nn_sigmoid(a[i]), q[i - begin] = nn_sigmoid(b[i]);
            for (size_t i = 0; i < end - begin; i++) {
                double moved = (double)p[i] - (double)q[i];
                block += moved * moved;
            }
        }
        sums[k] = block;
    }
    for (ptrdiff_t k = 0; k < blocks_of(n); k++) sum += sums[k];
    return (real)(sum / (double)n);
}

/* dx += factor · (σ(x) − σ(other)) · σ'(x) */
static void consistency_side(const nn_run *run, size_t n, const real *x, const real *other, real factor, real *dx) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        size_t end = block_end(n, b);
        NN_SIMD_MATH
        for (size_t i = (size_t)b * NN_SUM_BLOCK; i < end; i++) {
            real p = nn_sigmoid(x[i]);
            dx[i] += factor * (p - nn_sigmoid(other[i])) * (p * (REAL_C(1.0) - p));
        }
    }
}

void nn_consistency_backward(const nn_run *run, size_t n, const real *a, const real *b, real scale, real *da,
                             real *db) {
    real factor = (real)(2 * (double)scale / (double)n);
    if (da != NULL) consistency_side(run, n, a, b, factor, da);
    if (db != NULL) consistency_side(run, n, b, a, factor, db);
}

real nn_boundary_loss(const nn_run *run, size_t n, const real *x, const real *phi) {
    double *sums = (double *)(void *)run->scratch, sum = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double block = 0;
        for (size_t begin = (size_t)b * NN_SUM_BLOCK, end; begin < block_end(n, b); begin = end) {
            real p[STRIP];
            end = strip_end(n, b, begin);
            NN_SIMD_MATH
            for (size_t i = begin; i < end; i++) p[i - begin] = nn_sigmoid(x[i]);
            for (size_t i = begin; i < end; i++) block += (double)p[i - begin] * (double)phi[i];
        }
        sums[b] = block;
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) sum += sums[b];
    return (real)(sum / (double)n);
}

void nn_boundary_backward(const nn_run *run, size_t n, const real *x, const real *phi, real scale, real *dx) {
    real factor = (real)((double)scale / (double)n);
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        size_t end = block_end(n, b);
        NN_SIMD_MATH
        for (size_t i = (size_t)b * NN_SUM_BLOCK; i < end; i++) {
            real p = nn_sigmoid(x[i]);
            dx[i] += factor * phi[i] * (p * (REAL_C(1.0) - p));
        }
    }
}

double nn_square_sum(const nn_run *run, size_t n, const real *g) {
    double *sums = (double *)(void *)run->scratch, sum = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double lane[NN_LANES] = {0};
        size_t i = (size_t)b * NN_SUM_BLOCK, end = block_end(n, b);
        for (; i + NN_LANES <= end; i += NN_LANES) {
#pragma omp simd
            for (size_t l = 0; l < NN_LANES; l++) lane[l] += (double)g[i + l] * (double)g[i + l];
        }
        for (size_t l = 0; i + l < end; l++) lane[l] += (double)g[i + l] * (double)g[i + l];
        for (size_t width = NN_LANES / 2; width > 0; width /= 2)
            for (size_t l = 0; l < width; l++) lane[l] += lane[l + width];
        sums[b] = lane[0];
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) sum += sums[b];
    return sum;
}
