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

/* ---- backward ---- */

enum { COLUMNS = 256 }; /* of a product that one thread takes at a time */

/* y (rows, n) = x (rows, k) · wᵀ + bias, w (n, k) as PyTorch has it: nn_rows_product's bits, panels made piece by piece. */
static void product_of_rows(const nn_run *run, size_t rows, const real *x, size_t n, size_t k, const real *w,
                            const real *bias, real *y) {
    ptrdiff_t panels = (ptrdiff_t)(n / NN_LANES + (n % NN_LANES != 0));
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, k))) schedule(static)
    for (ptrdiff_t panel = 0; panel < panels; panel++) {
        size_t column = (size_t)panel * NN_LANES, lanes = n - column < NN_LANES ? n - column : NN_LANES;
        for (size_t first = 0; first < rows; first += ROWS) {
            size_t count = rows - first < ROWS ? rows - first : ROWS;
            double sums[ROWS][NN_LANES] = {{0}};
            for (size_t begin = 0; begin < k; begin += PIECE) {
                size_t length = k - begin < PIECE ? k - begin : PIECE;
                real piece[PIECE * NN_LANES];
                run->kernels->transpose(NN_LANES, w + column * k + begin, k, lanes, length, piece);
                for (size_t r = 0; r < count; r++)
                    run->kernels->dots(length, x + (first + r) * k + begin, piece, sums[r]);
            }
            for (size_t r = 0; r < count; r++)
                for (size_t l = 0; l < lanes; l++)
                    y[(first + r) * n + column + l] = (real)(sums[r][l] + (double)bias[column + l]);
        }
    }
}

/* y (rows, k) += g (rows, n) · w (n, k): w is read once, its rows in chunks of NN_CHUNK. */
static void add_product(const nn_run *run, size_t rows, const real *g, size_t n, size_t k, const real *w, real *y) {
    ptrdiff_t tasks = (ptrdiff_t)(k / COLUMNS + (k % COLUMNS != 0));
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, k))) schedule(static)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        size_t column = (size_t)task * COLUMNS, count = k - column < COLUMNS ? k - column : COLUMNS;
        for (size_t first = 0; first < rows; first += ROWS)
            for (size_t begin = 0; begin < n; begin += NN_CHUNK) {
                size_t end = n - begin < NN_CHUNK ? n : begin + NN_CHUNK;
                size_t some = rows - first < ROWS ? rows - first : ROWS;
                real sums[ROWS][COLUMNS] = {{0}};
                for (size_t j = begin; j < end; j++)
                    for (size_t r = 0; r < some; r++) {
                        real factor = g[(first + r) * n + j];
                        const real *row = w + j * k + column;
#pragma omp simd
                        for (size_t c = 0; c < count; c++) sums[r][c] += factor * row[c];
                    }
                for (size_t r = 0; r < some; r++)
                    for (size_t c = 0; c < count; c++) y[(first + r) * k + column + c] += sums[r][c];
            }
    }
}

/* dw (n, k) += gᵀ (n, rows) · x (rows, k) */
static void add_gradients(const nn_run *run, size_t rows, const real *g, size_t n, size_t k, const real *x, real *dw) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, k))) schedule(static)
    for (ptrdiff_t j = 0; j < (ptrdiff_t)n; j++)
        for (size_t column = 0; column < k; column += COLUMNS) {
            size_t count = k - column < COLUMNS ? k - column : COLUMNS;
            real sums[COLUMNS] = {0}, *to = dw + (size_t)j * k + column;
            for (size_t r = 0; r < rows; r++) {
                real factor = g[r * n + (size_t)j];
                const real *from = x + r * k + column;
#pragma omp simd
                for (size_t c = 0; c < count; c++) sums[c] += factor * from[c];
            }
            for (size_t c = 0; c < count; c++) to[c] += sums[c];
        }
}

/* Both products' sums, which become their gradients; the gradient of a state. */
size_t nn_gru_backward_scratch(size_t rows, size_t in, size_t hidden, int threads) {
    (void)in, (void)threads;
    return nn_plus(nn_times(nn_times(2, rows), nn_times(3, hidden)), hidden);
}

void nn_gru_backward(const nn_run *run, size_t rows, size_t in, size_t h, const nn_gru_weights *w, const real *x,
                     const real *y, const real *dy, real *dx, const nn_gru_gradients *dw) {
    size_t gates = 3 * h;
    real *input = run->scratch, *recurrent = input + rows * gates, *dh = recurrent + rows * gates;
    if (rows == 0) return;
    product_of_rows(run, rows, x, gates, in, w->input, w->input_bias, input);
    memcpy(recurrent, w->recurrent_bias, gates * sizeof *recurrent); /* of no state: the bias alone */
    product_of_rows(run, rows - 1, y, gates, h, w->recurrent, w->recurrent_bias, recurrent + gates);
    for (size_t j = 0; j < h; j++) dh[j] = 0;
    for (size_t i = rows; i-- > 0;) {
        real *gi = input + i * gates, *gh = recurrent + i * gates;
        NN_SIMD_MATH
        for (size_t j = 0; j < h; j++) {
            real r = nn_sigmoid(gi[j] + gh[j]), z = nn_sigmoid(gi[h + j] + gh[h + j]);
            real n = nn_tanh(gi[2 * h + j] + r * gh[2 * h + j]), old = i > 0 ? y[(i - 1) * h + j] : 0;
            real d = dy[i * h + j] + dh[j];
            real dn = d * (REAL_C(1.0) - z) * (REAL_C(1.0) - n * n);
            real dz = d * (old - n) * z * (REAL_C(1.0) - z);
            real dr = dn * gh[2 * h + j] * r * (REAL_C(1.0) - r);
            gi[j] = gh[j] = dr;
            gi[h + j] = gh[h + j] = dz;
            gi[2 * h + j] = dn;
            gh[2 * h + j] = dn * r;
            dh[j] = d * z;
        }
        if (i > 0) add_product(run, 1, gh, gates, h, w->recurrent, dh);
    }
    if (dx != NULL) add_product(run, rows, input, gates, in, w->input, dx);
    add_gradients(run, rows, input, gates, in, x, dw->input);
    add_gradients(run, rows - 1, recurrent + gates, gates, h, y, dw->recurrent);
    nn_add_rows(run, rows, gates, input, dw->input_bias);
    nn_add_rows(run, rows, gates, recurrent, dw->recurrent_bias);
}
