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

void nn_trilinear_forward(const nn_run *run, const size_t in[3], const real *x, const size_t out[3], real *y) {
    (void)run;
#pragma omp parallel for num_threads(run->threads) schedule(static)
    for (ptrdiff_t line = 0; line < (ptrdiff_t)(out[0] * out[1]); line++) {
        interpolation z = interpolate((size_t)line / out[1], in[0], out[0]);
        interpolation row = interpolate((size_t)line % out[1], in[1], out[1]);
        const real *a = x + (z.low * in[1] + row.low) * in[2], *b = x + (z.low * in[1] + row.high) * in[2];
        const real *c = x + (z.high * in[1] + row.low) * in[2], *d = x + (z.high * in[1] + row.high) * in[2];
        real *to = y + (size_t)line * out[2];
        for (size_t i = 0; i < out[2]; i++) {
            interpolation s = interpolate(i, in[2], out[2]);
            real low = z.low_weight * (row.low_weight * a[s.low] + row.high_weight * b[s.low]) +
                       z.high_weight * (row.low_weight * c[s.low] + row.high_weight * d[s.low]);
            real high = z.low_weight * (row.low_weight * a[s.high] + row.high_weight * b[s.high]) +
                        z.high_weight * (row.low_weight * c[s.high] + row.high_weight * d[s.high]);
            to[i] = s.low_weight * low + s.high_weight * high;
        }
    }
}
