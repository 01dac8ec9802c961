/* The losses and their derivatives. Sums are in double: blocks of NN_SUM_BLOCK, then the blocks' sums in their order.
   What is not a sum is computed in vectors, a strip at a time. */
#include "nn.h"

enum { STRIP = 256 };

static ptrdiff_t blocks_of(size_t n) { return (ptrdiff_t)((n + NN_SUM_BLOCK - 1) / NN_SUM_BLOCK); }

static size_t block_end(size_t n, ptrdiff_t block) {
    size_t end = ((size_t)block + 1) * NN_SUM_BLOCK;
    return end < n ? end : n;
}

/* Voxels of the strip that begins at `begin`. */
static size_t strip_length(size_t n, ptrdiff_t block, size_t begin) {
    size_t left = block_end(n, block) - begin;
    return left < STRIP ? left : STRIP;
}

/* Three doubles for each block; a double takes the room of two floats. */
size_t nn_loss_scratch(size_t n) { return nn_times((size_t)blocks_of(n), 6); }

/* What a loss's loop over voxels has: its inputs, those it knows. */
typedef struct voxels {
    size_t n;
    const real *x, *other; /* logits; more logits, or distances */
    const uint8_t *t;
} voxels;

/* Sums over a strip, added to sums (3) one by one. The strip's derivatives, added to dx. In both, p is σ(x). */
typedef void strip_sums(const nn_kernels *kernels, size_t n, const voxels *at, double *sums);
typedef void strip_slopes(const nn_kernels *kernels, size_t n, const voxels *at, const real factor[2], real *dx);

static voxels voxels_from(const voxels *v, size_t i, size_t n) {
    return (voxels){n, v->x + i, v->other == NULL ? NULL : v->other + i, v->t == NULL ? NULL : v->t + i};
}

static void sum_strips(const nn_run *run, const voxels *v, strip_sums *strip, double total[3]) {
    double(*sums)[3] = (double(*)[3])(void *)run->scratch;
#pragma omp parallel for num_threads(nn_team(run->threads, v->n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(v->n); b++) {
        double sum[3] = {0};
        for (size_t i = (size_t)b * NN_SUM_BLOCK, n; i < block_end(v->n, b); i += n) {
            n = strip_length(v->n, b, i);
            const voxels at = voxels_from(v, i, n);
            strip(run->kernels, n, &at, sum);
        }
        memcpy(sums[b], sum, sizeof sum);
    }
    for (int k = 0; k < 3; k++) total[k] = 0;
    for (ptrdiff_t b = 0; b < blocks_of(v->n); b++)
        for (int k = 0; k < 3; k++) total[k] += sums[b][k];
}

/* factor: of voxels that are not inside, that are */
static void add_slopes(const nn_run *run, const voxels *v, strip_slopes *strip, const real factor[2], real *dx) {
#pragma omp parallel for num_threads(nn_team(run->threads, v->n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(v->n); b++)
        for (size_t i = (size_t)b * NN_SUM_BLOCK, n; i < block_end(v->n, b); i += n) {
            n = strip_length(v->n, b, i);
            const voxels at = voxels_from(v, i, n);
            strip(run->kernels, n, &at, factor, dx + i);
        }
}

/* ---- Dice ---- */

/* Σ p·t, Σ p, Σ t */
static void dice_sums(const nn_kernels *kernels, size_t n, const voxels *at, double *sums) {
    real p[STRIP];
    kernels->sigmoid(n, at->x, p);
    for (size_t i = 0; i < n; i++) {
        double one = (double)p[i], is = at->t[i] != 0;
        sums[0] += one * is, sums[1] += one, sums[2] += is;
    }
}

static void dice_slopes(const nn_kernels *kernels, size_t n, const voxels *at, const real factor[2], real *dx) {
    real p[STRIP], outside = factor[0], inside = factor[1];
    kernels->sigmoid(n, at->x, p);
#pragma omp simd
    for (size_t i = 0; i < n; i++) dx[i] += (at->t[i] != 0 ? inside : outside) * (p[i] * (REAL_C(1.0) - p[i]));
}

real nn_dice_loss(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t) {
    double sum = 0, of[3];
    for (size_t s = 0; s < samples; s++) {
        sum_strips(run, &(voxels){n, x + s * n, NULL, t + s * n}, dice_sums, of);
        sum += 1 - 2 * of[0] / (of[1] + of[2] + 1);
    }
    return (real)(sum / (double)samples);
}

/* By p, with S = Σ p + Σ t + 1: −2·(t·S − Σ p·t) / S². By x: times p·(1 − p). */
void nn_dice_backward(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t, real scale,
                      real *dx) {
    double of[3];
    for (size_t s = 0; s < samples; s++) {
        const voxels v = {n, x + s * n, NULL, t + s * n};
        sum_strips(run, &v, dice_sums, of);
        double all = of[1] + of[2] + 1, by_p = -2 * (double)scale / (double)samples / (all * all);
        const real factor[2] = {(real)(by_p * -of[0]), (real)(by_p * (all - of[0]))};
        add_slopes(run, &v, dice_slopes, factor, dx + s * n);
    }
}

/* ---- binary cross entropy ---- */

static void bce_sums(const nn_kernels *kernels, size_t n, const voxels *at, double *sums) {
    real curved[STRIP];
    kernels->softplus(n, at->x, curved);
    for (size_t i = 0; i < n; i++) {
        real above = at->x[i] < 0 ? 0 : at->x[i];
        sums[0] += (double)(above - (at->t[i] != 0 ? at->x[i] : 0)) + (double)curved[i];
    }
}

static void bce_slopes(const nn_kernels *kernels, size_t n, const voxels *at, const real factor[2], real *dx) {
    real p[STRIP];
    kernels->sigmoid(n, at->x, p);
#pragma omp simd
    for (size_t i = 0; i < n; i++) dx[i] += factor[0] * (p[i] - (at->t[i] != 0 ? REAL_C(1.0) : REAL_C(0.0)));
}

real nn_bce_loss(const nn_run *run, size_t n, const real *x, const uint8_t *t) {
    double of[3];
    sum_strips(run, &(voxels){n, x, NULL, t}, bce_sums, of);
    return (real)(of[0] / (double)n);
}

/* The factor of a mean, for every voxel. */
static void add_mean_slopes(const nn_run *run, const voxels *v, strip_slopes *strip, double scale, real *dx) {
    const real factor[2] = {(real)(scale / (double)v->n), (real)(scale / (double)v->n)};
    add_slopes(run, v, strip, factor, dx);
}

void nn_bce_backward(const nn_run *run, size_t n, const real *x, const uint8_t *t, real scale, real *dx) {
    add_mean_slopes(run, &(voxels){n, x, NULL, t}, bce_slopes, (double)scale, dx);
}

/* ---- consistency ---- */

static void consistency_sums(const nn_kernels *kernels, size_t n, const voxels *at, double *sums) {
    real p[STRIP], q[STRIP];
    kernels->sigmoid(n, at->x, p);
    kernels->sigmoid(n, at->other, q);
    for (size_t i = 0; i < n; i++) {
        double moved = (double)p[i] - (double)q[i];
        sums[0] += moved * moved;
    }
}

static void consistency_slopes(const nn_kernels *kernels, size_t n, const voxels *at, const real factor[2], real *dx) {
    real p[STRIP], q[STRIP];
    kernels->sigmoid(n, at->x, p);
    kernels->sigmoid(n, at->other, q);
#pragma omp simd
    for (size_t i = 0; i < n; i++) dx[i] += factor[0] * (p[i] - q[i]) * (p[i] * (REAL_C(1.0) - p[i]));
}

real nn_consistency_loss(const nn_run *run, size_t n, const real *a, const real *b) {
    double of[3];
    sum_strips(run, &(voxels){n, a, b, NULL}, consistency_sums, of);
    return (real)(of[0] / (double)n);
}

void nn_consistency_backward(const nn_run *run, size_t n, const real *a, const real *b, real scale, real *da,
                             real *db) {
    if (da != NULL) add_mean_slopes(run, &(voxels){n, a, b, NULL}, consistency_slopes, 2 * (double)scale, da);
    if (db != NULL) add_mean_slopes(run, &(voxels){n, b, a, NULL}, consistency_slopes, 2 * (double)scale, db);
}

/* ---- boundary ---- */

static void boundary_sums(const nn_kernels *kernels, size_t n, const voxels *at, double *sums) {
    real p[STRIP];
    kernels->sigmoid(n, at->x, p);
    for (size_t i = 0; i < n; i++) sums[0] += (double)p[i] * (double)at->other[i];
}

static void boundary_slopes(const nn_kernels *kernels, size_t n, const voxels *at, const real factor[2], real *dx) {
    real p[STRIP];
    kernels->sigmoid(n, at->x, p);
#pragma omp simd
    for (size_t i = 0; i < n; i++) dx[i] += factor[0] * at->other[i] * (p[i] * (REAL_C(1.0) - p[i]));
}

real nn_boundary_loss(const nn_run *run, size_t n, const real *x, const real *phi) {
    double of[3];
    sum_strips(run, &(voxels){n, x, phi, NULL}, boundary_sums, of);
    return (real)(of[0] / (double)n);
}

void nn_boundary_backward(const nn_run *run, size_t n, const real *x, const real *phi, real scale, real *dx) {
    add_mean_slopes(run, &(voxels){n, x, phi, NULL}, boundary_slopes, (double)scale, dx);
}

/* ---- the norm of a gradient ---- */

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
