/* Packing of left operands, shared by gemm.c and attention.c. */
#ifndef SEGFM_NN_PACK_H
#define SEGFM_NN_PACK_H

#include "nn.h"

/* n rounded up to a multiple of `unit`. */
static inline size_t nn_padded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* The tile for a left operand of so many rows. */
static inline nn_tile nn_tile_for(const nn_kernels *kernels, size_t rows) {
    return rows <= kernels->low_tile.rows ? kernels->low_tile : kernels->tile;
}

/* `rows` rows of A (element (i,k) at a[i*row + k*column]; row or column is 1) → panels of mr rows, k by k. */
static inline void nn_pack_rows(const nn_kernels *kernels, size_t mr, const real *a, size_t row, size_t column,
                                size_t rows, size_t kc, real *packed) {
    if (column == 1) {
        for (size_t i = 0; i < rows; i += mr)
            kernels->transpose(mr, a + i * row, row, rows - i < mr ? rows - i : mr, kc, packed + i * kc);
        return;
    }
    for (size_t k = 0; k < kc; k++) { /* a column's rows lie together: it is read whole */
        const real *from = a + k * column;
        for (size_t i = 0; i < rows; i += mr) {
            size_t n = rows - i < mr ? rows - i : mr;
            real *to = packed + i * kc + k * mr;
            if (n == NN_LANES) memcpy(to, from + i, NN_LANES * sizeof *to); /* a length that the compiler knows */
            else
                for (size_t r = 0; r < mr; r++) to[r] = r < n ? from[i + r] : 0;
        }
    }
}

#endif
