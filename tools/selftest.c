#include <stdlib.h>
#include <string.h>

#include "../train/train.h"
#include "tools.h"

/* Conformance vectors: each runs one operator, network or the whole pipeline on inputs made by the formula, and is summed
   up in the XXH64 of its output as little-endian float32. Any build of any port that is right prints these hashes. The
   double build makes no promise of bits and only prints. */

typedef struct vector {
    const char *name;
    uint64_t hash; /* of the float build */
    segfm_status (*run)(const nn_run *run, io_buffer *out, segfm_error *error);
} vector;

/* Scratch that is enough for every vector here. */
enum { SCRATCH = 4 << 20 };

/* ---- inputs and outputs -------------------------------------------------------------------------------------- */

/* n values in [low, high) of the stream `name`. */
static real *uniform(const char *name, size_t n, double low, double high) {
    real *x = malloc(n * sizeof *x);
    for (size_t i = 0; x != NULL && i < n; i++) x[i] = (real)(float)(low + (high - low) * weights_uniform(name, i));
    return x;
}

static segfm_status take(io_buffer *out, const real *values, size_t n, segfm_error *error) {
    segfm_status status = io_buffer_reserve(out, out->size + 4 * n, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        float f = (float)values[i];
        uint32_t bits;
        memcpy(&bits, &f, 4);
        base_put_le32(out->data + out->size, bits);
        out->size += 4;
    }
    return status;
}

/* A double as two floats. */
static segfm_status take_doubles(io_buffer *out, const double *values, size_t n, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        float high = (float)values[i];
        const real both[] = {(real)high, (real)(float)(values[i] - (double)high)};
        status = take(out, both, 2, error);
    }
    return status;
}

/* Frees what a vector allocated; NULL among them means that memory ran out. */
static segfm_status done(segfm_status status, real **blocks, size_t n, segfm_error *error) {
    bool missing = false;
    for (size_t i = 0; i < n; i++) {
        missing = missing || blocks[i] == NULL;
        free(blocks[i]);
    }
    return missing ? base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector") : status;
}
#define COUNT_OF(a) (sizeof(a) / sizeof(a)[0])

/* ---- functions and operators --------------------------------------------------------------------------------- */

typedef real function(real);

static segfm_status run_function(function *f, double low, double high, io_buffer *out, segfm_error *error) {
    enum { N = 100003 };
    real *b[] = {uniform("selftest.function", N, low, high)};
    for (size_t i = 0; b[0] != NULL && i < N; i++) b[0][i] = f(b[0][i]);
    return done(b[0] == NULL ? SEGFM_OK : take(out, b[0], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_exp(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_exp, -110, 95, out, error);
}
static segfm_status run_erf(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_erf, -5, 5, out, error);
}
static segfm_status run_tanh(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_tanh, -12, 12, out, error);
}
static segfm_status run_log(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_log, 0, 3, out, error);
}
static segfm_status run_log1p(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_log1p, -1, 4, out, error);
}
static segfm_status run_sigmoid(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(nn_sigmoid, -100, 100, out, error);
}

/* The operator over the vector's inputs: its hash is the function's. */
static segfm_status run_sigmoid_forward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 100003 };
    real *b[] = {uniform("selftest.function", N, -100, 100), malloc(N * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_sigmoid_forward(r, N, b[0], b[1]);
    return done(take(out, b[1], N, error), b, COUNT_OF(b), error);
}

static real above_half(real x) { return nn_sigmoid_above_half(x) ? 1 : 0; }
static segfm_status run_above_half(const nn_run *r, io_buffer *out, segfm_error *error) {
    return (void)r, run_function(above_half, -1e-7, 3e-7, out, error);
}

static segfm_status run_fourier(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 301, HALF = 24 };
    real *b[] = {uniform("selftest.coordinates", 3 * N, -0.1, 1.1), uniform("selftest.gaussian", 3 * HALF, -3, 3),
                 malloc(2 * N * HALF * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_fourier_forward(r, N, b[0], HALF, b[1], b[2]);
    return done(take(out, b[2], 2 * N * HALF, error), b, COUNT_OF(b), error);
}

static segfm_status run_matmul(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 67, N = 75, K = 1031 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), uniform("selftest.b", N * K, -1, 1),
                 uniform("selftest.bias", N, -1, 1), malloc(nn_panels_count(N, K) * sizeof(real)),
                 malloc(M * N * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_panels_pack(b[1], N, K, K, 1, b[3], r->threads);
    nn_matmul(r, M, b[0], K, 1, &(nn_panels){.n = N, .k = K, .data = b[3]}, b[2], b[4], N);
    return done(take(out, b[4], M * N, error), b, COUNT_OF(b), error);
}

static segfm_status run_matmul_naive(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 67, N = 75, K = 1031 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), uniform("selftest.b", N * K, -1, 1),
                 uniform("selftest.bias", N, -1, 1), malloc(M * N * sizeof(real))};
    (void)r;
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_matmul_naive(NN_CHUNK, M, N, K, b[0], K, 1, b[1], K, 1, b[2], b[3], N);
    return done(take(out, b[3], M * N, error), b, COUNT_OF(b), error);
}

/* The other way of every argument: A by columns, B not packed, no bias, room between the rows of y; several row blocks. */
/* Weights in half precision: 0, the smallest subnormal, …, every 37th bit pattern up to the largest finite half. */
static segfm_status run_matmul_half(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 37, N = 48, K = 773 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), malloc(M * N * sizeof(real)), malloc(N * K * sizeof(uint16_t))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    uint16_t *half = (uint16_t *)(void *)b[2];
    for (size_t i = 0; i < N * K; i++) half[i] = (uint16_t)((37 * i % 0x7C00) | (i % 2 << 15));
    nn_matmul(r, M, b[0], K, 1, &(nn_panels){.n = N, .k = K, .half = half}, NULL, b[1], N);
    return done(take(out, b[1], M * N, error), b, COUNT_OF(b), error);
}

enum { QUERIES = 37, KEYS = 301, HEADS = 3, HEAD_DIM = 20, WIDTH = HEADS * HEAD_DIM };

static segfm_status attention(const nn_run *r, bool naive, io_buffer *out, segfm_error *error) {
    real *b[] = {uniform("selftest.q", QUERIES * WIDTH, -2, 2), uniform("selftest.k", KEYS * WIDTH, -2, 2),
                 uniform("selftest.v", KEYS * WIDTH, -2, 2), malloc(QUERIES * WIDTH * sizeof(real)),
                 malloc(KEYS * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_attention at = {QUERIES, KEYS,  HEADS, HEAD_DIM, b[0],  b[1],        b[2],
                       WIDTH,   WIDTH, WIDTH, b[3],     WIDTH, REAL_C(0.25)};
    if (naive) nn_attention_naive(&at, b[4]);
    else nn_attention_forward(r, &at);
    return done(take(out, b[3], QUERIES * WIDTH, error), b, COUNT_OF(b), error);
}

static segfm_status run_attention(const nn_run *r, io_buffer *out, segfm_error *error) {
    return attention(r, false, out, error);
}
static segfm_status run_attention_naive(const nn_run *r, io_buffer *out, segfm_error *error) {
    return attention(r, true, out, error);
}

static segfm_status layernorm(const nn_run *r, size_t rows, size_t width, io_buffer *out, segfm_error *error) {
    real *b[] = {uniform("selftest.x", rows * width, -3, 5), uniform("selftest.weight", width, 0.5, 1.5),
                 uniform("selftest.bias", width, -1, 1)};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_layernorm_forward(r, rows, width, b[0], b[1], b[2], REAL_C(1e-5), b[0]);
    return done(take(out, b[0], rows * width, error), b, COUNT_OF(b), error);
}

static segfm_status run_layernorm(const nn_run *r, io_buffer *out, segfm_error *error) {
    return layernorm(r, 41, 173, out, error);
}
static segfm_status run_layernorm_block(const nn_run *r, io_buffer *out, segfm_error *error) {
    return layernorm(r, 1, 70001, out, error);
}

static segfm_status run_add_layernorm(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { ROWS = 41, COLUMNS = 173 };
    real *b[] = {uniform("selftest.x", ROWS * COLUMNS, -3, 5), uniform("selftest.residual", ROWS * COLUMNS, -1, 1),
                 uniform("selftest.weight", COLUMNS, 0.5, 1.5), uniform("selftest.bias", COLUMNS, -1, 1),
                 malloc(ROWS * COLUMNS * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_add_layernorm_forward(r, ROWS, COLUMNS, b[1], b[0], b[2], b[3], REAL_C(1e-5), b[4]);
    segfm_status status = take(out, b[0], ROWS * COLUMNS, error);
    return done(status == SEGFM_OK ? take(out, b[4], ROWS * COLUMNS, error) : status, b, COUNT_OF(b), error);
}

static segfm_status run_gelu(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 50021 };
    real *b[] = {uniform("selftest.x", N, -6, 6)};
    if (b[0] != NULL) nn_gelu_forward(r, N, b[0], b[0]);
    return done(b[0] == NULL ? SEGFM_OK : take(out, b[0], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_relu(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5003 };
    real *b[] = {uniform("selftest.x", N, -1, 1)};
    if (b[0] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    for (size_t i = 0; i < N; i += 7) b[0][i] = 0; /* no −0: clang 14 makes +0 of it for WebAssembly (f32.max) */
    nn_relu_forward(r, N, b[0], b[0]);
    return done(take(out, b[0], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_add(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5003 };
    real *b[] = {uniform("selftest.x", N, -1, 1), uniform("selftest.y", N, -9, 9)};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_add(r, N, b[0], b[1], b[1]);
    return done(take(out, b[1], N, error), b, COUNT_OF(b), error);
}

/* Sums around every boundary of the fixed order. */
static segfm_status run_sum(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 70001 };
    static const size_t lengths[] = {0, 1, NN_LANES - 1, NN_LANES + 1, NN_SUM_BLOCK, NN_SUM_BLOCK + 1, N};
    real sums[COUNT_OF(lengths)], *b[] = {uniform("selftest.x", N, -3, 5)};
    if (b[0] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) sums[i] = nn_sum(r, lengths[i], b[0]);
    return done(take(out, sums, COUNT_OF(sums), error), b, COUNT_OF(b), error);
}

/* Numbers below the normal range, in loops that are vectors: a unit that flushes them to zero (32-bit ARM's NEON, x86
   with -ffast-math) is noticed. A sum of them, their GELU, and products that fall below the range. */
static segfm_status run_subnormal(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5003, SIDE = 48 };
    real *b[] = {uniform("selftest.x", N, -0x1p-127, 0x1p-127), uniform("selftest.y", N, -0x1p-126, 0x1p-126),
                 uniform("selftest.a", SIDE * SIDE, -0x1p-70, 0x1p-70), malloc(SIDE * SIDE * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_add(r, N, b[0], b[1], b[1]);
    nn_gelu_forward(r, N, b[0], b[0]);
    nn_matmul(r, SIDE, b[2], SIDE, 1, &(nn_panels){.n = SIDE, .k = SIDE, .data = b[2]}, NULL, b[3], SIDE);
    segfm_status status = take(out, b[0], N, error);
    if (status == SEGFM_OK) status = take(out, b[1], N, error);
    return done(status == SEGFM_OK ? take(out, b[3], SIDE * SIDE, error) : status, b, COUNT_OF(b), error);
}

static segfm_status run_patches(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 6 * 12 * 20 };
    real *b[] = {uniform("selftest.x", N, -1, 1), malloc(N * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_patches(r, b[0], (size_t[]){6, 12, 20}, (size_t[]){3, 2, 5}, b[1]);
    return done(take(out, b[1], N, error), b, COUNT_OF(b), error);
}

static segfm_status run_conv_transpose(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { CELLS = 3 * 4 * 5, IN = 21, OUT = 7 };
    real *b[] = {uniform("selftest.x", CELLS * IN, -1, 1), uniform("selftest.weight", IN * OUT * 8, -1, 1),
                 uniform("selftest.bias", OUT, -1, 1), malloc(CELLS * 8 * OUT * sizeof(real)),
                 malloc(nn_conv_transpose_count(IN, OUT) * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_conv_transpose_pack(r->kernels, b[1], IN, OUT, b[4]);
    nn_conv_transpose_forward(r, (size_t[]){3, 4, 5}, b[0], IN, 1, &(nn_conv_transpose){IN, OUT, b[4], b[2]}, b[3]);
    return done(take(out, b[3], CELLS * 8 * OUT, error), b, COUNT_OF(b), error);
}

static segfm_status run_upscale(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { CELLS = 3 * 4 * 7, IN = 21, OUT = 9, ROWS = 5 };
    real *b[] = {uniform("selftest.x", CELLS * IN, -1, 1),
                 uniform("selftest.weight", IN * OUT * 8, -1, 1),
                 uniform("selftest.bias", OUT, -1, 1),
                 malloc(CELLS * 8 * ROWS * sizeof(real)),
                 malloc(nn_conv_transpose_count(IN, OUT) * sizeof(real)),
                 uniform("selftest.a", ROWS * OUT, -1, 1)};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_conv_transpose_pack(r->kernels, b[1], IN, OUT, b[4]);
    nn_conv_transpose_gelu_product(r, (size_t[]){3, 4, 7}, b[0], 1, CELLS, &(nn_conv_transpose){IN, OUT, b[4], b[2]},
                                   ROWS, b[5], b[3]);
    return done(take(out, b[3], CELLS * 8 * ROWS, error), b, COUNT_OF(b), error);
}

static segfm_status run_trilinear(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5 * 7 * 6, UP = 11 * 28 * 17 };
    real *b[] = {uniform("selftest.x", N, -1, 1), malloc(UP * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_trilinear_forward(r, (size_t[]){5, 7, 6}, b[0], (size_t[]){11, 28, 17}, b[1]);
    return done(take(out, b[1], UP, error), b, COUNT_OF(b), error);
}

/* Few rows, half-precision weights as in run_matmul_half, the last panel not full. */
static segfm_status run_rows_product(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 3, N = 75, K = 773, PADDED = 80 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), malloc(M * N * sizeof(real)), uniform("selftest.bias", N, -1, 1),
                 malloc(PADDED * K * sizeof(uint16_t))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    uint16_t *half = (uint16_t *)(void *)b[3];
    for (size_t i = 0; i < PADDED * K; i++) half[i] = (uint16_t)((37 * i % 0x7C00) | (i % 2 << 15));
    nn_rows_product(r, M, b[0], &(nn_panels){.n = N, .k = K, .half = half}, b[2], b[1]);
    return done(take(out, b[1], M * N, error), b, COUNT_OF(b), error);
}

/* A sequence that is cut, so that it goes on from a state; few rows and many. */
static segfm_status run_gru(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { ROWS = 9, CUT = 7, IN = 300, H = 45 };
    real *b[] = {uniform("selftest.x", ROWS * IN, -1, 1),
                 uniform("selftest.a", 3 * H * IN, -0.3, 0.3),
                 uniform("selftest.b", 3 * H * H, -0.3, 0.3),
                 uniform("selftest.bias", 3 * H, -1, 1),
                 malloc(nn_panels_count(3 * H, IN) * sizeof(real)),
                 malloc(nn_panels_count(3 * H, H) * sizeof(real)),
                 malloc(ROWS * H * sizeof(real))};
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_panels_pack(b[1], 3 * H, IN, IN, 1, b[4], r->threads);
    nn_panels_pack(b[2], 3 * H, H, H, 1, b[5], r->threads);
    nn_gru gru = {{.n = 3 * H, .k = IN, .data = b[4]}, {.n = 3 * H, .k = H, .data = b[5]}, b[3], b[3]};
    nn_gru_forward(r, &gru, CUT, b[0], NULL, b[6]);
    nn_gru_forward(r, &gru, ROWS - CUT, b[0] + CUT * IN, b[6] + (CUT - 1) * H, b[6] + CUT * H);
    return done(take(out, b[6], ROWS * H, error), b, COUNT_OF(b), error);
}

static segfm_status run_losses(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { SAMPLES = 3, N = 20011 };
    real *b[] = {uniform("selftest.x", SAMPLES * N, -9, 9), malloc(SAMPLES * N)};
    if (b[0] == NULL || b[1] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    uint8_t *truth = (uint8_t *)b[1];
    for (size_t i = 0; i < SAMPLES * N; i++) truth[i] = i % 7 < 3;
    const real losses[] = {nn_dice_loss(r, SAMPLES, N, b[0], truth), nn_dice_loss(r, 1, SAMPLES * N, b[0], truth),
                           nn_bce_loss(r, SAMPLES * N, b[0], truth)};
    return done(take(out, losses, COUNT_OF(losses), error), b, COUNT_OF(b), error);
}

/* ---- backward: every gradient is added to numbers ------------------------------------------------------------ */

static bool complete(real *const *blocks, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (blocks[i] == NULL) return false;
    return true;
}

static segfm_status run_linear_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { ROWS = 291, IN = 75, OUT = 267 };
    real *b[] = {uniform("selftest.x", ROWS * IN, -1, 1),   uniform("selftest.weight", OUT * IN, -1, 1),
                 uniform("selftest.dy", ROWS * OUT, -1, 1), uniform("selftest.a", ROWS * IN, -1, 1),
                 uniform("selftest.b", OUT * IN, -1, 1),    uniform("selftest.bias", OUT, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_linear_backward(r, ROWS, IN, OUT, b[0], b[1], b[2], b[3], b[4], b[5]);
    nn_add_rows(r, ROWS, IN, b[0], b[1]); /* onto the weights' first rows: a sum of its own */
    segfm_status status = take(out, b[1], IN, error);
    if (status == SEGFM_OK) status = take(out, b[3], ROWS * IN, error);
    if (status == SEGFM_OK) status = take(out, b[4], OUT * IN, error);
    return done(status == SEGFM_OK ? take(out, b[5], OUT, error) : status, b, COUNT_OF(b), error);
}

/* A by columns, room between the rows of y. */
static segfm_status run_matmul_add(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { M = 67, N = 75, K = 1031, ROW = 80 };
    real *b[] = {uniform("selftest.a", M * K, -1, 1), uniform("selftest.b", N * K, -1, 1),
                 uniform("selftest.y", M * ROW, -1, 1), malloc(nn_panels_count(N, K) * sizeof(real))};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_panels_pack(b[1], N, K, 1, N, b[3], r->threads);
    nn_matmul_add(r, M, b[0], 1, M, &(nn_panels){.n = N, .k = K, .data = b[3]}, b[2], ROW);
    return done(take(out, b[2], M * ROW, error), b, COUNT_OF(b), error);
}

/* Several groups of queries, the last not full. */
static segfm_status run_attention_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { ROWS = 301, COLUMNS = 75 };
    real *b[] = {uniform("selftest.q", ROWS * WIDTH, -2, 2),    uniform("selftest.k", COLUMNS * WIDTH, -2, 2),
                 uniform("selftest.v", COLUMNS * WIDTH, -2, 2), malloc(ROWS * WIDTH * sizeof(real)),
                 uniform("selftest.dy", ROWS * WIDTH, -1, 1),   uniform("selftest.x", ROWS * WIDTH, -1, 1),
                 uniform("selftest.a", COLUMNS * WIDTH, -1, 1), uniform("selftest.b", COLUMNS * WIDTH, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_attention at = {ROWS,  COLUMNS, HEADS, HEAD_DIM, b[0],  b[1],        b[2],
                       WIDTH, WIDTH,   WIDTH, b[3],     WIDTH, REAL_C(0.25)};
    nn_attention_forward(r, &at);
    nn_attention_backward(r, &at, b[4], b[5], b[6], b[7]);
    segfm_status status = take(out, b[5], ROWS * WIDTH, error);
    if (status == SEGFM_OK) status = take(out, b[6], COLUMNS * WIDTH, error);
    return done(status == SEGFM_OK ? take(out, b[7], COLUMNS * WIDTH, error) : status, b, COUNT_OF(b), error);
}

/* GELU's, ReLU's and the sigmoid's, all onto the same numbers. */
static segfm_status run_elements_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 50021 };
    real *b[] = {uniform("selftest.x", N, -6, 6), uniform("selftest.dy", N, -1, 1), uniform("selftest.a", N, -1, 1),
                 malloc(N * sizeof(real))};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_gelu_backward(r, N, b[0], b[1], b[2]);
    nn_sigmoid_forward(r, N, b[0], b[3]);
    nn_sigmoid_backward(r, N, b[3], b[1], b[2]);
    nn_relu_forward(r, N, b[0], b[3]);
    nn_relu_backward(r, N, b[3], b[1], b[2]);
    return done(take(out, b[2], N, error), b, COUNT_OF(b), error);
}

static segfm_status norm_backward(const nn_run *r, size_t rows, size_t width, io_buffer *out, segfm_error *error) {
    real *b[] = {uniform("selftest.x", rows * width, -3, 5),  uniform("selftest.weight", width, 0.5, 1.5),
                 uniform("selftest.dy", rows * width, -1, 1), uniform("selftest.a", rows * width, -1, 1),
                 uniform("selftest.b", width, -1, 1),         uniform("selftest.bias", width, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_layernorm_backward(r, rows, width, b[0], b[1], REAL_C(1e-5), b[2], b[3], b[4], b[5]);
    segfm_status status = take(out, b[3], rows * width, error);
    if (status == SEGFM_OK) status = take(out, b[4], width, error);
    return done(status == SEGFM_OK ? take(out, b[5], width, error) : status, b, COUNT_OF(b), error);
}

static segfm_status run_norm_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    return norm_backward(r, 141, 173, out, error);
}
static segfm_status run_norm_block_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    return norm_backward(r, 1, 70001, out, error);
}

static segfm_status run_gru_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { ROWS = 9, IN = 300, H = 45, GATES = 3 * H };
    real *b[] = {uniform("selftest.x", ROWS * IN, -1, 1),     uniform("selftest.a", GATES * IN, -0.3, 0.3),
                 uniform("selftest.b", GATES * H, -0.3, 0.3), uniform("selftest.bias", GATES, -1, 1),
                 uniform("selftest.y", ROWS * H, -1, 1),      uniform("selftest.dy", ROWS * H, -1, 1),
                 uniform("selftest.q", ROWS * IN, -1, 1),     uniform("selftest.k", GATES * IN, -1, 1),
                 uniform("selftest.v", GATES * H, -1, 1),     uniform("selftest.weight", 2 * GATES, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    const nn_gru_weights w = {b[1], b[2], b[3], b[3]};
    const nn_gru_gradients dw = {b[7], b[8], b[9], b[9] + GATES};
    nn_gru_backward(r, ROWS, IN, H, &w, b[0], b[4], b[5], b[6], &dw);
    segfm_status status = take(out, b[6], ROWS * IN, error);
    if (status == SEGFM_OK) status = take(out, b[7], GATES * IN, error);
    if (status == SEGFM_OK) status = take(out, b[8], GATES * H, error);
    return done(status == SEGFM_OK ? take(out, b[9], 2 * GATES, error) : status, b, COUNT_OF(b), error);
}

/* The values that no vector above has, then all losses' derivatives, onto the same numbers. */
static segfm_status run_losses_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { SAMPLES = 3, N = 20011, ALL = SAMPLES * N };
    real *b[] = {uniform("selftest.x", ALL, -9, 9), malloc(ALL), uniform("selftest.y", ALL, -4, 4),
                 uniform("selftest.a", ALL, -1e-5, 1e-5), uniform("selftest.b", ALL, -1e-5, 1e-5)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    uint8_t *truth = (uint8_t *)b[1];
    for (size_t i = 0; i < ALL; i++) truth[i] = i % 7 < 3;
    const real losses[] = {nn_consistency_loss(r, ALL, b[0], b[2]), nn_boundary_loss(r, ALL, b[0], b[2])};
    nn_dice_backward(r, SAMPLES, N, b[0], truth, REAL_C(0.7), b[3]);
    nn_bce_backward(r, ALL, b[0], truth, REAL_C(0.3), b[3]);
    nn_consistency_backward(r, ALL, b[0], b[2], REAL_C(0.1), b[3], b[4]);
    nn_boundary_backward(r, ALL, b[0], b[2], REAL_C(0.01), b[3]);
    segfm_status status = take(out, losses, COUNT_OF(losses), error);
    if (status == SEGFM_OK) status = take(out, b[3], ALL, error);
    return done(status == SEGFM_OK ? take(out, b[4], ALL, error) : status, b, COUNT_OF(b), error);
}

/* Three steps, gradients of many sizes, and the sum of their squares. */
static segfm_status run_adamw(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 20011 };
    const nn_adamw o = {1e-3, 0.9, 0.999, 1e-8, 1e-2};
    real *b[] = {uniform("selftest.weight", N, -1, 1), uniform("selftest.dy", N, -1, 1), calloc(N, sizeof(real)),
                 calloc(N, sizeof(real))};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    double squares = 0;
    for (uint64_t step = 1; step <= 3; step++) {
        for (size_t i = 0; i < N; i++) b[1][i] *= b[1][i];
        squares = nn_square_sum(r, N, b[1]);
        nn_adamw_step(r, &o, step, N, b[0], b[1], 0.5, b[2], b[3]);
    }
    segfm_status status = take_doubles(out, &squares, 1, error);
    for (size_t i = 0; status == SEGFM_OK && i < COUNT_OF(b); i++) status = take(out, b[i], N, error);
    return done(status, b, COUNT_OF(b), error);
}

/* More cells than a block has, channels side by side and cells side by side. */
static segfm_status run_conv_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { CELLS = 11 * 10 * 12, IN = 21, OUT = 3 };
    real *b[] = {uniform("selftest.x", CELLS * IN, -1, 1),       uniform("selftest.weight", IN * OUT * 8, -1, 1),
                 uniform("selftest.dy", CELLS * 8 * OUT, -1, 1), uniform("selftest.a", CELLS * IN, -1, 1),
                 uniform("selftest.b", IN * OUT * 8, -1, 1),     uniform("selftest.bias", OUT, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    segfm_status status = SEGFM_OK;
    for (int beside = 0; status == SEGFM_OK && beside < 2; beside++) {
        nn_conv_transpose_backward(r, (size_t[]){11, 10, 12}, IN, OUT, b[0], beside ? 1 : IN, beside ? CELLS : 1, b[1],
                                   b[2], b[3], b[4], b[5]);
        status = take(out, b[3], CELLS * IN, error);
        if (status == SEGFM_OK) status = take(out, b[4], IN * OUT * 8, error);
        if (status == SEGFM_OK) status = take(out, b[5], OUT, error);
    }
    return done(status, b, COUNT_OF(b), error);
}

static segfm_status run_mix_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { CHANNELS = 7, N = 9001 };
    real *b[] = {uniform("selftest.a", CHANNELS, -1, 1), uniform("selftest.x", CHANNELS * N, -6, 6),
                 uniform("selftest.dy", N, -1, 1), uniform("selftest.b", CHANNELS, -1, 1),
                 uniform("selftest.y", CHANNELS * N, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_gelu_product_backward(r, CHANNELS, N, b[0], b[1], b[2], b[3], b[4]);
    segfm_status status = take(out, b[3], CHANNELS, error);
    return done(status == SEGFM_OK ? take(out, b[4], CHANNELS * N, error) : status, b, COUNT_OF(b), error);
}

static segfm_status run_trilinear_backward(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5 * 7 * 6, UP = 11 * 28 * 17 };
    real *b[] = {uniform("selftest.dy", UP, -1, 1), uniform("selftest.x", N, -1, 1)};
    if (!complete(b, COUNT_OF(b))) return done(SEGFM_OK, b, COUNT_OF(b), error);
    nn_trilinear_backward(r, (size_t[]){5, 7, 6}, (size_t[]){11, 28, 17}, b[0], b[1]);
    return done(take(out, b[1], N, error), b, COUNT_OF(b), error);
}

/* ---- volumes ------------------------------------------------------------------------------------------------- */

enum { SCAN = 30011 };

/* The image, or the numbers it is made with and the box of its foreground. */
static segfm_status scan_vector(bool image, const nn_run *r, io_buffer *out, segfm_error *error) {
    float *voxels = malloc(SCAN * sizeof *voxels);
    real *b[] = {malloc(SCAN * sizeof(real))};
    if (voxels == NULL || b[0] == NULL) {
        free(voxels);
        free(b[0]);
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    }
    for (size_t i = 0; i < SCAN; i++) voxels[i] = (float)(-1000.0 + 4000.0 * weights_uniform("selftest.scan", i));
    vol_foreground stats;
    vol_foreground_stats(voxels, SCAN, r->threads, &stats);
    vol_normalise(voxels, SCAN, &stats, r->threads, b[0]);
    free(voxels);
    if (image) return done(take(out, b[0], SCAN, error), b, COUNT_OF(b), error);
    vol_box box = vol_foreground_box(b[0], (vol_shape){{1, 1, SCAN}});
    const double numbers[] = {stats.threshold, stats.lower,         stats.upper,       stats.mean,
                              stats.std,       (double)stats.count, (double)box.lo[2], (double)box.hi[2]};
    return done(take_doubles(out, numbers, COUNT_OF(numbers), error), b, COUNT_OF(b), error);
}

static segfm_status run_foreground(const nn_run *r, io_buffer *out, segfm_error *error) {
    return scan_vector(false, r, out, error);
}
static segfm_status run_normalise(const nn_run *r, io_buffer *out, segfm_error *error) {
    return scan_vector(true, r, out, error);
}

/* A resize each way, and a crop. */
static segfm_status run_nearest(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5 * 64 * 30, RESIZED = 8 * 110 * 21, CROPPED = 3 * 50 * 9 };
    const vol_shape in = {{5, 64, 30}}, to = {{8, 110, 21}};
    real *b[] = {uniform("selftest.x", N, -1, 1), malloc(RESIZED * sizeof(real)), malloc(CROPPED * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    vol_resize_nearest(b[0], in, b[1], to, vol_box_whole(to), r->threads);
    vol_crop(b[0], in, (vol_box){{1, 10, 20}, {3, 59, 28}}, b[2]);
    segfm_status status = take(out, b[1], RESIZED, error);
    return done(status == SEGFM_OK ? take(out, b[2], CROPPED, error) : status, b, COUNT_OF(b), error);
}

/* Parts of a volume in a window, with the contrast of a box in them, and a window's values back in them: shrunk, enlarged, as
   large; and in another window over a part of what that one shows. */
static segfm_status run_zoom(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 7 * 40 * 50, WINDOW = 6 * 20 * 15 };
    const vol_shape in = {{7, 40, 50}}, window = {{6, 20, 15}};
    const vol_box views[] = {{{0, 1, 2}, {6, 38, 40}}, {{2, 10, 20}, {4, 22, 29}}, {{1, 5, 7}, {6, 24, 21}}};
    const vol_box box = {{2, 9, 12}, {4, 20, 26}};
    real *b[] = {uniform("selftest.x", N, -1, 1), uniform("selftest.y", WINDOW, -30, 30), malloc(WINDOW * sizeof(real)),
                 malloc(N * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL || b[3] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < COUNT_OF(views); i++) {
        vol_zoom(b[0], in, views[i], b[2], window, r->threads);
        status = take(out, b[2], WINDOW, error);
        vol_contrast(b[2], window, vol_zoom_box(box, views[i], window));
        vol_fill(b[3], in, vol_box_whole(in), -100);
        vol_unzoom(b[1], window, views[i], views[i], in, r->threads, b[3]);
        if (status == SEGFM_OK) status = take(out, b[2], WINDOW, error);
        if (status == SEGFM_OK) status = take(out, b[3], N, error);
        vol_rezoom(b[1], window, views[0], views[i], r->threads, b[2]);
        if (status == SEGFM_OK) status = take(out, b[2], WINDOW, error);
        real found[2];
        found[0] = (real)vol_expected_dice(b[2], WINDOW, &found[1]);
        if (status == SEGFM_OK) status = take(out, found, 2, error);
    }
    return done(status, b, COUNT_OF(b), error);
}

/* Every window of a region cut out, added up again and averaged. */
static segfm_status run_windows(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 7 * 40 * 50, REGION = 5 * 31 * 41, WINDOW = 8 * 12 * 10 };
    const vol_shape in = {{7, 40, 50}};
    const int64_t origin[3] = {1, 4, 8};
    vol_windows w;
    real *b[] = {uniform("selftest.x", N, -1, 1), malloc(REGION * sizeof(real)), malloc(WINDOW * sizeof(real))};
    if (b[0] == NULL || b[1] == NULL || b[2] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    vol_windows_plan((vol_shape){{5, 31, 41}}, (vol_shape){{8, 12, 10}}, &w);
    vol_fill(b[1], w.region, vol_box_whole(w.region), 0);
    segfm_status status = SEGFM_OK;
    for (int64_t i = 0; status == SEGFM_OK && i < vol_windows_total(&w); i++) {
        vol_window_extract(b[0], in, origin, &w, i, b[2]);
        status = take(out, b[2], WINDOW, error);
        for (size_t v = 0; v < WINDOW; v++)
            b[2][v] *= (real)(i + 1); /* windows that agreed would average to themselves */
        vol_window_add(&w, i, b[2], (int64_t[]){0, 0, 0}, vol_box_whole(w.region), w.region, b[1]);
    }
    vol_windows_average(&w, (int64_t[]){0, 0, 0}, vol_box_whole(w.region), w.region, r->threads, b[1]);
    return done(status == SEGFM_OK ? take(out, b[1], REGION, error) : status, b, COUNT_OF(b), error);
}

static segfm_status run_dice(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 5003, LABELS = 3 };
    uint16_t truth[N], predicted[N];
    real dice[LABELS];
    (void)r;
    for (size_t i = 0; i < N; i++) {
        truth[i] = (uint16_t)(LABELS * weights_uniform("selftest.truth", i));
        predicted[i] = (uint16_t)(LABELS * weights_uniform("selftest.predicted", i));
    }
    for (uint16_t label = 0; label < LABELS; label++) dice[label] = (real)vol_dice(truth, predicted, N, label);
    return take(out, dice, LABELS, error);
}

/* Two masks that mostly agree: blobs cut out of noise on a coarse grid. */
enum { BLOBS = 20 * 27 * 31 };
static const vol_shape blobs = {{20, 27, 31}};

static void make_blobs(uint8_t *truth, uint8_t *predicted) {
    for (size_t i = 0; i < BLOBS; i++) {
        uint64_t coarse = (i / (27 * 31) / 5 * 7 + i / 31 % 27 / 6) * 7 + i % 31 / 5;
        truth[i] = weights_uniform("selftest.truth", coarse) < 0.4;
        predicted[i] = truth[i] != (weights_uniform("selftest.predicted", i) < 0.03);
    }
}

static segfm_status run_distance(const nn_run *r, io_buffer *out, segfm_error *error) {
    static const double spacing[3] = {2.5, 0.7, 1.1};
    uint8_t truth[BLOBS], predicted[BLOBS];
    double *distance = malloc(BLOBS * sizeof *distance);
    void *scratch = aligned_alloc(NN_ALIGN, vol_distance_scratch(blobs, r->threads));
    segfm_status status = SEGFM_OK;
    make_blobs(truth, predicted);
    if (distance == NULL || scratch == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    if (status == SEGFM_OK) {
        vol_distance(predicted, blobs, spacing, r->threads, scratch, distance);
        status = take_doubles(out, distance, BLOBS, error);
    }
    free(distance);
    free(scratch);
    return status;
}

/* The table of areas, every metric of a volume and of its first slice, and where clicks fall. */
static segfm_status run_surface(const nn_run *r, io_buffer *out, segfm_error *error) {
    uint8_t truth[BLOBS], predicted[BLOBS];
    vol_surface_request q = {blobs, {2.5, 0.7, 1.1}, 1, false, r->threads};
    vol_click_request click = {blobs, VOL_CLICK_FIRST, VOL_CLICK_LARGE, r->threads};
    make_blobs(truth, predicted);
    size_t need[] = {vol_surface_bytes(blobs, false, r->threads), vol_click_bytes(predicted, truth, &click)};
    void *memory = aligned_alloc(NN_ALIGN, need[0] > need[1] ? need[0] : need[1]);
    if (memory == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    double area[256];
    vol_surface_areas(q.spacing, area);
    segfm_status status = take_doubles(out, area, COUNT_OF(area), error);
    for (int flat = 0; status == SEGFM_OK && flat < 2; flat++) {
        vol_surface m;
        q.flat = flat;
        if (flat) q.shape.n[0] = 1;
        vol_surface_measure(truth, predicted, &q, memory, &m);
        const double metrics[] = {m.dice, m.nsd, m.overlap_truth, m.overlap_prediction,
                                  m.hd95, m.hd,  m.asd_truth,     m.asd_prediction};
        status = take_doubles(out, metrics, COUNT_OF(metrics), error);
    }
    for (int rule = 0; status == SEGFM_OK && rule < 2; rule++) {
        vol_click c;
        click.rule = rule ? VOL_CLICK_OFFICIAL : VOL_CLICK_FIRST;
        vol_simulate_click(predicted, truth, &click, memory, &c);
        const double voxel[] = {(double)c.at[0], (double)c.at[1], (double)c.at[2], c.label};
        status = take_doubles(out, voxel, COUNT_OF(voxel), error);
    }
    free(memory);
    return status;
}

/* Every finite half as a float, and floats of every size as halves. */
static segfm_status run_half(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 0x7c00, SCALES = 36 };
    real *b[] = {uniform("selftest.x", N, -1, 1)};
    if (b[0] == NULL) return done(SEGFM_OK, b, COUNT_OF(b), error);
    (void)r;
    segfm_status status = SEGFM_OK;
    for (size_t i = 0; status == SEGFM_OK && i < N; i++) {
        float x = (float)b[0][i] * 0x1p-20f * (float)((uint64_t)1 << i % SCALES);
        const real three[] = {(real)base_half_to_float((uint16_t)i), (real)base_half_to_float((uint16_t)(i | 0x8000)),
                              (real)base_float_to_half(x)};
        status = take(out, three, 3, error);
    }
    return done(status, b, COUNT_OF(b), error);
}

/* The points of a frame, the corrector's input, what is written: one variant after the other. */
static segfm_status run_sampling(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { N = 12 * 31 * 35, K = 150, LIST = 2 * K };
    const vol_shape shape = {{12, 31, 35}};
    const vol_point_click clicks[2] = {{{3, 20, 9}, 1}, {{8, 1, 30}, 0}};
    real *b[] = {uniform("selftest.x", N, -4, 4), malloc(8 * LIST * sizeof(real)),
                 malloc(3 * LIST * sizeof(real)), uniform("selftest.y", 4 * LIST, -9, 9),
                 malloc(2 * LIST * sizeof(real)), malloc(LIST * sizeof(int64_t))};
    const vol_view v = {b[0], shape, {{1, 0, 2}, {11, 28, 34}}};
    nn_arena arena = {0};
    vol_samples s;
    vol_mt random;
    vol_samples_plan(&s, K, shape, &arena);
    void *memory = aligned_alloc(NN_ALIGN, arena.used);
    segfm_status status = memory == NULL ? base_fail(error, SEGFM_NO_MEMORY, "memory: got none for samples") : SEGFM_OK;
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL || memory == NULL) return free(memory), done(status, b, COUNT_OF(b), error);
    arena = (nn_arena){.base = memory, .capacity = arena.used};
    vol_samples_plan(&s, K, shape, &arena);
    vol_mt_seed(&random, 7);
    for (int variant = VOL_SEED; status == SEGFM_OK && variant <= VOL_UPSTREAM; variant++) {
        int64_t *voxels = (int64_t *)(void *)b[5];
        vol_sample(&v, (vol_variant)variant, clicks, 2, NULL, &random, r->threads, &s);
        vol_sample_state(&v, (vol_variant)variant, clicks, &s, b[1], b[2]);
        size_t n = vol_correction_writes(&v, (vol_variant)variant, &s, b[3], b[3] + LIST, voxels, b[4]);
        for (size_t i = 0; i < n; i++) b[4][n + i] = (real)voxels[i];
        status = take(out, b[1], 8 * LIST, error);
        if (status == SEGFM_OK) status = take(out, b[2], 3 * LIST, error);
        if (status == SEGFM_OK) status = take(out, b[4], 2 * n, error);
    }
    free(memory);
    return done(status, b, COUNT_OF(b), error);
}

/* What clicks spread to: in blobs, on a voxel that is right and on one that is wrong, on a corner, and where all has one label. */
static segfm_status run_spread(const nn_run *r, io_buffer *out, segfm_error *error) {
    const vol_point_click clicks[] = {{{9, 13, 16}, 1}, {{9, 13, 16}, 0}, {{0, 0, 0}, 1}, {{19, 26, 30}, 0}};
    uint8_t truth[BLOBS], predicted[BLOBS];
    real *b[] = {uniform("selftest.x", BLOBS, -3, 3), uniform("selftest.y", BLOBS, 0, 5), malloc(BLOBS * sizeof(real)),
                 malloc(BLOBS * sizeof(int64_t)), aligned_alloc(NN_ALIGN, vol_spread_scratch(blobs, r->threads))};
    segfm_status status = SEGFM_OK;
    make_blobs(truth, predicted);
    for (size_t i = 0; i < COUNT_OF(b); i++)
        if (b[i] == NULL) return done(status, b, COUNT_OF(b), error);
    for (size_t i = 0; i < BLOBS; i++) b[1][i] = truth[i] ? b[1][i] : -b[1][i];
    for (size_t c = 0; status == SEGFM_OK && c < COUNT_OF(clicks) + 1; c++) {
        int64_t *voxels = (int64_t *)(void *)b[3];
        bool alike = c == COUNT_OF(clicks);
        for (size_t i = 0; alike && i < BLOBS; i++) b[1][i] = -1;
        size_t n = vol_spread(b[0], b[1], blobs, &clicks[alike ? 0 : c], r->threads, b[4], voxels, b[2]);
        for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
            const real pair[2] = {(real)voxels[i], b[2][i]};
            status = take(out, pair, 2, error);
        }
    }
    return done(status, b, COUNT_OF(b), error);
}

/* ---- networks ------------------------------------------------------------------------------------------------ */

static segfm_status open_formula(const weights_config *config, int threads, tool_network *n, segfm_error *error) {
    io_buffer bytes = {0};
    segfm_status status = tool_formula_bytes(config, &bytes, error);
    if (status == SEGFM_OK) status = tool_network_open(bytes.data, bytes.size, true, NULL, 8, threads, n, error);
    io_buffer_free(&bytes);
    for (size_t i = 0; status == SEGFM_OK && i < n->net.window_voxels; i++)
        n->window[i] = (real)(float)weights_uniform("input.image", i);
    return status;
}

static segfm_status run_encoder(const nn_run *r, io_buffer *out, segfm_error *error) {
    tool_network n = {0};
    segfm_status status = open_formula(weights_named_config("tiny"), r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    status = take(out, n.embedding, n.net.tokens * n.net.config.dim, error);
    tool_network_close(&n);
    return status;
}

/* Seven steps of the tiny corrector: its five blocks, and twice its last going on. */
static segfm_status run_corrector(const nn_run *r, io_buffer *out, segfm_error *error) {
    enum { STEPS = 7 };
    tool_network n = {0};
    segvol_corrector c;
    nn_arena arena = {0};
    segfm_status status = open_formula(weights_named_config("tiny"), r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    size_t k = n.net.config.topk, hidden = n.net.config.gru_hidden;
    status = segvol_corrector_plan(&c, &n.net, STEPS, r->threads, &arena, error);
    void *memory = aligned_alloc(NN_ALIGN, arena.used);
    real *b[] = {memory, uniform("selftest.rows", STEPS * 16 * k, -1, 64),
                 uniform("selftest.coordinates", 6 * k, 0, 64), malloc(8 * k * sizeof(real))};
    bool missing = b[0] == NULL || b[1] == NULL || b[2] == NULL || b[3] == NULL;
    arena = (nn_arena){.base = memory, .capacity = arena.used};
    if (status == SEGFM_OK && !missing) status = segvol_corrector_plan(&c, &n.net, STEPS, r->threads, &arena, error);
    for (size_t step = 0; status == SEGFM_OK && !missing && step < STEPS; step++) {
        memcpy(c.rows, b[1], STEPS * 16 * k * sizeof(real));
        segvol_corrector_step(&n.net, &c, step, b[2], b[3], b[3] + 2 * k);
        status = take(out, c.hidden + step * hidden, hidden, error);
        if (status == SEGFM_OK) status = take(out, b[3], 8 * k, error);
    }
    tool_network_close(&n);
    return done(status, b, COUNT_OF(b), error);
}

/* Decoder and upsampling: masks, IoU and logits for a box and three points. */
static segfm_status run_decoder(const nn_run *r, io_buffer *out, segfm_error *error) {
    tool_network n = {0};
    const real box[6] = {3, 10, 12, 11, 40, 50};
    const segvol_point points[] = {{4, 30, 25, 1}, {10, 20, 45, 0}, {7, 50, 12, 1}};
    const segvol_prompts prompts = {points, COUNT_OF(points), box};
    segfm_status status = open_formula(weights_named_config("tiny"), r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    segvol_decode(&n.net, &n.workspace, n.embedding, &prompts);
    segvol_upsample(&n.net, &n.workspace, 0, n.logits);
    status = take(out, n.workspace.masks, n.net.config.mask_tokens * n.net.low_voxels, error);
    if (status == SEGFM_OK) status = take(out, n.workspace.iou, n.net.config.mask_tokens, error);
    if (status == SEGFM_OK) status = take(out, n.logits, n.net.window_voxels, error);
    tool_network_close(&n);
    return status;
}

/* One encoder layer and the decoder at full size. */
static segfm_status run_full_layer(const nn_run *r, io_buffer *out, segfm_error *error) {
    weights_config config = *weights_named_config("full");
    tool_network n = {0};
    const real box[6] = {8, 60, 70, 25, 180, 200};
    const segvol_prompts prompts = {NULL, 0, box};
    config.depth = 1;
    config.gru_blocks = config.gru_hidden = config.topk = 0;
    segfm_status status = open_formula(&config, r->threads, &n, error);
    if (status != SEGFM_OK) return status;
    segvol_encode(&n.net, &n.workspace, n.window, n.embedding);
    segvol_decode(&n.net, &n.workspace, n.embedding, &prompts);
    status = take(out, n.embedding, n.net.tokens * n.net.config.dim, error);
    if (status == SEGFM_OK) status = take(out, n.workspace.masks, n.net.low_voxels, error);
    tool_network_close(&n);
    return status;
}

/* The whole way of a scan, from a box (and clicks, one of which is taken back) to mask and logits. frame: the model's. */
static segfm_status session_vector(bool clicks, uint32_t frame, const nn_run *r, io_buffer *out, segfm_error *error) {
    const int64_t shape[3] = {21, 75, 90};
    weights_config config = *weights_named_config("tiny");
    const int64_t at[][3] = {{9, 30, 40}, {5, 50, 62}, {14, 22, 71}, {9, 31, 40}};
    size_t n = (size_t)(shape[0] * shape[1] * shape[2]);
    segfm_options options = segfm_options_default();
    segfm_model_options opening = segfm_model_options_default();
    segfm_model *model = NULL;
    segfm_session *session = NULL;
    io_buffer bytes = {0};
    float *voxels = malloc(n * sizeof *voxels);
    segfm_status status =
        voxels == NULL ? base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector") : SEGFM_OK;
    options.threads = opening.threads = r->threads;
    config.frame = frame;
    if (status == SEGFM_OK) status = tool_formula_bytes(&config, &bytes, error);
    if (status == SEGFM_OK) status = segfm_model_open(bytes.data, bytes.size, &opening, &model, error);
    if (status == SEGFM_OK) status = segfm_session_new(model, shape, &options, NULL, 0, &session, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++)
        voxels[i] = (float)(int)(256.0 * weights_uniform("selftest.scan", i));
    if (status == SEGFM_OK) status = segfm_set_volume(session, voxels, error);
    if (status == SEGFM_OK) status = segfm_box(session, (int64_t[]){4, 20, 15, 15, 60, 71}, error);
    for (size_t i = 0; clicks && status == SEGFM_OK && i < COUNT_OF(at); i++)
        status = segfm_click(session, at[i], i % 2 == 0, error);
    if (clicks && status == SEGFM_OK) status = segfm_undo(session, error);
    if (status == SEGFM_OK) status = io_buffer_reserve(out, n, error);
    if (status == SEGFM_OK) status = segfm_mask(session, out->data, n, error);
    if (status == SEGFM_OK) out->size = n;
    if (status == SEGFM_OK) status = segfm_logits(session, voxels, n, error);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
        real logit = (real)voxels[i];
        status = take(out, &logit, 1, error);
    }
    segfm_session_free(session);
    segfm_model_close(model);
    io_buffer_free(&bytes);
    free(voxels);
    return status;
}

static segfm_status run_session(const nn_run *r, io_buffer *out, segfm_error *error) {
    return session_vector(false, 0, r, out, error);
}
static segfm_status run_clicks(const nn_run *r, io_buffer *out, segfm_error *error) {
    return session_vector(true, 0, r, out, error);
}
static segfm_status run_framed(const nn_run *r, io_buffer *out, segfm_error *error) {
    return session_vector(true, 25, r, out, error);
}

/* ---- training --------------------------------------------------------------------------------------------------- */

/* A phantom's voxels and labels, then samples of it: images, truths, boxes. */
static segfm_status run_phantom(const nn_run *r, io_buffer *out, segfm_error *error) {
    const train_phantom_options size = {{14, 36, 40}, {18, 44, 48}};
    segfm_status status = SEGFM_OK;
    for (uint64_t number = 0; status == SEGFM_OK && number < 8; number++) {
        train_scan s = {0};
        status = train_phantom(1, number, &size, r->threads, &s, error);
        for (size_t i = 0; status == SEGFM_OK && i < vol_count(s.shape); i++) {
            real pair[2] = {(real)s.voxels[i], (real)s.labels[i]};
            status = take(out, pair, 2, error);
        }
        train_scan_free(&s);
    }
    return status;
}

static segfm_status draw_samples(const train_case *c, unsigned frame, io_buffer *out, segfm_error *error) {
    const vol_shape window = {{8, 32, 24}};
    train_augmentation a = train_augmentation_default();
    a.frame = frame;
    size_t n = vol_count(window);
    real *b[] = {malloc(n * sizeof(real)), aligned_alloc(NN_ALIGN, train_draw_bytes(&window)), malloc(n)};
    segfm_status status = SEGFM_OK;
    bool missing = b[0] == NULL || b[1] == NULL || b[2] == NULL;
    if (missing) status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    train_sample s = {.image = b[0], .truth = (uint8_t *)b[2]};
    for (uint64_t number = 0; status == SEGFM_OK && number < 24; number++) {
        train_random random = train_random_at(1, 2, number);
        train_draw(c, number % c->class_count, &window, &a, &random, b[1], &s);
        status = take(out, s.box, 6, error);
        for (size_t i = 0; status == SEGFM_OK && i < n; i++) {
            real pair[2] = {s.image[i], (real)s.truth[i]};
            status = take(out, pair, 2, error);
        }
    }
    for (size_t i = 0; i < COUNT_OF(b); i++) free(b[i]);
    return status;
}

/* frame: the model's. */
static segfm_status sample_vector(unsigned frame, const nn_run *r, io_buffer *out, segfm_error *error) {
    const train_phantom_options size = {{16, 40, 44}, {16, 40, 44}};
    train_scan s = {0};
    train_case c = {0};
    segfm_status status = train_phantom(2, 1, &size, r->threads, &s, error);
    if (status == SEGFM_OK) status = train_case_make(s.voxels, s.labels, s.shape, s.spacing, 1, r->threads, &c, error);
    if (status == SEGFM_OK) status = draw_samples(&c, frame, out, error);
    train_case_free(&c);
    train_scan_free(&s);
    return status;
}

static segfm_status run_sample(const nn_run *r, io_buffer *out, segfm_error *error) {
    return sample_vector(0, r, out, error);
}
static segfm_status run_sample_framed(const nn_run *r, io_buffer *out, segfm_error *error) {
    return sample_vector(25, r, out, error);
}

/* A network in the making. */
typedef struct learner {
    train_network net;
    train_optimiser optimiser;
    train_sample sample;
    void *scratch;
} learner;

static const weights_config learner_config = {.spatial = {8, 24, 32},
                                              .patch = {4, 8, 8},
                                              .dim = 32,
                                              .depth = 2,
                                              .heads = 2,
                                              .mlp = 48,
                                              .decoder_depth = 2,
                                              .decoder_heads = 2,
                                              .decoder_mlp = 40,
                                              .decoder_cross_dim = 16,
                                              .mask_tokens = 4,
                                              .iou_hidden = 8,
                                              .iou_layers = 3,
                                              .hyper_layers = 3,
                                              .up1 = 8,
                                              .up2 = 5,
                                              .gru_blocks = 2,
                                              .gru_hidden = 24,
                                              .topk = 8};
static const vol_shape learner_window = {{8, 24, 32}};

static segfm_status plan_learner(learner *l, int threads, nn_arena *arena, segfm_error *error) {
    const train_network_options o = {
        .max_corrections = 3, .parts = TRAIN_ALL, .offsets = true, .all_clicks = true, .recompute = true};
    segfm_status status = train_network_plan(&l->net, &learner_config, &o, threads, arena, error);
    if (status != SEGFM_OK) return status;
    train_optimiser_plan(&l->optimiser, &l->net, threads, arena);
    l->optimiser.adamw = (nn_adamw){0, 0.9, 0.999, 1e-8, 1e-2};
    l->optimiser.clip = 1;
    l->sample.image = nn_arena_reals(arena, vol_count(learner_window));
    l->sample.truth = nn_arena_take(arena, vol_count(learner_window), 1);
    l->scratch = nn_arena_take(arena, train_draw_bytes(&learner_window), 1);
    return SEGFM_OK;
}

/* Twenty steps of two samples each. */
static void train_learner(learner *l, const train_case *c) {
    const train_schedule schedule = {.rate = 3e-3, .floor = 1e-4, .warmup = 4, .steps = 20, .cosine = true};
    const train_augmentation a = train_augmentation_default();
    train_initial(&l->net, 1);
    train_network_refresh(&l->net);
    for (uint64_t step = 0; step < 20; step++) {
        const train_objective o = {(int)(step % 4), step > 7, REAL_C(0.1), REAL_C(0.05)};
        train_losses losses;
        train_optimiser_clear(&l->net);
        for (uint64_t i = 0; i < 2; i++) {
            train_random random = train_random_at(1, step, i);
            train_draw(c, (step + i) % c->class_count, &learner_window, &a, &random, l->scratch, &l->sample);
            train_network_backward(&l->net, &l->sample, &o, REAL_C(0.5), &losses);
        }
        train_optimiser_step(&l->optimiser, &l->net, train_rate(&schedule, step));
        train_network_refresh(&l->net);
    }
}

/* What training has made of the weights: every operator's backward pass, the sampling, the optimiser. */
static segfm_status run_training(const nn_run *r, io_buffer *out, segfm_error *error) {
    const train_phantom_options size = {{16, 40, 44}, {16, 40, 44}};
    train_scan s = {0};
    train_case c = {0};
    learner l = {0};
    nn_arena arena = {0};
    void *memory = NULL;
    segfm_status status = train_phantom(2, 1, &size, r->threads, &s, error);
    if (status == SEGFM_OK) status = train_case_make(s.voxels, s.labels, s.shape, s.spacing, 1, r->threads, &c, error);
    if (status == SEGFM_OK) status = plan_learner(&l, r->threads, &arena, error);
    if (status == SEGFM_OK && (memory = aligned_alloc(NN_ALIGN, arena.used)) == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a conformance vector");
    if (status == SEGFM_OK) {
        arena = (nn_arena){.base = memory, .capacity = arena.used};
        status = plan_learner(&l, r->threads, &arena, error);
    }
    if (status == SEGFM_OK) {
        train_learner(&l, &c);
        status = take(out, l.net.parameters, l.net.count, error);
    }
    free(memory);
    train_case_free(&c);
    train_scan_free(&s);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

static const vector vectors[] = {
    {"exp", 0x28e5594b70a5460dU, run_exp},
    {"erf", 0x23d638ea12eb8fb1U, run_erf},
    {"tanh", 0xf07ed76dab64a7abU, run_tanh},
    {"log", 0x7269cca902560155U, run_log},
    {"log1p", 0x2897f346f025854cU, run_log1p},
    {"sigmoid", 0x87e95bf9769e33c0U, run_sigmoid},
    {"sigmoid-forward", 0x87e95bf9769e33c0U, run_sigmoid_forward},
    {"above-half", 0x633ab22cb60a1048U, run_above_half},
    {"fourier", 0x6d01b3ec1d84b64dU, run_fourier},
    {"half", 0x3ed5505ac955d94cU, run_half},
    {"matmul", 0xc94fbdc5a9ad291cU, run_matmul},
    {"matmul-naive", 0xc94fbdc5a9ad291cU, run_matmul_naive},
    {"matmul-half", 0xbc72ccaede26b373U, run_matmul_half},
    {"attention", 0x2be59a8f13f5a272U, run_attention},
    {"attention-naive", 0x2be59a8f13f5a272U, run_attention_naive},
    {"layernorm", 0x59694ce38275fa31U, run_layernorm},
    {"layernorm-block", 0x215b08ac7a5740c2U, run_layernorm_block},
    {"add-layernorm", 0x91ea3a1b2974c7b4U, run_add_layernorm},
    {"sum", 0x6350e38c23415b46U, run_sum},
    {"add", 0x0d6cee28934be008U, run_add},
    {"relu", 0xfa229b70f193b8a1U, run_relu},
    {"gelu", 0xec30c946eeabb68fU, run_gelu},
    {"subnormal", 0xece9e7df159c6a45U, run_subnormal},
    {"patches", 0x6ba558ef0b61f6d5U, run_patches},
    {"conv-transpose", 0x3088c358ce995477U, run_conv_transpose},
    {"upscale", 0xfea67a129f96a4ddU, run_upscale},
    {"trilinear", 0x72c949feca37420fU, run_trilinear},
    {"rows-product", 0x07c22e4014602bb0U, run_rows_product},
    {"gru", 0x6042cab6b277d00bU, run_gru},
    {"losses", 0x1143b9d8864601bfU, run_losses},
    {"linear-back", 0xc36e6ad2b0a7a61dU, run_linear_backward},
    {"matmul-add", 0xd90b22398a5936d3U, run_matmul_add},
    {"attention-back", 0x1154879bdfeab878U, run_attention_backward},
    {"elements-back", 0x55bf496d33c591bfU, run_elements_backward},
    {"norm-back", 0x0e9c4bac6741d82eU, run_norm_backward},
    {"norm-block-back", 0x0571a6b4fdcca73bU, run_norm_block_backward},
    {"gru-back", 0x770eaee92398de3eU, run_gru_backward},
    {"losses-back", 0xf26f71b2bd5183acU, run_losses_backward},
    {"adamw", 0xb9de9c77bf763292U, run_adamw},
    {"conv-back", 0xb7e7826c9a7aabe7U, run_conv_backward},
    {"mix-back", 0x293b2abf947bbfe6U, run_mix_backward},
    {"trilin-back", 0xa1eb1cd36f5e29f5U, run_trilinear_backward},
    {"foreground", 0xa7ed9de8ac657e82U, run_foreground},
    {"normalise", 0xb2cdb00db88b474eU, run_normalise},
    {"nearest", 0xd04a2d7e12572e7dU, run_nearest},
    {"zoom", 0x586ed598092585d9U, run_zoom},
    {"windows", 0x0e950ce72d7ea5f0U, run_windows},
    {"dice", 0x044a6f76c21a7cb7U, run_dice},
    {"distance", 0xf0c398bb9858911fU, run_distance},
    {"surface", 0x3dbe594ca9afb324U, run_surface},
    {"sampling", 0x0d39ca772cdfe421U, run_sampling},
    {"spread", 0xf8f6ff30b859caa2U, run_spread},
    {"phantom", 0x3d978a5b9fe418d5U, run_phantom},
    {"sample", 0x5effb3750c9bb82dU, run_sample},
    {"sample-framed", 0x8534f5746ff5f6e6U, run_sample_framed},
    {"tiny-encoder", 0x68dadb155e2808ccU, run_encoder},
    {"tiny-decoder", 0xd4277e502a87d7cbU, run_decoder},
    {"tiny-corrector", 0x68988be984d31e7eU, run_corrector},
    {"tiny-session", 0x92bc7771b3f8b40dU, run_session},
    {"training", 0xb85eb4a372674f1dU, run_training},
    {"tiny-clicks", 0x41501bde6d539032U, run_clicks},
    {"tiny-framed", 0x580076bb766cdda0U, run_framed},
};
static const vector full_vectors[] = {
    {"full-layer", 0xc29ff732b0384ca0U, run_full_layer},
};

static segfm_status run_vectors(const vector *v, size_t n, const nn_run *run, int *different, segfm_error *error) {
    const bool promised = sizeof(real) == sizeof(float);
    for (size_t i = 0; i < n; i++) {
        io_buffer out = {0};
        segfm_status status = v[i].run(run, &out, error);
        uint64_t hash = base_xxh64(out.data, out.size, 0);
        io_buffer_free(&out);
        if (status != SEGFM_OK) return status;
        bool same = !promised || hash == v[i].hash;
        printf("%-16s %016llx%s\n", v[i].name, (unsigned long long)hash, same ? "" : "  DIFFERS");
        if (!same) *different += 1;
    }
    return SEGFM_OK;
}

segfm_status command_selftest(int argc, char **argv, segfm_error *error) {
    bool full = false;
    tool_common common;
    const tool_option options[] = {{"--full", .flag = &full}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status != SEGFM_OK) return status;
    int different = 0;
    nn_run run = {nn_threads(common.threads), malloc(SCRATCH * sizeof(real)), nn_kernels_best()};
    if (run.scratch == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the operators' scratch");
    if (run.threads > 16) run.threads = 16; /* what SCRATCH is enough for */
    status = run_vectors(vectors, COUNT_OF(vectors), &run, &different, error);
    if (status == SEGFM_OK && full) status = run_vectors(full_vectors, COUNT_OF(full_vectors), &run, &different, error);
    free(run.scratch);
    if (status != SEGFM_OK) return status;
    return different == 0 ? SEGFM_OK : SEGFM_CHECK_FAILED;
}
