/* Overlap of label maps, and the overlap that a model's logits let expect. */
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

/* A logit x is taken for a probability of σ(x · this): networks that have learned with a Dice loss are surer than they are right. */
static const real calibrated = REAL_C(0.6);
/* Levels that are tried, from 0 down. */
enum { LEVELS = 64, LEVELS_PER_UNIT = 16 };

double vol_expected_dice(const real *logits, size_t n, real *level) {
    /* [0]: of logits above 0, [i]: of those above level i that are not above the one before */
    double p[LEVELS + 1] = {0}, all = 0, most = 0, inside = 0, above = 0;
    size_t count[LEVELS + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        double probability = (double)nn_sigmoid(calibrated * logits[i]);
        all += probability;
        real below = -LEVELS_PER_UNIT * logits[i];
        if (!(below < LEVELS)) continue;
        size_t bin = below < 0 ? 0 : (size_t)below + 1;
        p[bin] += probability, count[bin]++;
    }
    *level = 0;
    for (int i = 0; i <= LEVELS; i++) {
        inside += p[i], above += (double)count[i];
        double expected = above > 0 ? 2 * inside / (above + all) : 0;
        if (expected > most) most = expected, *level = (real)-i / LEVELS_PER_UNIT;
    }
    return most;
}
