#include "nn.h"

/* Threads take whole stretches of STRETCH elements; each element is its own. */
enum { STRETCH = 1024 };

static ptrdiff_t stretches(size_t n) { return (ptrdiff_t)((n + STRETCH - 1) / STRETCH); }

static size_t stretch_end(size_t n, ptrdiff_t s) {
    size_t end = ((size_t)s + 1) * STRETCH;
    return end < n ? end : n;
}

void nn_gelu_forward(const nn_run *run, size_t n, const real *x, real *y) {
    /* eight: an element takes longer than an addition */
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, 8))) schedule(static)
    for (ptrdiff_t s = 0; s < stretches(n); s++) {
        size_t start = (size_t)s * STRETCH;
        run->kernels->gelu(stretch_end(n, s) - start, x + start, y + start);
    }
}

void nn_relu_forward(const nn_run *run, size_t n, const real *x, real *y) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

void nn_gelu_backward(const nn_run *run, size_t n, const real *x, const real *dy, real *dx) {
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, 8))) schedule(static)
    for (ptrdiff_t s = 0; s < stretches(n); s++) {
        size_t start = (size_t)s * STRETCH;
        run->kernels->gelu_backward(stretch_end(n, s) - start, x + start, dy + start, dx + start);
    }
}

void nn_relu_backward(const nn_run *run, size_t n, const real *y, const real *dy, real *dx) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) dx[i] += y[i] > 0 ? dy[i] : 0;
}

void nn_sigmoid_backward(const nn_run *run, size_t n, const real *y, const real *dy, real *dx) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) dx[i] += dy[i] * y[i] * (REAL_C(1.0) - y[i]);
}

/* Threads take whole stretches of columns; the rows of a column are summed in chunks. */
enum { COLUMNS = 64 };

void nn_add_rows(const nn_run *run, size_t rows, size_t columns, const real *x, real *y) {
    ptrdiff_t tasks = (ptrdiff_t)(columns / COLUMNS + (columns % COLUMNS != 0));
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(rows, columns))) schedule(static)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        size_t first = (size_t)task * COLUMNS, count = columns - first < COLUMNS ? columns - first : COLUMNS;
        for (size_t begin = 0; begin < rows; begin += NN_ROWS_CHUNK) {
            size_t end = rows - begin < NN_ROWS_CHUNK ? rows : begin + NN_ROWS_CHUNK;
            real sum[COLUMNS] = {0};
            for (size_t r = begin; r < end; r++) {
                const real *row = x + r * columns + first;
#pragma omp simd
                for (size_t c = 0; c < count; c++) sum[c] += row[c];
            }
            for (size_t c = 0; c < count; c++) y[first + c] += sum[c];
        }
    }
    (void)run;
}

void nn_add(const nn_run *run, size_t n, const real *a, const real *b, real *y) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) y[i] = a[i] + b[i];
}

void nn_sigmoid_forward(const nn_run *run, size_t n, const real *x, real *out) {
#pragma omp parallel for num_threads(nn_team(run->threads, n)) schedule(static)
    for (ptrdiff_t s = 0; s < stretches(n); s++) {
        size_t start = (size_t)s * STRETCH;
        run->kernels->sigmoid(stretch_end(n, s) - start, x + start, out + start);
    }
}

/* In float32, e^−x rounds to at least 1 − 2^-24 up to x = 1.5·2^-24; then 1/(1 + e^−x) rounds to ½. */
bool nn_sigmoid_above_half(real x) { return x > REAL_C(0x1.8p-24); }

void nn_fourier_forward(const nn_run *run, size_t n, const real *coordinates, size_t half, const real *g, real *y) {
    (void)run;
#pragma omp parallel for num_threads(nn_team(run->threads, nn_times(n, half))) schedule(static)
    for (ptrdiff_t i = 0; i < (ptrdiff_t)n; i++) {
        const real *c = coordinates + 3 * i;
        real *out = y + (size_t)i * 2 * half;
        double u[3];
        for (int axis = 0; axis < 3; axis++) u[axis] = 2.0 * (double)c[axis] - 1.0;
        for (size_t j = 0; j < half; j++) {
            double turns = (u[0] * (double)g[j] + u[1] * (double)g[half + j]) + u[2] * (double)g[2 * half + j];
            double sine, cosine;
            nn_sin_cos_turns(turns, &sine, &cosine);
            out[j] = (real)sine;
            out[half + j] = (real)cosine;
        }
    }
}
