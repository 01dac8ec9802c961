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

/* Backward, an axis at a time, the other way round: along x, along y, along z. Each element gathers what comes down to it
   in ascending order of the axis. */
size_t nn_trilinear_backward_scratch(const size_t in[3], const size_t out[3], int threads) {
    (void)threads;
    return nn_plus(nn_times(nn_times(out[0], out[1]), in[2]), nn_times(nn_times(out[0], in[1]), in[2]));
}

/* to += weight · from, lines of n */
static void add_line(size_t n, real weight, const real *from, real *to) {
#pragma omp simd
    for (size_t i = 0; i < n; i++) to[i] += weight * from[i];
}

void nn_trilinear_backward(const nn_run *run, const size_t in[3], const size_t out[3], const real *dy, real *dx) {
    size_t width = in[2], plane = in[1] * in[2];
    real *along_x = run->scratch, *along_y = along_x + out[0] * out[1] * width;
    int team = nn_team(run->threads, out[0] * out[1] * out[2]);
    (void)team;
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (ptrdiff_t line = 0; line < (ptrdiff_t)(out[0] * out[1]); line++) {
            const real *from = dy + (size_t)line * out[2];
            real *to = along_x + (size_t)line * width;
            for (size_t i = 0; i < width; i++) to[i] = 0;
            for (size_t i = 0; i < out[2]; i++) {
                interpolation x = interpolate(i, width, out[2]);
                to[x.low] += x.low_weight * from[i];
                to[x.high] += x.high_weight * from[i];
            }
        }
#pragma omp for schedule(static)
        for (ptrdiff_t z = 0; z < (ptrdiff_t)out[0]; z++) {
            real *to = along_y + (size_t)z * plane;
            for (size_t i = 0; i < plane; i++) to[i] = 0;
            for (size_t i = 0; i < out[1]; i++) {
                interpolation y = interpolate(i, in[1], out[1]);
                const real *from = along_x + ((size_t)z * out[1] + i) * width;
                add_line(width, y.low_weight, from, to + y.low * width);
                add_line(width, y.high_weight, from, to + y.high * width);
            }
        }
#pragma omp for schedule(static)
        for (ptrdiff_t y = 0; y < (ptrdiff_t)in[1]; y++)
            for (size_t i = 0; i < out[0]; i++) {
                interpolation z = interpolate(i, in[0], out[0]);
                const real *from = along_y + i * plane + (size_t)y * width;
                add_line(width, z.low_weight, from, dx + z.low * plane + (size_t)y * width);
                add_line(width, z.high_weight, from, dx + z.high * plane + (size_t)y * width);
            }
    }
}
