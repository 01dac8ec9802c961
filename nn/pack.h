/* Packing of left operands, shared by gemm.c and attention.c. */
#ifndef SEGFM_NN_PACK_H
#define SEGFM_NN_PACK_H

#include "nn.h"

/* n rounded up to a multiple of `unit`. */
static inline size_t nn_padded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/* `rows` rows of A (element (i,k) at a[i*row + k*column]) → panels of mr rows, k by k; zeros below the last row. */
static inline void nn_pack_rows(size_t mr, const real *a, size_t row, size_t column, size_t rows, size_t kc,
                                real *packed) {
    enum { STRIP = 16 };
    for (size_t i = 0; i < rows; i += mr) {
        size_t n = rows - i < mr ? rows - i : mr;
        real *to = packed + i * kc;
        if (row == 1 && n == mr) { /* a column's rows lie together */
            for (size_t k = 0; k < kc; k++) memcpy(to + k * mr, a + i + k * column, mr * sizeof *to);
            continue;
        }
        for (size_t begin = 0; begin < kc; begin += STRIP) { /* what is written stays in the first-level cache */
            size_t end = kc - begin < STRIP ? kc : begin + STRIP;
            for (size_t r = 0; r < mr; r++) {
                const real *from = a + (i + r) * row;
                for (size_t k = begin; k < end; k++) to[k * mr + r] = r < n ? from[k * column] : 0;
            }
        }
    }
}

#endif
