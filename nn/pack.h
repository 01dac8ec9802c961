/* Packing of left operands, shared by gemm.c and attention.c. */
#ifndef SEGFM_NN_PACK_H
#define SEGFM_NN_PACK_H

#include "nn.h"

/* n rounded up to a multiple of `unit`. */
static inline size_t nn_padded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* n ≤ NN_MAX_ROWS rows of `count` reals, `row` apart → to[k*mr + r], zeros from row n on. Each stretch of the rows is copied
   as it lies first: so many independent lines are fetched at once, one element after the other would wait for each. */
static inline void nn_transpose(size_t mr, const real *from, size_t row, size_t n, size_t count, real *to) {
    enum { STRETCH = 64 };
    real lines[NN_MAX_ROWS][STRETCH];
    for (size_t begin = 0; begin < count; begin += STRETCH) {
        size_t length = count - begin < STRETCH ? count - begin : STRETCH;
        for (size_t r = 0; r < n; r++) memcpy(lines[r], from + r * row + begin, length * sizeof *to);
        for (size_t k = 0; k < length; k++)
            for (size_t r = 0; r < mr; r++) to[(begin + k) * mr + r] = r < n ? lines[r][k] : 0;
    }
}

/* `rows` rows of A (element (i,k) at a[i*row + k*column]; row or column is 1) → panels of mr rows, k by k; zeros below the
   last row. */
static inline void nn_pack_rows(size_t mr, const real *a, size_t row, size_t column, size_t rows, size_t kc,
                                real *packed) {
    if (column == 1) {
        for (size_t i = 0; i < rows; i += mr)
            nn_transpose(mr, a + i * row, row, rows - i < mr ? rows - i : mr, kc, packed + i * kc);
        return;
    }
    for (size_t k = 0; k < kc; k++) { /* a column's rows lie together: it is read whole */
        const real *from = a + k * column;
        for (size_t i = 0; i < rows; i += mr) {
            size_t n = rows - i < mr ? rows - i : mr;
            real *to = packed + i * kc + k * mr;
            if (n == mr) memcpy(to, from + i, mr * sizeof *to);
            else
                for (size_t r = 0; r < mr; r++) to[r] = r < n ? from[i + r] : 0;
        }
    }
}

#endif
