#include "../nn/nn.h"
#include "random.h"
#include "test.h"

typedef struct shape {
    size_t m, n, k;
} shape;

/* Around every edge: tiles, panels, chunks of 256, slices of 768, row blocks of 256. */
static const shape shapes[] = {{1, 1, 1},     {1, 16, 255},   {2, 17, 256},  {3, 15, 257},
                               {5, 33, 511},  {7, 31, 513},   {16, 16, 768}, {17, 48, 769},
                               {15, 5, 1025}, {31, 64, 96},   {255, 18, 40}, {256, 20, 33},
                               {257, 40, 17}, {300, 7, 1537}, {530, 3, 2},   {64, 200, 300}};

/* nn_matmul gives the oracle's bits for every shape, thread count and stride, and touches nothing else. */
static void test_against_naive(const nn_kernels *kernels, int threads) {
    real *scratch = aligned_reals(nn_matmul_scratch(threads));
    nn_run run = {threads, scratch, kernels};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t m = shapes[i].m, n = shapes[i].n, k = shapes[i].k, y_row = n + 3;
        real *a = random_reals(i, m * (k + 2), -1, 1), *b = random_reals(i + 100, n * k, -1, 1),
             *bias = random_reals(i + 200, n, -1, 1);
        real *panels = aligned_reals(nn_panels_count(n, k)), *y = random_reals(7, m * y_row, 5, 6),
             *want = random_reals(7, m * y_row, 5, 6);
        nn_panels_pack(b, n, k, k, 1, panels, threads);
        nn_matmul(&run, m, a, k + 2, 1, &(nn_panels){.n = n, .k = k, .data = panels}, i % 2 == 0 ? bias : NULL, y,
                  y_row);
        nn_matmul_naive(NN_CHUNK, m, n, k, a, k + 2, 1, b, k, 1, i % 2 == 0 ? bias : NULL, want, y_row);
        CHECK(memcmp(y, want, m * y_row * sizeof *y) == 0);

        nn_panels_pack(b, n, k, 1, n, panels, threads); /* b as (k,n), a as (k,m) */
        nn_matmul(&run, m, a, 1, m, &(nn_panels){.n = n, .k = k, .data = panels}, NULL, y, y_row);
        nn_matmul_naive(NN_CHUNK, m, n, k, a, 1, m, b, 1, n, NULL, want, y_row);
        CHECK(memcmp(y, want, m * y_row * sizeof *y) == 0);
        free(a), free(b), free(bias), free(panels), free(y), free(want);
    }
    free(scratch);
}

/* What a reader delivers: a matrix whose columns lie one after the other, one element of which may be refused. */
typedef struct columns {
    size_t k, refused;
    const real *reals;
    const uint16_t *halves;
} columns;

static bool read_column(void *user, size_t column, size_t k, size_t count, void *out) {
    const columns *c = user;
    size_t first = column * c->k + k;
    if (c->halves != NULL) memcpy(out, c->halves + first, count * sizeof *c->halves);
    else memcpy(out, c->reals + first, count * sizeof *c->reals);
    return !(c->refused >= first && c->refused < first + count);
}

/* Panels filled by a reader are those packed from the whole; panels of halves give the bits of the same numbers as reals. */
static void test_filled(int threads) {
    nn_run run = {threads, aligned_reals(nn_matmul_scratch(threads)), nn_kernels_best()};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t m = shapes[i].m, n = shapes[i].n, k = shapes[i].k, count = nn_panels_count(n, k);
        size_t panels = (n + NN_LANES - 1) / NN_LANES, good = 0;
        real *a = random_reals(i, m * k, -1, 1), *b = random_reals(i + 100, n * k, -1, 1),
             *bias = random_reals(i + 200, n, -1, 1);
        uint16_t *halves = malloc(n * k * sizeof *halves), *packed_halves = malloc(count * sizeof *packed_halves);
        real *packed = aligned_reals(count), *filled = aligned_reals(count), *y = malloc(m * n * sizeof *y),
             *want = malloc(m * n * sizeof *want);
        for (size_t j = 0; j < n * k; j++) {
            halves[j] = base_float_to_half((float)b[j] * (j % 5 == 0 ? 0x1p-15f : 1)); /* some are subnormal */
            b[j] = (real)base_half_to_float(halves[j]);
        }
        columns reals = {k, n * k - 1, b, NULL}, stored = {k, n * k - 1, NULL, halves};
        for (size_t p = 0; p < panels; p++) {
            good += nn_panels_fill(n, k, false, filled, p, read_column, &reals);
            good += nn_panels_fill(n, k, true, packed_halves, p, read_column, &stored);
        }
        CHECK(good == 2 * (panels - 1)); /* the last panel has the refused element */
        nn_panels_pack(b, n, k, k, 1, packed, threads);
        CHECK(memcmp(packed, filled, count * sizeof *packed) == 0);
        nn_matmul_naive(NN_CHUNK, m, n, k, a, k, 1, b, k, 1, i % 2 == 0 ? bias : NULL, want, n);
        nn_matmul(&run, m, a, k, 1, &(nn_panels){.n = n, .k = k, .half = packed_halves}, i % 2 == 0 ? bias : NULL, y,
                  n);
        CHECK(memcmp(y, want, m * n * sizeof *y) == 0);
        free(a), free(b), free(bias), free(halves), free(packed_halves), free(packed), free(filled), free(y),
            free(want);
    }
    free(run.scratch);
}

/* All finite halves, as the kernels widen them. */
static void test_widen(void) {
    enum { COUNT = 2 * 0x7C00 };
    uint16_t *halves = malloc(COUNT * sizeof *halves);
    real *out = malloc(COUNT * sizeof *out);
    size_t wrong = 0;
    for (uint32_t i = 0; i < COUNT; i++) halves[i] = (uint16_t)(i / 2 + i % 2 * 0x8000U);
    nn_kernels_best()->widen(COUNT, halves, out);
    for (size_t i = 0; i < COUNT; i++) {
        real want = (real)base_half_to_float(halves[i]);
        wrong += memcmp(&out[i], &want, sizeof want) != 0;
    }
    CHECK(wrong == 0);
    free(halves), free(out);
}

/* Whole numbers: the sum is exact, so it must equal a sum in integers. */
static void test_exact(void) {
    size_t m = 37, n = 29, k = 600;
    real *a = random_wholes(1, m * k, -9, 9), *b = random_wholes(2, n * k, -9, 9), *y = malloc(m * n * sizeof *y);
    nn_matmul_naive(NN_CHUNK, m, n, k, a, k, 1, b, k, 1, NULL, y, n);
    int wrong = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            long sum = 0;
            for (size_t p = 0; p < k; p++) sum += (long)a[i * k + p] * (long)b[j * k + p];
            wrong += y[i * n + j] != (real)sum;
        }
    CHECK(wrong == 0);
    free(a), free(b), free(y);
}

/* The oracle itself: chunks of 256 summed from zero, then added. 1 + 512·2^-25 would be lost without chunks in float. */
static void test_chunks(void) {
    real a[513], one[513], y;
    a[0] = 1;
    for (int i = 1; i < 513; i++) a[i] = REAL_C(0x1p-25);
    for (int i = 0; i < 513; i++) one[i] = 1;
    nn_matmul_naive(NN_CHUNK, 1, 1, 513, a, 513, 1, one, 513, 1, NULL, &y, 1);
#ifdef SEGFM_REAL_DOUBLE
    CHECK(y == 1 + 512 * 0x1p-25);
#else
    CHECK(
        y ==
        1 + 256 *
                0x1p-25f); /* the first chunk's small terms vanish, the second chunk's stay, the last one's vanishes */
#endif
}

/* Rows that fill the register squares and rows that do not; nothing is written behind the last column. */
static void test_transpose(const nn_kernels *kernels) {
    enum { MOST = 50, ROW = MOST + 3, GUARD = 16 };
    real *from = random_wholes(1, MOST * ROW, -99, 99), to[MOST * MOST + GUARD];
    static const size_t widths[] = {1, 2, 3, 6, 8, 12, 16, 24, MOST};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (size_t n = 1, mr = widths[i]; n <= mr; n++)
            for (size_t count = 0; count <= MOST; count++) {
                bool same = true;
                for (size_t j = 0; j < MOST * MOST + GUARD; j++) to[j] = 1000;
                kernels->transpose(mr, from, ROW, n, count, to);
                for (size_t k = 0; k < count; k++)
                    for (size_t r = 0; r < n; r++) same = same && to[k * mr + r] == from[r * ROW + k];
                for (size_t j = 0; j < GUARD; j++) same = same && to[count * mr + j] == 1000;
                CHECK(same);
            }
    free(from);
}

int main(void) {
    test_transpose(nn_kernels_best());
    for (int threads = 1; threads <= 3; threads++) test_against_naive(nn_kernels_best(), threads);
    for (int threads = 1; threads <= 3; threads++) test_filled(threads);
    test_widen();
    test_exact();
    test_chunks();
    return test_summary();
}
