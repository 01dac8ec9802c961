/* Gated recurrent unit. Its weights are read once per call and used for few rows: memory sets the pace, not arithmetic. */
#include <assert.h>

#include "nn.h"

enum { PIECE = 256, ROWS = 4 }; /* of a panel's rows that are used while they are at hand, for so many rows of x */

/* Columns [column, column + lanes) of the product, for at most ROWS rows. */
static void product_panel(const nn_kernels *kernels, size_t rows, const real *x, const nn_panels *b, size_t column,
                          size_t lanes, const real *bias, real *y) {
    double sums[ROWS][NN_LANES] = {{0}};
    for (size_t begin = 0; begin < b->k; begin += PIECE) {
        size_t count = b->k - begin < PIECE ? b->k - begin : PIECE, at = column * b->k + begin * NN_LANES;
        real widened[PIECE * NN_LANES];
        const real *piece = b->half == NULL ? b->data + at : widened;
        if (b->half != NULL) kernels->widen(count * NN_LANES, b->half + at, widened);
        for (size_t r = 0; r < rows; r++) kernels->dots(count, x + r * b->k + begin, piece, sums[r]);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t l = 0; l < lanes; l++) y[r * b->n + column + l] = (real)(sums[r][l] + (double)bias[column + l]);
}

void nn_rows_product(const nn_run *run, size_t rows, const real *x, const nn_panels *b, const real *bias, real *y) {
    ptrdiff_t panels = (ptrdiff_t)(b->n / NN_LANES + (b->n % NN_LANES != 0));
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(b->n, b->k))) schedule(static)
    for (ptrdiff_t panel = 0; panel < panels; panel++) {
        size_t column = (size_t)panel * NN_LANES, lanes = b->n - column < NN_LANES ? b->n - column : NN_LANES;
        for (size_t r = 0; r < rows; r += ROWS)
            product_panel(run->kernels, rows - r < ROWS ? rows - r : ROWS, x + r * b->k, b, column, lanes, bias,
                          y + r * b->n);
    }
}

size_t nn_gru_scratch(size_t rows, size_t hidden) { return nn_times(nn_plus(rows, 1), nn_times(3, hidden)); }

void nn_gru_forward(const nn_run *run, const nn_gru *g, size_t rows, const real *x, const real *before, real *y) {
    size_t h = g->recurrent.k;
    real *input = run->scratch, *recurrent = input + rows * 3 * h;
    assert(g->recurrent.n == 3 * h && g->input.n == 3 * h);
    nn_rows_product(run, rows, x, &g->input, g->input_bias, input);
    for (size_t i = 0; i < rows; i++, before = y, y += h, input += 3 * h) {
        const real *recurrent_sums = before != NULL ? recurrent : g->recurrent_bias; /* of no state: the bias alone */
        if (before != NULL) nn_rows_product(run, 1, before, &g->recurrent, g->recurrent_bias, recurrent);
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
