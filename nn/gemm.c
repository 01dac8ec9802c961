/* y = a · B + bias with B packed once (weights) and a packed block by block.

   The loops, outside in: tasks (blocks of rows × groups of B's panels, shared out to the threads) → slices of k, KC long
   → the slice of the row block is packed, it then stays in the second-level cache → B's panels → the block's row panels
   → kernel. The element waits in y between slices; as KC is a multiple of NN_CHUNK, slicing changes no bit. Where B is
   stored in half precision, the slice of each of its panels is widened before the row panels pass over it. */
#include <assert.h>

#include "pack.h"

#ifndef NN_KC
#define NN_KC 768
#endif
#ifndef NN_MC
#define NN_MC 256
#endif

#if NN_KC % 256 != 0
#error "NN_KC must be a multiple of NN_CHUNK"
#endif

#ifndef SEGFM_TINY
enum { STRIP = 256 }; /* elements of a column that are read at a time: 16 columns' fit into the first-level cache */
#else
enum { STRIP = 5 };
#endif
enum { KC = NN_KC, MC = NN_MC + NN_MAX_ROWS - 1 }; /* MC: room for NN_MC rows padded to whole panels */
/* Reals of a thread's scratch: the packed slice of a row block, then one widened slice of a panel. */
enum { PACKED = MC * KC, SCRATCH = PACKED + KC * NN_LANES };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t panels_of(size_t n) { return n / NN_LANES + (n % NN_LANES != 0); }

size_t nn_panels_count(size_t n, size_t k) {
    return nn_times(nn_plus(n, NN_LANES - 1) / NN_LANES, nn_times(NN_LANES, k));
}

void nn_panels_pack(const real *b, size_t n, size_t k, size_t stride_n, size_t stride_k, real *data, int threads) {
    ptrdiff_t panels = (ptrdiff_t)((n + NN_LANES - 1) / NN_LANES);
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t p = 0; p < panels; p++) {
        size_t column = (size_t)p * NN_LANES, lanes = smaller(n - column, NN_LANES);
        real *to = data + column * k;
        if (stride_n == 1 && lanes == NN_LANES) { /* a length that the compiler knows */
            for (size_t i = 0; i < k; i++) memcpy(to + i * NN_LANES, b + i * stride_k + column, NN_LANES * sizeof *to);
            continue;
        }
        for (size_t i = 0; i < k; i++)
            for (size_t l = 0; l < NN_LANES; l++)
                to[i * NN_LANES + l] = l < lanes ? b[i * stride_k + (column + l) * stride_n] : 0;
    }
}

/* Columns side by side → panel. The strips come from the cache, so it does not matter that they are read across. */
static void interleave(size_t count, const real columns[NN_LANES][STRIP], real *panel) {
    for (size_t i = 0; i < count; i++)
        for (size_t l = 0; l < NN_LANES; l++) panel[i * NN_LANES + l] = columns[l][i];
}

static void interleave_halves(size_t count, const uint16_t columns[NN_LANES][STRIP], uint16_t *panel) {
    for (size_t i = 0; i < count; i++)
        for (size_t l = 0; l < NN_LANES; l++) panel[i * NN_LANES + l] = columns[l][i];
}

static bool fill_panel(size_t column, size_t lanes, size_t k, nn_column_reader *read, void *user, real *panel) {
    real columns[NN_LANES][STRIP] = {0};
    bool good = true;
    for (size_t i = 0; i < k; i += STRIP) {
        size_t count = smaller(k - i, STRIP);
        for (size_t l = 0; l < lanes; l++) good = read(user, column + l, i, count, columns[l]) && good;
        interleave(count, (const real(*)[STRIP])columns, panel + i * NN_LANES);
    }
    return good;
}

static bool fill_half_panel(size_t column, size_t lanes, size_t k, nn_column_reader *read, void *user,
                            uint16_t *panel) {
    uint16_t columns[NN_LANES][STRIP] = {0};
    bool good = true;
    for (size_t i = 0; i < k; i += STRIP) {
        size_t count = smaller(k - i, STRIP);
        for (size_t l = 0; l < lanes; l++) good = read(user, column + l, i, count, columns[l]) && good;
        interleave_halves(count, (const uint16_t(*)[STRIP])columns, panel + i * NN_LANES);
    }
    return good;
}

bool nn_panels_fill(size_t n, size_t k, bool half, void *data, size_t panel, nn_column_reader *read, void *user) {
    size_t column = panel * NN_LANES, lanes = smaller(n - column, NN_LANES);
    if (half) return fill_half_panel(column, lanes, k, read, user, (uint16_t *)data + column * k);
    return fill_panel(column, lanes, k, read, user, (real *)data + column * k);
}

size_t nn_matmul_scratch(int threads) { return nn_times((size_t)threads, (size_t)SCRATCH); }

/* One row panel times one panel of B into y, of which rows × lanes exist. */
static void one_tile(nn_tile tile, size_t kc, const real *a, const real *b, size_t rows, size_t lanes, bool first,
                     const real *bias, real *y, size_t y_row) {
    if (rows == tile.rows && lanes == NN_LANES) {
        tile.product(NN_CHUNK, kc, a, b, NN_LANES, y, y_row, first, bias);
        return;
    }
    real t[NN_MAX_ROWS * NN_LANES] = {0};
    if (!first)
        for (size_t r = 0; r < rows; r++) memcpy(t + r * NN_LANES, y + r * y_row, lanes * sizeof(real));
    tile.product(NN_CHUNK, kc, a, b, NN_LANES, t, NN_LANES, first, NULL);
    for (size_t r = 0; r < rows; r++)
        for (size_t l = 0; l < lanes; l++)
            y[r * y_row + l] = bias == NULL ? t[r * NN_LANES + l] : t[r * NN_LANES + l] + bias[l];
}

/* Rows of one task: a, y point at its first; panels [begin, end) of B. add: to what y holds. scratch: SCRATCH reals. */
static void block(const nn_kernels *kernels, size_t rows, const real *a, size_t a_row, size_t a_column,
                  const nn_panels *b, size_t begin, size_t end, const real *bias, bool add, real *y, size_t y_row,
                  real *scratch) {
    nn_tile tile = nn_tile_for(kernels, rows);
    real *packed = scratch, *widened = scratch + PACKED;
    for (size_t k = 0; k < b->k || k == 0; k += KC) {
        size_t kc = smaller(b->k - k, KC);
        bool last = k + kc == b->k;
        nn_pack_rows(kernels, tile.rows, a + k * a_column, a_row, a_column, rows, kc, packed);
        for (size_t p = begin; p < end; p++) {
            size_t column = p * NN_LANES, lanes = smaller(b->n - column, NN_LANES);
            size_t at = column * b->k + k * NN_LANES;
            if (b->half != NULL) kernels->widen(kc * NN_LANES, b->half + at, widened);
            const real *panel = b->half != NULL ? widened : b->data + at;
            const real *panel_bias = last && bias != NULL ? bias + column : NULL;
            for (size_t i = 0; i < rows; i += tile.rows)
                one_tile(tile, kc, packed + i * kc, panel, smaller(rows - i, tile.rows), lanes, k == 0 && !add,
                         panel_bias, y + i * y_row + column, y_row);
        }
    }
}

static void matmul(const nn_run *run, size_t m, const real *a, size_t a_row, size_t a_column, const nn_panels *b,
                   const real *bias, bool add, real *y, size_t y_row) {
    if (m == 0 || b->n == 0) return;
    int team = nn_team(run->threads, nn_times(m, nn_times(panels_of(b->n), b->k)));
    size_t threads = (size_t)team, panels = panels_of(b->n);
    size_t blocks = (m + NN_MC - 1) / NN_MC, groups = 1;
    if (blocks < threads) { /* blocks of two tiles or more, then groups: each of those packs its rows again */
        blocks = larger(blocks, smaller(threads, m / (2 * run->kernels->tile.rows)));
        groups = smaller((threads + blocks - 1) / blocks, panels);
    } else {
        blocks = (blocks + threads - 1) / threads * threads; /* as much for each thread */
    }
    size_t rows = nn_padded((m + blocks - 1) / blocks, run->kernels->tile.rows),
           per_group = (panels + groups - 1) / groups;
    blocks = (m + rows - 1) / rows;
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(blocks * groups); task++) {
        size_t row = (size_t)task / groups * rows, begin = (size_t)task % groups * per_group;
        size_t end = smaller(begin + per_group, panels);
        if (begin < end)
            block(run->kernels, smaller(m - row, rows), a + row * a_row, a_row, a_column, b, begin, end, bias, add,
                  y + row * y_row, y_row, run->scratch + nn_thread() * SCRATCH);
    }
}

void nn_matmul(const nn_run *run, size_t m, const real *a, size_t a_row, size_t a_column, const nn_panels *b,
               const real *bias, real *y, size_t y_row) {
    matmul(run, m, a, a_row, a_column, b, bias, false, y, y_row);
}

void nn_matmul_add(const nn_run *run, size_t m, const real *a, size_t a_row, size_t a_column, const nn_panels *b,
                   real *y, size_t y_row) {
    matmul(run, m, a, a_row, a_column, b, NULL, true, y, y_row);
}

/* The right operands of both products, one after the other in one place, then the product's own. */
size_t nn_linear_backward_scratch(size_t rows, size_t in, size_t out, int threads) {
    return nn_plus(nn_panels_count(in, larger(rows, out)), nn_matmul_scratch(threads));
}

void nn_linear_backward(const nn_run *run, size_t rows, size_t in, size_t out, const real *x, const real *w,
                        const real *dy, real *dx, real *dw, real *db) {
    real *packed = run->scratch;
    nn_run inner = {run->threads, packed + nn_panels_count(in, larger(rows, out)), run->kernels};
    if (dx != NULL) {
        nn_panels_pack(w, in, out, 1, in, packed, run->threads);
        nn_matmul_add(&inner, rows, dy, out, 1, &(nn_panels){.n = in, .k = out, .data = packed}, dx, in);
    }
    if (dw != NULL) {
        nn_panels_pack(x, in, rows, 1, in, packed, run->threads);
        nn_matmul_add(&inner, out, dy, 1, out, &(nn_panels){.n = in, .k = rows, .data = packed}, dw, in);
    }
    if (db != NULL) nn_add_rows(run, rows, out, dy, db);
}

void nn_matmul_naive(size_t chunk_length, size_t m, size_t n, size_t k, const real *a, size_t a_row, size_t a_column,
                     const real *b, size_t stride_n, size_t stride_k, const real *bias, real *y, size_t y_row) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            real element = 0;
            for (size_t begin = 0; begin < k; begin += chunk_length) {
                size_t end = smaller(k, begin + chunk_length);
                real chunk = 0;
                for (size_t p = begin; p < end; p++)
                    chunk += a[i * a_row + p * a_column] * b[p * stride_k + j * stride_n];
                element += chunk;
            }
            y[i * y_row + j] = bias == NULL ? element : element + bias[j];
        }
}
