/* The micro-kernel that gemm.c and attention.c share, and the layout of its operands.

   A tile of the product, MR rows by 16 columns, stays in registers while k runs:

        A panel (packed)            B panel (packed)                 tile t
        k=0  a0 a1 … a(MR-1)        k=0  b0 b1 … b15            t[r][l] += a[k][r] · b[k][l]
        k=1  a0 a1 … a(MR-1)        k=1  b0 b1 … b15
        …    one column of A        …    one row of B,
             after the other             16 columns wide

   Both panels are read front to back, one cache line after the other. The 16 columns are the vector: no sum runs across
   lanes, so the vector's width changes no bit. */
#ifndef SEGFM_NN_KERNEL_H
#define SEGFM_NN_KERNEL_H

#include "nn.h"

/* Rows of a tile: as many as the registers hold. Tests set it to odd sizes. */
#ifndef NN_MR
#if defined(__AVX512F__)
#define NN_MR_FLOAT 16
#elif defined(__AVX2__) || defined(__aarch64__)
#define NN_MR_FLOAT 6
#else
#define NN_MR_FLOAT 2
#endif
#ifdef SEGFM_REAL_DOUBLE
#define NN_MR (NN_MR_FLOAT / 2)
#else
#define NN_MR NN_MR_FLOAT
#endif
#endif

/* Every row loop over the tile must be unrolled: one that is not forces the tile into memory. */
#if defined(__clang__)
#define NN_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define NN_UNROLL _Pragma("GCC unroll 32")
#else
#define NN_UNROLL
#endif

enum { MR = NN_MR };

/* Rows of A padded to whole panels. */
static inline size_t nn_padded_rows(size_t rows) { return (rows + MR - 1) / MR * MR; }

/* c (MR,16), rows c_row apart, (+)= a (kc, MR) · b (kc, 16), in chunks of NN_CHUNK; `first` starts the element. */
static inline void nn_kernel(size_t kc, const real *restrict a, const real *restrict b, real *restrict c, size_t c_row,
                             bool first) {
    for (size_t begin = 0; begin < kc; begin += NN_CHUNK) {
        size_t end = kc - begin < NN_CHUNK ? kc : begin + NN_CHUNK;
        real t[MR][NN_LANES];
        NN_UNROLL
        for (int r = 0; r < MR; r++) {
#pragma omp simd
            for (int l = 0; l < NN_LANES; l++) t[r][l] = 0;
        }
        for (size_t k = begin; k < end; k++) {
            const real *ak = a + k * MR, *bk = b + k * NN_LANES;
            NN_UNROLL
            for (int r = 0; r < MR; r++) {
                real ar = ak[r];
#pragma omp simd
                for (int l = 0; l < NN_LANES; l++) t[r][l] += ar * bk[l];
            }
        }
        NN_UNROLL
        for (int r = 0; r < MR; r++) {
            real *row = c + (size_t)r * c_row;
#pragma omp simd
            for (int l = 0; l < NN_LANES; l++) row[l] = first ? t[r][l] : row[l] + t[r][l];
        }
        first = false;
    }
}

/* Packs `rows` rows of A (element (i,k) at a[i*row + k*column]) into panels of MR, zeros below the last row. */
static inline void nn_pack_rows(const real *a, size_t row, size_t column, size_t rows, size_t kc, real *packed) {
    for (size_t i = 0; i < rows; i += MR) {
        size_t n = rows - i < MR ? rows - i : MR;
        for (size_t r = 0; r < MR; r++) {
            const real *from = a + (i + r) * row;
            real *to = packed + i * kc + r;
            if (r < n)
                for (size_t k = 0; k < kc; k++) to[k * MR] = from[k * column];
            else
                for (size_t k = 0; k < kc; k++) to[k * MR] = 0;
        }
    }
}

#endif
