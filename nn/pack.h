/* Packing of left operands, shared by gemm.c and attention.c. */
#ifndef SEGFM_NN_PACK_H
#define SEGFM_NN_PACK_H

#include "nn.h"

/* n rounded up to a multiple of `unit`. */
static inline size_t nn_padded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* `rows` rows of A (element (i,k) at a[i*row + k*column]) → panels of mr rows, k by k; zeros below the last row. */
static inline void nn_pack_rows(size_t mr, const real *a, size_t row, size_t column, size_t rows, size_t kc,
                                real *packed) {
    for (size_t i = 0; i < rows; i += mr) {
        size_t n = rows - i < mr ? rows - i : mr;
        for (size_t r = 0; r < mr; r++) {
            const real *from = a + (i + r) * row;
            real *to = packed + i * kc + r;
            for (size_t k = 0; k < kc; k++) to[k * mr] = r < n ? from[k * column] : 0;
        }
    }
}

#endif
