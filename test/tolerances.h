/* Every tolerance of the tests that compare floating-point tensors, with the error measured when it was set (gcc 12,
   x86-64; `make test` prints the current ones with TEST_VERBOSE=1). None may grow without a reason in the commit. */
#ifndef SEGFM_TEST_TOLERANCES_H
#define SEGFM_TEST_TOLERANCES_H

#include "../base/base.h"

typedef struct tolerance {
    double max_abs, relative_l2;
} tolerance;

#ifdef SEGFM_REAL_DOUBLE
/* References stored rounded to float32 carry that rounding: half a unit in the last place, up to 3e-8 relative. */
static const tolerance tolerance_rounded = {4e-7, 4e-8}; /* measured 2.9e-7, 3.3e-8 */
static const tolerance tolerance_exact = {2e-14, 1e-14}; /* measured 3.6e-15, 1.6e-15 */
/* The API gives logits as float32, and they reach 110 here: the rounding alone is 3.8e-6. */
static const tolerance tolerance_logits = {4e-6, 1.5e-7};    /* measured 3.8e-6, 1.1e-7 */
static const tolerance tolerance_corrector = {4e-16, 4e-16}; /* measured 2.2e-16, 1.6e-16 */
#else
static const tolerance tolerance_rounded = {4e-6, 2.4e-6}; /* measured 1.9e-6, 1.2e-6 */
static const tolerance tolerance_exact = {4e-6, 2.4e-6};
static const tolerance tolerance_logits = {8e-5, 1.5e-6};  /* measured 4.1e-5 on logits up to 110, 7.4e-7 */
static const tolerance tolerance_corrector = {6e-7, 4e-7}; /* measured 2.8e-7, 1.8e-7 */
#endif

/* test_network.c: a derivative by central differences against the gradient, double build; relative to the sum of the gradient's
   sizes along the direction, but at least the floor, below which the loss's own rounding shows. */
#define TOL_DIFFERENCE 1e-7
#define TOL_DIFFERENCE_FLOOR 2e-3

#endif
