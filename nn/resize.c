#include "nn.h"

typedef struct {
    size_t low, high;
    real low_weight, high_weight;
} interpolation;

/* PyTorch's area_pixel_compute_source_index with align_corners = False: in·(i + ½)/out − ½, not below 0. In double in both
   builds: in float, scales that are no power of two would triple the error of the whole resize. */
static interpolation interpolate(size_t i, size_t in, size_t out) {
    double source = (double)in / (double)out * ((double)i + 0.5) - 0.5;
    source = source < 0 ? 0 : source;
    size_t low = (size_t)source;
    low = low < in - 1 ? low : in - 1;
    real high_weight = (real)(source - (double)low);
    return (interpolation){low, low + (low < in - 1), REAL_C(1.0) - high_weight, high_weight};
}

/* Scratch: the interpolations along x, then a line of the input for each thread. */
static size_t table_reals(size_t length) { return nn_times(length, sizeof(interpolation) / sizeof(real)); }

size_t nn_trilinear_scratch(const size_t in[3], const size_t out[3], int threads) {
    return nn_plus(table_reals(out[2]), nn_times((size_t)threads, in[2]));
}

/* One line of the output: the four lines of the input around it are mixed once, then stretched. */
static void line_forward(const size_t in[3], const real *x, interpolation z, interpolation y,
                         const interpolation *along, size_t length, real *mixed, real *to) {
    const real *a = x + (z.low * in[1] + y.low) * in[2], *b = x + (z.low * in[1] + y.high) * in[2];
    const real *c = x + (z.high * in[1] + y.low) * in[2], *d = x + (z.high * in[1] + y.high) * in[2];
#pragma omp simd
    for (size_t i = 0; i < in[2]; i++)
        mixed[i] = z.low_weight * (y.low_weight * a[i] + y.high_weight * b[i]) +
                   z.high_weight * (y.low_weight * c[i] + y.high_weight * d[i]);
    for (size_t i = 0; i < length; i++)
        to[i] = along[i].low_weight * mixed[along[i].low] + along[i].high_weight * mixed[along[i].high];
}

void nn_trilinear_forward(const nn_run *run, const size_t in[3], const real *x, const size_t out[3], real *y) {
    interpolation *along = (interpolation *)(void *)run->scratch;
    real *mixed = run->scratch + table_reals(out[2]);
    for (size_t i = 0; i < out[2]; i++) along[i] = interpolate(i, in[2], out[2]);
#pragma omp parallel for num_threads(nn_team(run->threads, out[0] * out[1] * out[2])) schedule(static)
    for (ptrdiff_t line = 0; line < (ptrdiff_t)(out[0] * out[1]); line++)
        line_forward(in, x, interpolate((size_t)line / out[1], in[0], out[0]),
                     interpolate((size_t)line % out[1], in[1], out[1]), along, out[2], mixed + nn_thread() * in[2],
                     y + (size_t)line * out[2]);
}

/* Backward. Scratch: the interpolations of the three axes, then a line of the output for each thread. */
size_t nn_trilinear_backward_scratch(const size_t in[3], const size_t out[3], int threads) {
    (void)in;
    size_t entries = nn_plus(out[0], nn_plus(out[1], out[2]));
    return nn_plus(table_reals(entries), nn_times((size_t)threads, out[2]));
}

/* The first voxel of an axis that took something of input voxel i or one after it. */
static size_t first_of(const interpolation *axis, size_t length, size_t i) {
    size_t low = 0, high = length;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (axis[middle].high < i) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* How much that was. At the end of an axis, low and high are the same voxel. */
static inline real share(interpolation from, size_t i) {
    return (from.low == i ? from.low_weight : 0) + (from.high == i ? from.high_weight : 0);
}

/* The line (z,y) of the input: the output's lines that took something of it are mixed, then gathered along x. */
static void line_backward(const interpolation *const axes[3], const size_t out[3], size_t z, size_t y, size_t width,
                          const real *dy, real *mixed, real *dx) {
    for (size_t i = 0; i < out[2]; i++) mixed[i] = 0;
    for (size_t i = first_of(axes[0], out[0], z); i < out[0] && axes[0][i].low <= z; i++)
        for (size_t j = first_of(axes[1], out[1], y); j < out[1] && axes[1][j].low <= y; j++) {
            real weight = share(axes[0][i], z) * share(axes[1][j], y);
            const real *line = dy + (i * out[1] + j) * out[2];
#pragma omp simd
            for (size_t k = 0; k < out[2]; k++) mixed[k] += weight * line[k];
        }
    for (size_t x = 0, first = 0; x < width; x++) {
        real sum = 0;
        while (first < out[2] && axes[2][first].high < x) first++;
        for (size_t k = first; k < out[2] && axes[2][k].low <= x; k++) sum += share(axes[2][k], x) * mixed[k];
        dx[x] += sum;
    }
}

void nn_trilinear_backward(const nn_run *run, const size_t in[3], const size_t out[3], const real *dy, real *dx) {
    interpolation *table = (interpolation *)(void *)run->scratch;
    const interpolation *const axes[3] = {table, table + out[0], table + out[0] + out[1]};
    real *mixed = run->scratch + table_reals(out[0] + out[1] + out[2]);
    for (int axis = 0; axis < 3; axis++)
        for (size_t i = 0; i < out[axis]; i++) *table++ = interpolate(i, in[axis], out[axis]);
#pragma omp parallel for num_threads(nn_team(run->threads, out[0] * out[1] * out[2])) schedule(static)
    for (ptrdiff_t line = 0; line < (ptrdiff_t)(in[0] * in[1]); line++)
        line_backward(axes, out, (size_t)line / in[1], (size_t)line % in[1], in[2], dy, mixed + nn_thread() * out[2],
                      dx + (size_t)line * in[2]);
}
