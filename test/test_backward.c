/* Every backward operator, by one loop over a table:
     - against the formula in plain loops and in double; with whole numbers, where all sums are exact, to the bit;
     - in the double build against central differences of the forward, along a random direction and element by element;
     - added to what was there; each result alone where the others may be NULL; the same bits for 1, 2, 3 threads. */
#include "../nn/nn.h"
#include "random.h"
#include "test.h"

enum { INPUTS = 5, NUMBERS = 6 };

typedef struct op op;
struct op {
    const char *name;
    size_t shape[NUMBERS];
    size_t count[INPUTS]; /* elements of each input that has a gradient; 0 after the last */
    size_t outputs;       /* elements of the result */
    double range;         /* inputs in ±range */
    bool whole, alone;    /* sums of whole numbers are exact; gradients may be NULL */
    void (*forward)(const nn_run *run, const op *o, real *const in[], real *y);
    void (*backward)(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]);
    void (*plain)(const op *o, real *const in[], const double *dy, double *const d[]);
    size_t (*scratch)(const op *o, int threads); /* of the backward */
    double bound; /* float build, of the largest element; about twice what was measured (TEST_VERBOSE=1 prints it) */
};

static size_t none(const op *o, int threads) { return (void)o, (void)threads, (size_t)0; }

/* ---- products ---- */

static void linear_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    size_t rows = o->shape[0], k = o->shape[1], n = o->shape[2];
    real *packed = aligned_reals(nn_panels_count(n, k)), *scratch = aligned_reals(nn_matmul_scratch(run->threads));
    nn_panels_pack(in[1], n, k, k, 1, packed, 1);
    nn_run inner = {run->threads, scratch, run->kernels};
    nn_matmul(&inner, rows, in[0], k, 1, &(nn_panels){.n = n, .k = k, .data = packed}, in[2], y, n);
    free(packed), free(scratch);
}
static void linear_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                            real *const d[]) {
    (void)y;
    nn_linear_backward(run, o->shape[0], o->shape[1], o->shape[2], in[0], in[1], dy, d[0], d[1], d[2]);
}
static void linear_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    size_t rows = o->shape[0], k = o->shape[1], n = o->shape[2];
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++) {
            d[2][j] += dy[r * n + j];
            for (size_t i = 0; i < k; i++) {
                d[0][r * k + i] += dy[r * n + j] * (double)in[1][j * k + i];
                d[1][j * k + i] += dy[r * n + j] * (double)in[0][r * k + i];
            }
        }
}
static size_t linear_scratch(const op *o, int threads) {
    return nn_linear_backward_scratch(o->shape[0], o->shape[1], o->shape[2], threads);
}

static void rows_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    (void)run;
    for (size_t i = 0; i < o->outputs; i++) y[i] = in[0][i % o->shape[1]];
}
static void rows_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    (void)in, (void)y;
    nn_add_rows(run, o->shape[0], o->shape[1], dy, d[0]);
}
static void rows_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    (void)in;
    for (size_t i = 0; i < o->outputs; i++) d[0][i % o->shape[1]] += dy[i];
}

/* ---- attention ---- */

static nn_attention attention_of(const op *o, real *const in[], real *y) {
    size_t width = o->shape[2] * o->shape[3];
    return (nn_attention){o->shape[0], o->shape[1], o->shape[2], o->shape[3], in[0],     in[1],      in[2],
                          width + 1,   width + 2,   width + 3,   y,           width + 4, REAL_C(0.3)};
}
static void attention_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    nn_attention at = attention_of(o, in, y);
    real *scratch = aligned_reals(nn_attention_scratch(at.queries, at.keys, at.heads, at.head_dim, run->threads));
    nn_run inner = {run->threads, scratch, run->kernels};
    nn_attention_forward(&inner, &at);
    free(scratch);
}
static void attention_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                               real *const d[]) {
    nn_attention at = attention_of(o, in, y);
    nn_attention_backward(run, &at, dy, d[0], d[1], d[2]);
}
static void attention_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    nn_attention at = attention_of(o, in, NULL);
    double *p = malloc(at.keys * sizeof *p), *dp = malloc(at.keys * sizeof *dp);
    for (size_t h = 0; h < at.heads; h++)
        for (size_t i = 0; i < at.queries; i++) {
            size_t dims = at.head_dim, to = i * at.q_row + h * dims;
            const real *q = at.q + to, *k = at.k + h * dims, *v = at.v + h * dims;
            const double *down = dy + i * at.out_row + h * dims;
            double sum = 0, mean = 0, scale = (double)at.scale;
            for (size_t j = 0; j < at.keys; j++) {
                double s = dp[j] = 0;
                for (size_t c = 0; c < dims; c++) {
                    s += (double)q[c] * (double)k[j * at.k_row + c];
                    dp[j] += down[c] * (double)v[j * at.v_row + c];
                }
                sum += p[j] = exp(s * scale);
            }
            for (size_t j = 0; j < at.keys; j++) p[j] /= sum, mean += p[j] * dp[j];
            for (size_t j = 0; j < at.keys; j++)
                for (size_t c = 0; c < dims; c++) {
                    double ds = p[j] * (dp[j] - mean) * scale;
                    d[0][to + c] += ds * (double)k[j * at.k_row + c];
                    d[1][j * at.k_row + h * dims + c] += ds * (double)q[c];
                    d[2][j * at.v_row + h * dims + c] += p[j] * down[c];
                }
        }
    free(p), free(dp);
}
static size_t attention_scratch(const op *o, int threads) {
    return nn_attention_backward_scratch(o->shape[0], o->shape[1], o->shape[2], o->shape[3], threads);
}

/* ---- elementwise and normalisation ---- */

static void gelu_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    nn_gelu_forward(run, o->outputs, in[0], y);
}
static void gelu_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    (void)y;
    nn_gelu_backward(run, o->outputs, in[0], dy, d[0]);
}
static double gelu_slope(double x) {
    return 0.5 * (1 + erf(x * 0.70710678118654752440)) + x * exp(-0.5 * x * x) * 0.39894228040143267794;
}
static void gelu_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    for (size_t i = 0; i < o->outputs; i++) d[0][i] += dy[i] * gelu_slope((double)in[0][i]);
}

static void relu_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    nn_relu_forward(run, o->outputs, in[0], y);
}
static void relu_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    (void)in;
    nn_relu_backward(run, o->outputs, y, dy, d[0]);
}
static void relu_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    for (size_t i = 0; i < o->outputs; i++) d[0][i] += in[0][i] > 0 ? dy[i] : 0;
}

static void sigmoid_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    nn_sigmoid_forward(run, o->outputs, in[0], y);
}
static void sigmoid_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                             real *const d[]) {
    (void)in;
    nn_sigmoid_backward(run, o->outputs, y, dy, d[0]);
}
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }
static void sigmoid_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    for (size_t i = 0; i < o->outputs; i++) d[0][i] += dy[i] * sigmoid_slope((double)in[0][i]);
}

static void norm_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    real *scratch = aligned_reals(nn_layernorm_scratch(o->shape[1]));
    nn_run inner = {run->threads, scratch, run->kernels};
    nn_layernorm_forward(&inner, o->shape[0], o->shape[1], in[0], in[1], in[2], REAL_C(1e-5), y);
    free(scratch);
}
static void norm_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    (void)y;
    nn_layernorm_backward(run, o->shape[0], o->shape[1], in[0], in[1], REAL_C(1e-5), dy, d[0], d[1], d[2]);
}
static void norm_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    size_t n = o->shape[1];
    for (size_t r = 0; r < o->shape[0]; r++) {
        const real *x = in[0] + r * n;
        double mean = 0, variance = 0, mean_g = 0, mean_gh = 0;
        for (size_t j = 0; j < n; j++) mean += (double)x[j] / (double)n;
        for (size_t j = 0; j < n; j++) variance += ((double)x[j] - mean) * ((double)x[j] - mean) / (double)n;
        double scale = 1 / sqrt(variance + (double)REAL_C(1e-5));
        for (size_t j = 0; j < n; j++) {
            double h = ((double)x[j] - mean) * scale, g = dy[r * n + j] * (double)in[1][j];
            mean_g += g / (double)n, mean_gh += g * h / (double)n;
            d[1][j] += dy[r * n + j] * h;
            d[2][j] += dy[r * n + j];
        }
        for (size_t j = 0; j < n; j++) {
            double h = ((double)x[j] - mean) * scale, g = dy[r * n + j] * (double)in[1][j];
            d[0][r * n + j] += scale * (g - mean_g - h * mean_gh);
        }
    }
}
static size_t norm_scratch(const op *o, int threads) {
    return nn_layernorm_backward_scratch(o->shape[0], o->shape[1], threads);
}

/* ---- recurrence: x, then the four tensors of weights ---- */

static void gru_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    size_t rows = o->shape[0], k = o->shape[1], h = o->shape[2];
    real *ih = aligned_reals(nn_panels_count(3 * h, k)), *hh = aligned_reals(nn_panels_count(3 * h, h));
    real *scratch = aligned_reals(nn_gru_scratch(rows, h));
    nn_panels_pack(in[1], 3 * h, k, k, 1, ih, 1);
    nn_panels_pack(in[2], 3 * h, h, h, 1, hh, 1);
    nn_gru gru = {{.n = 3 * h, .k = k, .data = ih}, {.n = 3 * h, .k = h, .data = hh}, in[3], in[4]};
    nn_run inner = {run->threads, scratch, run->kernels};
    nn_gru_forward(&inner, &gru, rows, in[0], NULL, y);
    free(ih), free(hh), free(scratch);
}
static void gru_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    const nn_gru_weights w = {in[1], in[2], in[3], in[4]};
    const nn_gru_gradients dw = {d[1], d[2], d[3], d[4]};
    nn_gru_backward(run, o->shape[0], o->shape[1], o->shape[2], &w, in[0], y, dy, d[0], &dw);
}
static void gru_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    size_t rows = o->shape[0], k = o->shape[1], h = o->shape[2], gates = 3 * h;
    double *y = calloc((rows + 1) * h, sizeof *y), *a = malloc(rows * gates * sizeof *a); /* y: a row of zeros first */
    double *b = malloc(rows * gates * sizeof *b), *dh = calloc(h, sizeof *dh), *back = malloc(h * sizeof *back);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < gates; j++) {
            double u = (double)in[3][j], v = (double)in[4][j];
            for (size_t c = 0; c < k; c++) u += (double)in[0][i * k + c] * (double)in[1][j * k + c];
            for (size_t c = 0; c < h; c++) v += y[i * h + c] * (double)in[2][j * h + c];
            a[i * gates + j] = u, b[i * gates + j] = v;
        }
        for (size_t j = 0; j < h; j++) {
            const double *u = a + i * gates + j, *v = b + i * gates + j;
            double r = sigmoid(u[0] + v[0]), z = sigmoid(u[h] + v[h]), n = tanh(u[2 * h] + r * v[2 * h]);
            y[(i + 1) * h + j] = n + z * (y[i * h + j] - n);
        }
    }
    for (size_t i = rows; i-- > 0;) {
        for (size_t j = 0; j < h; j++) {
            double *u = a + i * gates + j, *v = b + i * gates + j, old = y[i * h + j], down = dy[i * h + j] + dh[j];
            double r = sigmoid(u[0] + v[0]), z = sigmoid(u[h] + v[h]), n = tanh(u[2 * h] + r * v[2 * h]);
            double dn = down * (1 - z) * (1 - n * n);
            u[0] = dn * v[2 * h] * r * (1 - r), u[h] = down * (old - n) * z * (1 - z), u[2 * h] = dn;
            v[0] = u[0], v[h] = u[h], v[2 * h] = dn * r;
            back[j] = down * z;
        }
        for (size_t j = 0; j < gates; j++) {
            double u = a[i * gates + j], v = b[i * gates + j];
            d[3][j] += u, d[4][j] += v;
            for (size_t c = 0; c < k; c++) {
                d[0][i * k + c] += u * (double)in[1][j * k + c];
                d[1][j * k + c] += u * (double)in[0][i * k + c];
            }
            for (size_t c = 0; c < h; c++) {
                back[c] += v * (double)in[2][j * h + c];
                d[2][j * h + c] += v * y[i * h + c];
            }
        }
        memcpy(dh, back, h * sizeof *dh);
    }
    free(y), free(a), free(b), free(dh), free(back);
}
static size_t gru_scratch(const op *o, int threads) {
    return nn_gru_backward_scratch(o->shape[0], o->shape[1], o->shape[2], threads);
}

/* ---- losses: every third voxel is inside; dy is the scale ---- */

static uint8_t *truth_of(size_t n) {
    uint8_t *t = malloc(n);
    for (size_t i = 0; i < n; i++) t[i] = (uint8_t)(i % 3 == 0 ? 1 + i % 2 : 0);
    return t;
}
static size_t loss_scratch(const op *o, int threads) { return (void)threads, nn_loss_scratch(o->count[0]); }
static real *const_scratch(const op *o) { return aligned_reals(nn_loss_scratch(o->count[0])); }

static void dice_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    uint8_t *t = truth_of(o->count[0]);
    nn_run inner = {run->threads, const_scratch(o), run->kernels};
    y[0] = nn_dice_loss(&inner, o->shape[0], o->shape[1], in[0], t);
    free(t), free(inner.scratch);
}
static void dice_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    uint8_t *t = truth_of(o->count[0]);
    (void)y;
    nn_dice_backward(run, o->shape[0], o->shape[1], in[0], t, dy[0], d[0]);
    free(t);
}
static void dice_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    size_t n = o->shape[1];
    uint8_t *t = truth_of(o->count[0]);
    for (size_t s = 0; s < o->shape[0]; s++) {
        double both = 0, all = 1;
        for (size_t i = s * n; i < (s + 1) * n; i++) {
            double p = sigmoid((double)in[0][i]), inside = t[i] != 0;
            both += p * inside, all += p + inside;
        }
        for (size_t i = s * n; i < (s + 1) * n; i++) {
            double slope = -2 * ((double)(t[i] != 0) * all - both) / (all * all) / (double)o->shape[0];
            d[0][i] += dy[0] * slope * sigmoid_slope((double)in[0][i]);
        }
    }
    free(t);
}

static void bce_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    uint8_t *t = truth_of(o->count[0]);
    nn_run inner = {run->threads, const_scratch(o), run->kernels};
    y[0] = nn_bce_loss(&inner, o->count[0], in[0], t);
    free(t), free(inner.scratch);
}
static void bce_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    uint8_t *t = truth_of(o->count[0]);
    (void)y;
    nn_bce_backward(run, o->count[0], in[0], t, dy[0], d[0]);
    free(t);
}
static void bce_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    uint8_t *t = truth_of(o->count[0]);
    for (size_t i = 0; i < o->count[0]; i++)
        d[0][i] += dy[0] * (sigmoid((double)in[0][i]) - (t[i] != 0)) / (double)o->count[0];
    free(t);
}

static void consistency_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    nn_run inner = {run->threads, const_scratch(o), run->kernels};
    y[0] = nn_consistency_loss(&inner, o->count[0], in[0], in[1]);
    free(inner.scratch);
}
static void consistency_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                                 real *const d[]) {
    (void)y;
    nn_consistency_backward(run, o->count[0], in[0], in[1], dy[0], d[0], d[1]);
}
static void consistency_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    for (size_t i = 0; i < o->count[0]; i++) {
        double a = (double)in[0][i], b = (double)in[1][i], moved = 2 * dy[0] * (sigmoid(a) - sigmoid(b));
        d[0][i] += moved * sigmoid_slope(a) / (double)o->count[0];
        d[1][i] -= moved * sigmoid_slope(b) / (double)o->count[0];
    }
}

static real *distances(size_t n) { return random_reals(77, n, -9, 20); }
static void boundary_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    real *phi = distances(o->count[0]);
    nn_run inner = {run->threads, const_scratch(o), run->kernels};
    y[0] = nn_boundary_loss(&inner, o->count[0], in[0], phi);
    free(phi), free(inner.scratch);
}
static void boundary_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                              real *const d[]) {
    real *phi = distances(o->count[0]);
    (void)y;
    nn_boundary_backward(run, o->count[0], in[0], phi, dy[0], d[0]);
    free(phi);
}
static void boundary_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    real *phi = distances(o->count[0]);
    for (size_t i = 0; i < o->count[0]; i++)
        d[0][i] += dy[0] * (double)phi[i] * sigmoid_slope((double)in[0][i]) / (double)o->count[0];
    free(phi);
}

/* ---- volumes ---- */

/* shape: grid, in, out, and 1 where the cells of a channel lie side by side */
static size_t cells_of(const op *o) { return o->shape[0] * o->shape[1] * o->shape[2]; }
static void strides_of(const op *o, size_t *cell, size_t *channel) {
    *cell = o->shape[5] ? 1 : o->shape[3], *channel = o->shape[5] ? cells_of(o) : 1;
}
static void conv_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    size_t cell, channel;
    strides_of(o, &cell, &channel);
    real *packed = aligned_reals(nn_conv_transpose_count(o->shape[3], o->shape[4]));
    nn_run inner = {run->threads, aligned_reals(nn_conv_transpose_scratch(o->shape[3], o->shape[4], 0, run->threads)),
                    run->kernels};
    nn_conv_transpose_pack(run->kernels, in[1], o->shape[3], o->shape[4], packed);
    nn_conv_transpose conv = {o->shape[3], o->shape[4], packed, in[2]};
    nn_conv_transpose_forward(&inner, o->shape, in[0], cell, channel, &conv, y);
    free(packed), free(inner.scratch);
}
static void conv_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    size_t cell, channel;
    strides_of(o, &cell, &channel);
    (void)y;
    nn_conv_transpose_backward(run, o->shape, o->shape[3], o->shape[4], in[0], cell, channel, in[1], dy, d[0], d[1],
                               d[2]);
}
static void conv_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    const size_t *g = o->shape;
    size_t cell, channel, inputs = g[3], out = g[4];
    strides_of(o, &cell, &channel);
    for (size_t z = 0; z < 2 * g[0]; z++)
        for (size_t y = 0; y < 2 * g[1]; y++)
            for (size_t x = 0; x < 2 * g[2]; x++)
                for (size_t c = 0; c < out; c++) {
                    double down = dy[((c * 2 * g[0] + z) * 2 * g[1] + y) * 2 * g[2] + x];
                    size_t from = (z / 2 * g[1] + y / 2) * g[2] + x / 2, tap = z % 2 * 4 + y % 2 * 2 + x % 2;
                    d[2][c] += down;
                    for (size_t i = 0; i < inputs; i++) {
                        size_t at = from * cell + i * channel, w = (i * out + c) * 8 + tap;
                        d[0][at] += down * (double)in[1][w];
                        d[1][w] += down * (double)in[0][at];
                    }
                }
}
static size_t conv_scratch(const op *o, int threads) {
    return nn_conv_transpose_backward_scratch(o->shape, o->shape[3], o->shape[4], threads);
}

static void mix_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    size_t channels = o->shape[0], voxels = o->shape[1];
    real *gelu = malloc(channels * voxels * sizeof *gelu);
    nn_gelu_forward(run, channels * voxels, in[1], gelu);
    for (size_t i = 0; i < voxels; i++) y[i] = 0;
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < voxels; i++) y[i] += in[0][c] * gelu[c * voxels + i];
    free(gelu);
}
static void mix_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy, real *const d[]) {
    (void)y;
    nn_gelu_product_backward(run, o->shape[0], o->shape[1], in[0], in[1], dy, d[0], d[1]);
}
static void mix_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    size_t voxels = o->shape[1];
    for (size_t c = 0; c < o->shape[0]; c++)
        for (size_t i = 0; i < voxels; i++) {
            double u = (double)in[1][c * voxels + i];
            d[0][c] += 0.5 * u * (1 + erf(u * 0.70710678118654752440)) * dy[i];
            d[1][c * voxels + i] += (double)in[0][c] * dy[i] * gelu_slope(u);
        }
}
static size_t mix_scratch(const op *o, int threads) {
    return nn_gelu_product_backward_scratch(o->shape[0], o->shape[1], threads);
}

/* shape: in, then out */
static void trilinear_forward(const nn_run *run, const op *o, real *const in[], real *y) {
    real *scratch = aligned_reals(nn_trilinear_scratch(o->shape, o->shape + 3, run->threads));
    nn_run inner = {run->threads, scratch, run->kernels};
    nn_trilinear_forward(&inner, o->shape, in[0], o->shape + 3, y);
    free(scratch);
}
static void trilinear_backward(const nn_run *run, const op *o, real *const in[], real *y, const real *dy,
                               real *const d[]) {
    (void)in, (void)y;
    nn_trilinear_backward(run, o->shape, o->shape + 3, dy, d[0]);
}
/* Where voxel i of an axis reads: `high` of the voxel at `*low` + 1, the rest of that at `*low`. */
static double source(size_t i, size_t in, size_t out, size_t *low) {
    double s = ((double)i + 0.5) * (double)in / (double)out - 0.5;
    s = s < 0 ? 0 : s;
    *low = (size_t)s < in - 1 ? (size_t)s : in - 1;
    return *low == in - 1 ? 0 : s - (double)*low;
}
static void trilinear_plain(const op *o, real *const in[], const double *dy, double *const d[]) {
    const size_t *n = o->shape, *to = o->shape + 3;
    (void)in;
    for (size_t i = 0; i < o->outputs; i++) {
        const size_t at[3] = {i / (to[1] * to[2]), i / to[2] % to[1], i % to[2]};
        size_t low[3];
        double high[3];
        for (int a = 0; a < 3; a++) high[a] = source(at[a], n[a], to[a], low + a);
        for (size_t corner = 0; corner < 8; corner++) {
            double weight = 1;
            size_t voxel = 0;
            for (int a = 0; a < 3; a++) {
                size_t up = corner >> a & 1;
                weight *= up ? high[a] : 1 - high[a];
                voxel = voxel * n[a] + low[a] + (up && low[a] < n[a] - 1);
            }
            d[0][voxel] += weight * dy[i];
        }
    }
}
static size_t trilinear_scratch(const op *o, int threads) {
    return nn_trilinear_backward_scratch(o->shape, o->shape + 3, threads);
}

/* ---- the table ---- */

#define LINEAR(rows, k, n)                                                                                             \
    {                                                                                                                  \
        "linear", {rows, k, n}, {(rows) * (k), (n) * (k), n}, (rows) * (n), 1, true, true, linear_forward,             \
            linear_backward, linear_plain, linear_scratch, 1e-6                                                        \
    }
#define ROWS(rows, n)                                                                                                  \
    { "rows", {rows, n}, {n}, (rows) * (n), 1, true, false, rows_forward, rows_backward, rows_plain, none, 3e-7 }
#define ATTENTION(q, k, h, d)                                                                                          \
    {                                                                                                                  \
        "attention", {q, k, h, d}, {(q) * ((h) * (d) + 1), (k) * ((h) * (d) + 2), (k) * ((h) * (d) + 3)},              \
            (q) * ((h) * (d) + 4), 1.5, false, false, attention_forward, attention_backward, attention_plain,          \
            attention_scratch, 4e-6                                                                                    \
    }
#define ELEMENTS(name, n, range)                                                                                       \
    { #name, {n }, {n }, n, range, false, false, name##_forward, name##_backward, name##_plain, none, 7e-7 }
#define NORM(rows, n)                                                                                                  \
    {                                                                                                                  \
        "layer norm", {rows, n}, {(rows) * (n), n, n}, (rows) * (n), 2, false, true, norm_forward, norm_backward,      \
            norm_plain, norm_scratch, 4e-7                                                                             \
    }
#define GRU(rows, k, h)                                                                                                \
    {                                                                                                                  \
        "gru", {rows, k, h}, {(rows) * (k), 3 * (h) * (k), 3 * (h) * (h), 3 * (h), 3 * (h)}, (rows) * (h), 0.5, false, \
            false, gru_forward, gru_backward, gru_plain, gru_scratch, 3e-7                                             \
    }
#define CONV(z, y, x, k, n, beside)                                                                                    \
    {                                                                                                                  \
        "transposed convolution", {z, y, x, k, n, beside}, {(z) * (y) * (x) * (k), (k) * (n)*8, n},                    \
            (n)*8 * (z) * (y) * (x), 1, true, true, conv_forward, conv_backward, conv_plain, conv_scratch, 1e-6        \
    }
#define MIX(channels, n)                                                                                               \
    {                                                                                                                  \
        "gelu product", {channels, n}, {channels, (channels) * (n)}, n, 3, false, false, mix_forward, mix_backward,    \
            mix_plain, mix_scratch, 3e-7                                                                               \
    }
#define TRILINEAR(a, b, c, d, e, f)                                                                                    \
    {                                                                                                                  \
        "trilinear", {a, b, c, d, e, f}, {(a) * (b) * (c)}, (d) * (e) * (f), 1, false, false, trilinear_forward,       \
            trilinear_backward, trilinear_plain, trilinear_scratch, 4e-7                                               \
    }

static const op ops[] = {
    LINEAR(2, 1, 1),
    LINEAR(7, 33, 20),
    LINEAR(261, 19, 50),
    LINEAR(40, 300, 3),
    ROWS(1, 5),
    ROWS(259, 131),
    ROWS(600, 64),
    ATTENTION(1, 1, 1, 1),
    ATTENTION(7, 37, 3, 5),
    ATTENTION(300, 33, 2, 20),
    ATTENTION(1200, 90, 6, 20), /* work for several threads */
    ATTENTION(5, 259, 2, 17),
    ATTENTION(33, 7, 1, 260),
    ELEMENTS(gelu, 3001, 5),
    ELEMENTS(relu, 3001, 1),
    ELEMENTS(sigmoid, 3001, 9),
    NORM(1, 5),
    NORM(37, 45),
    NORM(263, 70),
    NORM(2, 4099),
    NORM(1, 20001),
    GRU(1, 5, 3),
    GRU(7, 33, 19),
    GRU(5, 300, 7),
    {"dice", {3, 1703}, {3 * 1703}, 1, 6, false, false, dice_forward, dice_backward, dice_plain, loss_scratch, 1e-7},
    {"bce", {5001}, {5001}, 1, 9, false, false, bce_forward, bce_backward, bce_plain, loss_scratch, 1e-7},
    {"consistency",
     {5001},
     {5001, 5001},
     1,
     5,
     false,
     true,
     consistency_forward,
     consistency_backward,
     consistency_plain,
     loss_scratch,
     1e-7},
    {"boundary",
     {5001},
     {5001},
     1,
     5,
     false,
     false,
     boundary_forward,
     boundary_backward,
     boundary_plain,
     loss_scratch,
     1e-7},
    CONV(1, 1, 1, 1, 1, 0),
    CONV(2, 3, 5, 7, 3, 0),
    CONV(2, 3, 5, 7, 3, 1),
    CONV(3, 11, 35, 5, 2, 0), /* more cells than a block */
    CONV(3, 11, 35, 5, 2, 1),
    MIX(3, 70),
    MIX(2, 5003),
    TRILINEAR(1, 2, 3, 4, 5, 6),
    TRILINEAR(5, 7, 6, 11, 28, 17),
    TRILINEAR(4, 9, 5, 16, 3, 1),
};

/* ---- the loop ---- */

/* One set of inputs of an operator, and what they lead to. */
typedef struct state {
    size_t inputs;
    real *in[INPUTS], *start[INPUTS], *d[INPUTS], *y, *dy;
} state;

static state state_open(const op *o, bool whole) {
    state s = {0};
    const nn_run run = {1, NULL, nn_kernels_best()};
    for (; s.inputs < INPUTS && o->count[s.inputs] > 0; s.inputs++) {
        size_t i = s.inputs, n = o->count[i];
        s.in[i] = whole ? random_wholes(i + 1, n, -9, 9) : random_reals(i + 1, n, -o->range, o->range);
        for (size_t j = 0; !whole && j < n; j++) /* no step across ReLU's corner */
            s.in[i][j] += fabs((double)s.in[i][j]) < 0.01 ? REAL_C(0.03) : REAL_C(0.0);
        s.start[i] = whole ? random_wholes(i + 11, n, -9, 9) : random_reals(i + 11, n, -0.01, 0.01);
        s.d[i] = malloc((n + 1) * sizeof(real));
    }
    s.y = calloc(o->outputs, sizeof(real)); /* where the forward leaves gaps, they count as zero */
    s.dy = whole ? random_wholes(21, o->outputs, -9, 9) : random_reals(21, o->outputs, 0.5, 2);
    for (size_t i = 0; !whole && i < o->outputs; i++) s.dy[i] = i % 3 == 1 ? -s.dy[i] : s.dy[i];
    o->forward(&run, o, s.in, s.y);
    return s;
}

static void state_close(state *s) {
    for (size_t i = 0; i < s->inputs; i++) free(s->in[i]), free(s->start[i]), free(s->d[i]);
    free(s->y), free(s->dy);
}

static const real guard = REAL_C(-0.0); /* a zero added to it makes it 0.0 */

static bool is_guard(real v) { return v == 0 && signbit(v); }

/* The gradients, added to s->start, into s->d. only: of this input, or of all (INPUTS). */
static void run_backward(const op *o, state *s, int threads, size_t only) {
    real *d[INPUTS] = {NULL};
    nn_run run = {threads, aligned_reals(o->scratch(o, threads)), nn_kernels_best()};
    for (size_t i = 0; i < s->inputs; i++) {
        memcpy(s->d[i], s->start[i], o->count[i] * sizeof(real));
        s->d[i][o->count[i]] = guard;
        if (only == i || only == INPUTS) d[i] = s->d[i];
    }
    o->backward(&run, o, s->in, s->y, s->dy, d);
    for (size_t i = 0; i < s->inputs; i++)
        CHECK(is_guard(s->d[i][o->count[i]])); /* nothing is written behind the end */
    free(run.scratch);
}

static void check_plain(const op *o, state *s, bool exact) {
    double *d[INPUTS] = {NULL}, *dy = malloc(o->outputs * sizeof *dy);
    for (size_t i = 0; i < s->inputs; i++) d[i] = calloc(o->count[i], sizeof(double));
    for (size_t i = 0; i < o->outputs; i++) dy[i] = (double)s->dy[i];
    o->plain(o, s->in, dy, d);
    for (size_t i = 0; i < s->inputs; i++) {
        double largest = 0;
        for (size_t j = 0; j < o->count[i]; j++) {
            largest = fabs(d[i][j]) > largest ? fabs(d[i][j]) : largest;
            d[i][j] += (double)s->start[i][j];
        }
        /* the start is at most 0.01, and adding to it rounds */
        double bound = exact ? 0 : sizeof(real) == 8 ? 4e-15 : o->bound; /* measured 1.9e-15 */
        double error = 0;
        for (size_t j = 0; j < o->count[i]; j++) error = fmax(error, fabs((double)s->d[i][j] - d[i][j]));
        if (getenv("TEST_VERBOSE") != NULL) printf("%s %zu: %.2g\n", o->name, i, error / (largest + 0.01));
        CHECK_CLOSE(o->name, s->d[i], d[i], o->count[i], bound * (largest + (exact ? 0 : 0.01)), bound);
        free(d[i]);
    }
    free(dy);
}

#ifdef SEGFM_REAL_DOUBLE
static double loss_at(const op *o, state *s, size_t input, const real *direction, double step) {
    const nn_run run = {1, NULL, nn_kernels_best()};
    real *x = s->in[input], *moved = malloc(o->count[input] * sizeof *moved), *y = calloc(o->outputs, sizeof *y);
    double sum = 0;
    for (size_t i = 0; i < o->count[input]; i++) moved[i] = x[i] + step * direction[i];
    s->in[input] = moved;
    o->forward(&run, o, s->in, y);
    s->in[input] = x;
    for (size_t i = 0; i < o->outputs; i++) sum += y[i] * s->dy[i];
    free(moved), free(y);
    return sum;
}

/* The derivative along a direction by the forward alone, exact to the fourth power of the step. */
static double difference(const op *o, state *s, size_t input, const real *direction) {
    const double h = 2e-4;
    double near = loss_at(o, s, input, direction, h) - loss_at(o, s, input, direction, -h);
    double far = loss_at(o, s, input, direction, 2 * h) - loss_at(o, s, input, direction, -2 * h);
    return (8 * near - far) / (12 * h);
}

static void check_differences(const op *o, state *s) {
    for (size_t input = 0; input < s->inputs; input++) {
        size_t n = o->count[input];
        uint64_t random = 5;
        real *direction = calloc(n, sizeof *direction);
        double along = 0, squares = 0;
        for (size_t i = 0; i < n; i++) {
            double g = s->d[input][i] - s->start[input][i];
            direction[i] = random_next(&random) % 2 ? 1 : -1;
            along += direction[i] * g, squares += g * g;
        }
        double error = fabs(difference(o, s, input, direction) - along), size = sqrt(squares);
        if (!CHECK(error <= 1e-7 * size)) printf("    %s, input %zu: %.3g\n", o->name, input, error / size);
        for (int k = 0; k < 6; k++) {
            size_t at = k == 0 ? 0 : k == 1 ? n - 1 : random_next(&random) % n;
            memset(direction, 0, n * sizeof *direction);
            direction[at] = 1;
            double g = s->d[input][at] - s->start[input][at], mean = size / sqrt((double)n);
            double wrong = fabs(difference(o, s, input, direction) - g), by = fabs(g) > mean ? fabs(g) : mean;
            if (!CHECK(wrong <= 1e-7 * by)) printf("    %s, input %zu [%zu]: %.3g\n", o->name, input, at, wrong / by);
        }
        free(direction);
    }
}
#endif

static void test_op(const op *o) {
    state s = state_open(o, false);
    run_backward(o, &s, 1, INPUTS);
    check_plain(o, &s, false);
#ifdef SEGFM_REAL_DOUBLE
    check_differences(o, &s);
#endif
    real *one[INPUTS] = {NULL};
    for (size_t i = 0; i < s.inputs; i++) {
        one[i] = malloc(o->count[i] * sizeof(real));
        memcpy(one[i], s.d[i], o->count[i] * sizeof(real));
    }
    for (int threads = 2; threads <= 3; threads++) {
        run_backward(o, &s, threads, INPUTS);
        for (size_t i = 0; i < s.inputs; i++) CHECK(memcmp(one[i], s.d[i], o->count[i] * sizeof(real)) == 0);
    }
    for (size_t only = 0; o->alone && only < s.inputs; only++) {
        run_backward(o, &s, 2, only);
        for (size_t i = 0; i < s.inputs; i++)
            CHECK(memcmp(i == only ? one[i] : s.start[i], s.d[i], o->count[i] * sizeof(real)) == 0);
    }
    for (size_t i = 0; i < s.inputs; i++) free(one[i]);
    state_close(&s);
    if (!o->whole) return;
    s = state_open(o, true);
    run_backward(o, &s, 2, INPUTS);
    check_plain(o, &s, true);
    state_close(&s);
}

/* Product added to what is there: chunk by chunk, to the bit; A by rows and by columns, room between the rows of y. */
static void test_matmul_add(void) {
    static const size_t shapes[][3] = {{1, 1, 1}, {17, 33, 257}, {70, 20, 800}, {5, 100, 256}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int threads = 1; threads <= 3; threads++) {
            size_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2], row = n + 3;
            real *a = random_reals(1, m * k, -1, 1), *b = random_reals(2, n * k, -1, 1);
            real *y = random_reals(3, m * row, -1, 1), *want = random_reals(3, m * row, -1, 1);
            real *packed = aligned_reals(nn_panels_count(n, k));
            nn_run run = {threads, aligned_reals(nn_matmul_scratch(threads)), nn_kernels_best()};
            nn_panels_pack(b, n, k, 1, n, packed, threads);
            bool columns = i % 2 == 1;
            size_t a_row = columns ? 1 : k, a_column = columns ? m : 1;
            nn_matmul_add(&run, m, a, a_row, a_column, &(nn_panels){.n = n, .k = k, .data = packed}, y, row);
            for (size_t r = 0; r < m; r++)
                for (size_t c = 0; c < n; c++)
                    for (size_t begin = 0; begin < k; begin += NN_CHUNK) {
                        real sum = 0;
                        for (size_t j = begin; j < k && j < begin + NN_CHUNK; j++)
                            sum += a[r * a_row + j * a_column] * b[j * n + c];
                        want[r * row + c] += sum;
                    }
            CHECK(memcmp(y, want, m * row * sizeof *y) == 0);
            free(a), free(b), free(y), free(want), free(packed), free(run.scratch);
        }
}

/* What no formula's derivative says: nothing comes out of far inputs but numbers, and ReLU's at 0 is 0. */
static void test_edges(void) {
    const nn_run run = {1, NULL, nn_kernels_best()};
    const real x[] = {-1000, 1000, -30, 30, 0}, dy[] = {2, 2, 2, 2, 2};
    real dx[5] = {1, 1, 1, 1, 1}, sigmoid_of[5];
    nn_gelu_backward(&run, 5, x, dy, dx);
    CHECK(dx[0] == 1 && dx[1] == 3 && dx[2] == 1 && dx[3] == 3 && dx[4] == 2);
    nn_relu_backward(&run, 5, x, dy, dx);
    CHECK(dx[0] == 1 && dx[1] == 5 && dx[4] == 2);
    nn_sigmoid_forward(&run, 5, x, sigmoid_of);
    nn_sigmoid_backward(&run, 5, sigmoid_of, dy, dx);
    CHECK(dx[0] == 1 && dx[1] == 5 && dx[4] == REAL_C(2.5));
}

/* Shapes that no memory holds: no scratch size wraps around to a small one. */
static void test_saturation(void) {
    const size_t half = SIZE_MAX / 2, far[3] = {half, half, half}, flat[3] = {SIZE_MAX, 1, 1};
    CHECK(nn_linear_backward_scratch(half, half, 1, 1) == SIZE_MAX);
    CHECK(nn_linear_backward_scratch(1, half, half, 1) == SIZE_MAX);
    CHECK(nn_attention_backward_scratch(half, half, 1, 1, 1) == SIZE_MAX);
    CHECK(nn_attention_backward_scratch(1, 1, SIZE_MAX, 1, 1) == SIZE_MAX);
    CHECK(nn_attention_backward_scratch(1, 1, 1, SIZE_MAX, 1) == SIZE_MAX);
    CHECK(nn_layernorm_backward_scratch(SIZE_MAX, 1, 1) == SIZE_MAX);
    CHECK(nn_gru_backward_scratch(half, 1, half, 1) == SIZE_MAX);
    CHECK(nn_conv_transpose_backward_scratch(far, half, 1, 1) == SIZE_MAX);
    CHECK(nn_conv_transpose_backward_scratch(far, 1, half, 1) == SIZE_MAX);
    CHECK(nn_gelu_product_backward_scratch(half, half, 1) == SIZE_MAX);
    CHECK(nn_trilinear_backward_scratch(far, flat, 1) == SIZE_MAX);
}

int main(void) {
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) test_op(ops + i);
    test_matmul_add();
    test_edges();
    test_saturation();
    return test_summary();
}
