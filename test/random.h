/* Test inputs: a reproducible generator and arrays of it. */
#ifndef SEGFM_TEST_RANDOM_H
#define SEGFM_TEST_RANDOM_H

#include <stdlib.h>

#include "../base/base.h"

static inline uint32_t random_next(uint64_t *state) {
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(*state >> 33);
}

/* n values in [low, high). */
static inline real *random_reals(uint64_t seed, size_t n, double low, double high) {
    uint64_t state = seed * 2862933555777941757U + 3037000493U;
    real *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (real)(low + (high - low) * random_next(&state) / 2147483648.0);
    return x;
}

/* n whole numbers in [low, high]: sums of their products are exact, so that equality can be demanded. */
static inline real *random_wholes(uint64_t seed, size_t n, int low, int high) {
    uint64_t state = seed * 2862933555777941757U + 3037000493U;
    real *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (real)(low + (int)(random_next(&state) % (uint32_t)(high - low + 1)));
    return x;
}

/* 64-byte aligned room for n reals. */
static inline real *aligned_reals(size_t n) { return aligned_alloc(64, (n * sizeof(real) + 64) / 64 * 64); }

#endif
