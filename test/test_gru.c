#include "../nn/nn.h"
#include "random.h"
#include "test.h"

/* A cell with its weights as PyTorch has them (out, in), and packed. */
typedef struct cell {
    size_t in, hidden;
    real *w_ih, *w_hh, *b_ih, *b_hh;
    void *ih, *hh;
    nn_gru packed;
} cell;

static void *packed_halves(const real *w, size_t n, size_t k) {
    uint16_t *to = calloc(nn_panels_count(n, k), sizeof *to);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < k; j++)
            to[(i / NN_LANES * k + j) * NN_LANES + i % NN_LANES] = base_float_to_half((float)w[i * k + j]);
    return to;
}

static cell cell_open(size_t in, size_t hidden, bool half) {
    cell c = {in, hidden, NULL, NULL, NULL, NULL, NULL, NULL, {{0}, {0}, NULL, NULL}};
    size_t gates = 3 * hidden;
    c.w_ih = random_reals(1, gates * in, -0.5, 0.5), c.w_hh = random_reals(2, gates * hidden, -0.5, 0.5);
    c.b_ih = random_reals(3, gates, -1, 1), c.b_hh = random_reals(4, gates, -1, 1);
    for (size_t i = 0; half && i < gates * in; i++)
        c.w_ih[i] = base_half_to_float(base_float_to_half((float)c.w_ih[i]));
    for (size_t i = 0; half && i < gates * hidden; i++)
        c.w_hh[i] = base_half_to_float(base_float_to_half((float)c.w_hh[i]));
    if (half) {
        c.ih = packed_halves(c.w_ih, gates, in), c.hh = packed_halves(c.w_hh, gates, hidden);
        c.packed = (nn_gru){{gates, in, NULL, c.ih}, {gates, hidden, NULL, c.hh}, c.b_ih, c.b_hh};
    } else {
        c.ih = aligned_reals(nn_panels_count(gates, in)), c.hh = aligned_reals(nn_panels_count(gates, hidden));
        nn_panels_pack(c.w_ih, gates, in, in, 1, c.ih, 1);
        nn_panels_pack(c.w_hh, gates, hidden, hidden, 1, c.hh, 1);
        c.packed = (nn_gru){{gates, in, c.ih, NULL}, {gates, hidden, c.hh, NULL}, c.b_ih, c.b_hh};
    }
    return c;
}

static void cell_close(cell *c) {
    free(c->w_ih), free(c->w_hh), free(c->b_ih), free(c->b_hh), free(c->ih), free(c->hh);
}

/* y (n) = x (k) · w (n, k) + bias, in double, rounded once. */
static void naive_product(size_t n, size_t k, const real *x, const real *w, const real *bias, real *y) {
    for (size_t j = 0; j < n; j++) {
        double sum = 0;
        for (size_t i = 0; i < k; i++) sum += (double)x[i] * (double)w[j * k + i];
        y[j] = (real)(sum + (double)bias[j]);
    }
}

/* The oracle, the same bits: three plain loops for the products, PyTorch's gates one after the other. */
static void naive(const cell *c, size_t rows, const real *x, const real *before, real *y) {
    size_t h = c->hidden, gates = 3 * h;
    real *a = malloc(gates * sizeof *a), *b = malloc(gates * sizeof *b), *old = calloc(h, sizeof *old);
    if (before != NULL) memcpy(old, before, h * sizeof *old);
    for (size_t i = 0; i < rows; i++) {
        naive_product(gates, c->in, x + i * c->in, c->w_ih, c->b_ih, a);
        naive_product(gates, h, old, c->w_hh, c->b_hh, b);
        for (size_t j = 0; j < h; j++) {
            real r = nn_sigmoid(a[j] + b[j]), z = nn_sigmoid(a[h + j] + b[h + j]);
            real n = nn_tanh(a[2 * h + j] + r * b[2 * h + j]);
            y[i * h + j] = n + z * (old[j] - n);
        }
        memcpy(old, y + i * h, h * sizeof *old);
    }
    free(a), free(b), free(old);
}

/* The definition in double: r, z, n, h' = (1 − z)·n + z·h. */
static void defined(const cell *c, size_t rows, const real *x, double *y) {
    size_t h = c->hidden;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < h; j++) {
            double in[3], re[3];
            for (size_t g = 0; g < 3; g++) {
                in[g] = (double)c->b_ih[g * h + j], re[g] = (double)c->b_hh[g * h + j];
                for (size_t k = 0; k < c->in; k++)
                    in[g] += (double)c->w_ih[(g * h + j) * c->in + k] * (double)x[i * c->in + k];
                for (size_t k = 0; i > 0 && k < h; k++)
                    re[g] += (double)c->w_hh[(g * h + j) * h + k] * y[(i - 1) * h + k];
            }
            double r = 1 / (1 + exp(-in[0] - re[0])), z = 1 / (1 + exp(-in[1] - re[1])), n = tanh(in[2] + r * re[2]);
            y[i * h + j] = (1 - z) * n + z * (i > 0 ? y[(i - 1) * h + j] : 0);
        }
}

static void check_cell(size_t in, size_t hidden, size_t rows, bool half) {
    cell c = cell_open(in, hidden, half);
    real *x = random_reals(5, rows * in, -1, 1), *want = malloc(rows * hidden * sizeof *want),
         *got = malloc(rows * hidden * sizeof *got);
    double *exact = malloc(rows * hidden * sizeof *exact);
    naive(&c, rows, x, NULL, want);
    defined(&c, rows, x, exact);
    CHECK_CLOSE("GRU", want, exact, rows * hidden, sizeof(real) == 8 ? 8e-15 : 4e-6, 0); /* measured 3.6e-15, 2.1e-6 */
    for (int threads = 1; threads <= 3; threads++) {
        nn_run run = {threads, aligned_reals(nn_gru_scratch(rows, hidden)), nn_kernels_best()};
        nn_gru_forward(&run, &c.packed, rows, x, NULL, got);
        CHECK(memcmp(got, want, rows * hidden * sizeof *got) == 0);
        for (size_t cut = 1; cut < rows; cut++) { /* stopped and gone on from there */
            memset(got, 0, rows * hidden * sizeof *got);
            nn_gru_forward(&run, &c.packed, cut, x, NULL, got);
            nn_gru_forward(&run, &c.packed, rows - cut, x + cut * in, got + (cut - 1) * hidden, got + cut * hidden);
            CHECK(memcmp(got, want, rows * hidden * sizeof *got) == 0);
        }
        free(run.scratch);
    }
    free(x), free(want), free(got), free(exact);
    cell_close(&c);
}

int main(void) {
    for (int half = 0; half < 2; half++) {
        check_cell(1, 1, 1, half);
        check_cell(88, 26, 10, half);
        check_cell(300, 17, 5, half);
        check_cell(7, 270, 3, half);
        check_cell(513, 128, 2, half);
    }
    return test_summary();
}
