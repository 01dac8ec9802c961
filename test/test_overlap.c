/* Dice of label maps, by hand. */
#include "test.h"

#include "../vol/vol.h"

int main(void) {
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
