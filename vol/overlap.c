/* Overlap of label maps. */
#include <math.h>

#include "vol.h"

double vol_dice(const uint16_t *truth, const uint16_t *predicted, size_t n, uint16_t label) {
    uint64_t in_truth = 0, in_predicted = 0, in_both = 0;
    for (size_t i = 0; i < n; i++) {
        bool a = truth[i] == label, b = predicted[i] == label;
        in_truth += a;
        in_predicted += b;
        in_both += a & b;
    }
    if (in_truth + in_predicted == 0) return (double)NAN;
    return 2 * (double)in_both / (double)(in_truth + in_predicted);
}
