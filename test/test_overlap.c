/* Dice of label maps, by hand; the expected one against its definition, level by level. */
#include "../nn/nn.h"
#include "../vol/vol.h"
#include "random.h"
#include "test.h"

static double expected_above(const real *logits, size_t n, double level) {
    double all = 0, inside = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        double p = 1 / (1 + exp(-0.6 * (double)logits[i]));
        all += p;
        if ((double)logits[i] > level) inside += p, count++;
    }
    return count > 0 ? 2 * inside / (count + all) : 0;
}

/* No level is better than the one that is found, a higher one is not as good. */
static void check_level(const real *logits, size_t n) {
    real found;
    double got = vol_expected_dice(logits, n, &found), level = (double)found;
    CHECK(level <= 0 && level >= -4 && floor(16 * level) == 16 * level);
    CHECK(fabs(got - expected_above(logits, n, level)) <= 1e-6);
    for (int i = 0; i <= 64; i++)
        CHECK(expected_above(logits, n, -i / 16.0) <= got + (-i / 16.0 > level ? -1e-9 : 1e-6));
}

static void test_expected(void) {
    enum { N = 1000 };
    real *logits = NULL, level = 1;
    for (int shift = -6; shift <= 3; shift++) {
        free(logits);
        logits = random_reals((uint64_t)(7 + shift), N, shift - 3, shift + 3);
        check_level(logits, N);
    }
    for (size_t i = 0; i < N; i++) logits[i] = (real)(i < 100 ? 0.5 : -9); /* nothing between */
    CHECK(vol_expected_dice(logits, N, &level) > 0.5 && level == 0);
    logits[100] = 0, logits[101] = REAL_C(-0.0625); /* on a level is not above it */
    check_level(logits, N);
    CHECK(vol_expected_dice(logits + 100, 2, &level) > 0.6 && level == REAL_C(-0.125));
    CHECK(vol_expected_dice(logits + 100, 1, &level) > 0.6 && level == REAL_C(-0.0625));
    logits[0] = -4, logits[1] = (real)-3.96875;
    CHECK(vol_expected_dice(logits, 1, &level) == 0 && level == 0);
    CHECK(vol_expected_dice(logits + 1, 1, &level) > 0 && level == -4);
    CHECK(vol_expected_dice(logits, 0, &level) == 0 && level == 0);
    free(logits);
}

int main(void) {
    test_expected();
    static const uint16_t truth[8] = {0, 1, 1, 1, 2, 2, 40000, 0}, predicted[8] = {0, 1, 0, 1, 2, 3, 40000, 1};
    CHECK(vol_dice(truth, predicted, 8, 1) == 2 * 2.0 / (3 + 3));
    CHECK(vol_dice(truth, predicted, 8, 2) == 2 * 1.0 / (2 + 1));
    CHECK(vol_dice(truth, predicted, 8, 0) == 2 * 1.0 / (2 + 2));
    CHECK(vol_dice(truth, predicted, 8, 40000) == 1);
    CHECK(vol_dice(truth, predicted, 8, 3) == 0);
    CHECK(vol_dice(predicted, truth, 8, 3) == 0);
    CHECK(isnan(vol_dice(truth, predicted, 8, 7)));
    CHECK(isnan(vol_dice(truth, predicted, 0, 1)));
    CHECK(vol_dice(truth, truth, 8, 2) == 1);
    return test_summary();
}
