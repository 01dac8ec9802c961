/* Gated recurrent unit. Its weights are read once per call and used for few rows: memory sets the pace, not arithmetic. */
#include <assert.h>

#include "nn.h"

/* Columns [column, column + lanes) of the product: each piece of the panel is used for all rows while it is at hand. */
static void product_panel(const nn_kernels *kernels, size_t rows, const real *x, const nn_panels *b, size_t column,
                          size_t lanes, const real *bias, real *y) {
    for (size_t r = 0; r < rows; r++) memset(y + r * b->n + column, 0, lanes * sizeof *y);
    for (size_t begin = 0; begin < b->k; begin += NN_ROWS_CHUNK) {
        size_t count = b->k - begin < NN_ROWS_CHUNK ? b->k - begin : NN_ROWS_CHUNK,
               at = column * b->k + begin * NN_LANES;
        real widened[NN_ROWS_CHUNK * NN_LANES];
        const real *piece = b->half == NULL ? b->data + at : widened;
        if (b->half != NULL) kernels->widen(count * NN_LANES, b->half + at, widened);
        for (size_t r = 0; r < rows; r++) {
            const real *row = x + r * b->k + begin;
            real sum[NN_LANES] = {0};
            for (size_t k = 0; k < count; k++) {
#pragma omp simd
                for (size_t l = 0; l < NN_LANES; l++) sum[l] += row[k] * piece[k * NN_LANES + l];
            }
            for (size_t l = 0; l < lanes; l++) y[r * b->n + column + l] += sum[l];
        }
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t l = 0; l < lanes; l++) y[r * b->n + column + l] += bias[column + l];
}

void nn_rows_product(const nn_run *run, size_t rows, const real *x, const nn_panels *b, const real *bias, real *y) {
    ptrdiff_t panels = (ptrdiff_t)(b->n / NN_LANES + (b->n % NN_LANES != 0));
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(b->n, b->k))) schedule(static)
    for (ptrdiff_t panel = 0; panel < panels; panel++) {
        size_t column = (size_t)panel * NN_LANES, lanes = b->n - column < NN_LANES ? b->n - column : NN_LANES;
        product_panel(run->kernels, rows, x, b, column, lanes, bias, y);
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
