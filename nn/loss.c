/* Values of the losses. Sums are in double: blocks of NN_SUM_BLOCK, then the blocks' sums in their order. */
#include "nn.h"

static ptrdiff_t blocks_of(size_t n) { return (ptrdiff_t)((n + NN_SUM_BLOCK - 1) / NN_SUM_BLOCK); }

static size_t block_end(size_t n, ptrdiff_t block) {
    size_t end = ((size_t)block + 1) * NN_SUM_BLOCK;
    return end < n ? end : n;
}

/* Three doubles for each block; a double takes the room of two floats. */
size_t nn_loss_scratch(size_t n) { return nn_times((size_t)blocks_of(n), 6); }

static double dice_of_sample(const nn_run *run, size_t n, const real *x, const uint8_t *t) {
    double(*sums)[3] = (double(*)[3])(void *)run->scratch, both = 0, predicted = 0, inside = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double sum[3] = {0};
        for (size_t i = (size_t)b * NN_SUM_BLOCK; i < block_end(n, b); i++) {
            double p = (double)nn_sigmoid(x[i]), is = t[i] != 0;
            sum[0] += p * is, sum[1] += p, sum[2] += is;
        }
        for (int k = 0; k < 3; k++) sums[b][k] = sum[k];
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) both += sums[b][0], predicted += sums[b][1], inside += sums[b][2];
    return 1 - 2 * both / (predicted + inside + 1);
}

real nn_dice_loss(const nn_run *run, size_t samples, size_t n, const real *x, const uint8_t *t) {
    double sum = 0;
    for (size_t s = 0; s < samples; s++) sum += dice_of_sample(run, n, x + s * n, t + s * n);
    return (real)(sum / (double)samples);
}

real nn_bce_loss(const nn_run *run, size_t n, const real *x, const uint8_t *t) {
    double *sums = (double *)(void *)run->scratch, sum = 0;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) {
        double block = 0;
        for (size_t i = (size_t)b * NN_SUM_BLOCK; i < block_end(n, b); i++) {
            real size = x[i] < 0 ? -x[i] : x[i], above = x[i] < 0 ? 0 : x[i];
            block += (double)(above - (t[i] != 0 ? x[i] : 0)) + (double)nn_log1p(nn_exp(-size));
        }
        sums[b] = block;
    }
    for (ptrdiff_t b = 0; b < blocks_of(n); b++) sum += sums[b];
    return (real)(sum / (double)n);
}
