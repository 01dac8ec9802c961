/* Gated recurrent unit. Its weights are read once per call and used for one or two rows: memory sets the pace, not
   arithmetic. */
#include <assert.h>

#include "nn.h"

enum { FEW = 4 }; /* rows up to which `few_rows` is faster than the product for many */

static size_t panels_of(size_t n) { return n / NN_LANES + (n % NN_LANES != 0); }

/* One panel of B times few rows, in the order of nn_matmul: the same bits. */
static void few_rows_panel(const nn_kernels *kernels, size_t rows, const real *x, const nn_panels *b, size_t panel,
                           real sums[FEW][NN_LANES]) {
    real widened[NN_CHUNK * NN_LANES];
    for (size_t r = 0; r < rows; r++)
        for (size_t l = 0; l < NN_LANES; l++) sums[r][l] = 0;
    for (size_t begin = 0; begin < b->k; begin += NN_CHUNK) {
        size_t count = b->k - begin < NN_CHUNK ? b->k - begin : NN_CHUNK, at = (panel * b->k + begin) * NN_LANES;
        const real *columns = b->data != NULL ? b->data + at : widened;
        if (b->data == NULL) kernels->widen(count * NN_LANES, b->half + at, widened);
        for (size_t r = 0; r < rows; r++) {
            const real *row = x + r * b->k + begin;
            real chunk[NN_LANES] = {0};
            for (size_t k = 0; k < count; k++) {
#pragma omp simd
                for (size_t l = 0; l < NN_LANES; l++) chunk[l] += row[k] * columns[k * NN_LANES + l];
            }
            for (size_t l = 0; l < NN_LANES; l++) sums[r][l] += chunk[l];
        }
    }
}

/* y (rows, n) = x (rows, k) · B + bias */
static void product(const nn_run *run, size_t rows, const real *x, const nn_panels *b, const real *bias, real *y) {
    if (rows > FEW) {
        nn_matmul(run, rows, x, b->k, 1, b, bias, y, b->n);
        return;
    }
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(b->n, b->k))) schedule(static)
    for (ptrdiff_t panel = 0; panel < (ptrdiff_t)panels_of(b->n); panel++) {
        real sums[FEW][NN_LANES];
        size_t column = (size_t)panel * NN_LANES, lanes = b->n - column < NN_LANES ? b->n - column : NN_LANES;
        few_rows_panel(run->kernels, rows, x, b, (size_t)panel, sums);
        for (size_t r = 0; r < rows; r++)
            for (size_t l = 0; l < lanes; l++) y[r * b->n + column + l] = sums[r][l] + bias[column + l];
    }
}

size_t nn_gru_scratch(size_t rows, size_t hidden, int threads) {
    return nn_plus(nn_matmul_scratch(threads), nn_times(nn_plus(rows, 1), nn_times(3, hidden)));
}

void nn_gru_forward(const nn_run *run, const nn_gru *g, size_t rows, const real *x, const real *before, real *y) {
    size_t h = g->recurrent.k;
    real *input = run->scratch + nn_matmul_scratch(run->threads), *recurrent = input + rows * 3 * h;
    assert(g->recurrent.n == 3 * h && g->input.n == 3 * h);
    product(run, rows, x, &g->input, g->input_bias, input);
    for (size_t i = 0; i < rows; i++, before = y, y += h, input += 3 * h) {
        const real *recurrent_sums = g->recurrent_bias; /* of no state */
        if (before != NULL) product(run, 1, before, &g->recurrent, g->recurrent_bias, recurrent);
        if (before != NULL) recurrent_sums = recurrent;
        NN_SIMD_MATH
        for (size_t j = 0; j < h; j++) {
            real r = nn_sigmoid(input[j] + recurrent_sums[j]);
            real z = nn_sigmoid(input[h + j] + recurrent_sums[h + j]);
            real n = nn_tanh(input[2 * h + j] + r * recurrent_sums[2 * h + j]);
            real old = before != NULL ? before[j] : 0;
            y[j] = n + z * (old - n);
        }
    }
}
