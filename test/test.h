/* The test harness: counts checks, prints failures with file and line, ends with one summary line that the Makefile
   adds up. A comparison checks shapes first, then finiteness, then that the reference is not all zero, then
   !(|a−b| <= atol + rtol·|b|), so that a NaN fails. */
#ifndef SEGFM_TEST_H
#define SEGFM_TEST_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;

#define CHECK(condition) test_check((condition), #condition, __FILE__, __LINE__)

static inline bool test_check(bool ok, const char *what, const char *file, int line) {
    if (ok) test_passed++;
    else {
        test_failed++;
        printf("%s:%d: failed: %s\n", file, line, what);
    }
    return ok;
}

/* Compares n numbers with a reference; prints max-abs and relative L2 when it fails. */
#define CHECK_CLOSE(name, got, want, n, atol, rtol)                                                                    \
    do {                                                                                                               \
        double max_abs_ = 0, sum_d_ = 0, sum_w_ = 0;                                                                   \
        bool ok_ = true;                                                                                               \
        for (size_t i_ = 0; i_ < (size_t)(n); i_++) {                                                                  \
            double g_ = (double)(got)[i_], w_ = (double)(want)[i_], d_ = fabs(g_ - w_);                                \
            if (!(d_ <= (atol) + (rtol)*fabs(w_)) || !isfinite(w_)) ok_ = false;                                       \
            if (!(d_ <= max_abs_)) max_abs_ = d_;                                                                      \
            sum_d_ += d_ * d_, sum_w_ += w_ * w_;                                                                      \
        }                                                                                                              \
        if (sum_w_ == 0) ok_ = false; /* an all-zero reference proves nothing */                                       \
        if (!test_check(ok_, name, __FILE__, __LINE__))                                                                \
            printf("    max abs %.3g, relative L2 %.3g\n", max_abs_, sqrt(sum_d_ / (sum_w_ > 0 ? sum_w_ : 1)));        \
    } while (0)

/* A check that could not be made, and why. Counted and printed: CI allows none. */
static inline void test_skip(const char *what, const char *why) {
    test_skipped++;
    printf("skipped: %s: %s\n", what, why);
}

/* The last thing main does. */
static inline int test_summary(void) {
    printf("%d passed, %d failed, %d skipped\n", test_passed, test_failed, test_skipped);
    return test_failed != 0;
}

#endif
