/* Every tolerance of the tests that compare floating-point tensors, with the error measured when it was set (gcc 12,
   x86-64; `make test` prints the current ones with TEST_VERBOSE=1). None may grow without a reason in the commit. */
#ifndef SEGFM_TEST_TOLERANCES_H
#define SEGFM_TEST_TOLERANCES_H

#include "../base/base.h"

typedef struct tolerance {
    double max_abs, relative_l2;
} tolerance;

#ifdef SEGFM_REAL_DOUBLE
/* The references that are stored rounded to float32 carry that rounding: up to 2^-25 relative, so 3e-8·|largest|. */
static const tolerance tolerance_rounded = {3e-7, 4e-8};        /* measured 2.4e-7, 2.6e-8 */
static const tolerance tolerance_exact = {2e-14, 1e-14};        /* measured 3.6e-15, 1.1e-15 */
static const tolerance tolerance_logits = {1e-6, 1e-6};         /* pipeline: PyTorch's image is float32; measured below */
#else
static const tolerance tolerance_rounded = {8e-6, 2e-6};
static const tolerance tolerance_exact = {8e-6, 2e-6};
static const tolerance tolerance_logits = {5e-5, 5e-6};
#endif

#endif
