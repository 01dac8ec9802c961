/* How far a click reaches: which voxels around it are likely to be as wrong as the one it hit. */
#include <math.h>
#include <string.h>

#include "vol.h"

/* Where the frame has no voxel that is labelled as the click is. */
static const double nowhere = 20;
/* The logit of the click's own voxel, at least. */
static const double sure = 4;

static void lay_out(vol_shape s, int threads, nn_arena *arena, uint8_t **other, double **away, void **scratch) {
    *other = nn_arena_take(arena, vol_count(s), sizeof **other);
    *away = nn_arena_take(arena, vol_count(s), sizeof **away);
    *scratch = nn_arena_take(arena, vol_distance_scratch(s, threads), 1);
}

size_t vol_spread_scratch(vol_shape s, int threads) {
    nn_arena arena = {0};
    uint8_t *other;
    double *away;
    void *scratch;
    lay_out(s, threads, &arena, &other, &away, &scratch);
    return arena.failed ? SIZE_MAX : arena.used;
}

/* Mean over the voxel and its neighbours. */
static double mean_around(const real *image, vol_shape s, int64_t z, int64_t y, int64_t x) {
    int64_t at[3] = {z, y, x}, lo[3], hi[3];
    double sum = 0, count = 0;
    for (int k = 0; k < 3; k++) lo[k] = at[k] > 0 ? at[k] - 1 : 0, hi[k] = at[k] + 1 < s.n[k] ? at[k] + 1 : at[k];
    for (int64_t i = lo[0]; i <= hi[0]; i++)
        for (int64_t j = lo[1]; j <= hi[1]; j++)
            for (int64_t k = lo[2]; k <= hi[2]; k++, count++) sum += (double)image[(i * s.n[1] + j) * s.n[2] + k];
    return sum / count;
}

size_t vol_spread(const real *image, const real *logits, vol_shape s, const vol_point_click *click, int threads,
                  void *scratch, int64_t *voxel, real *value) {
    static const double unit[3] = {1, 1, 1};
    size_t n = vol_count(s), count = 0;
    nn_arena arena = {.base = scratch, .capacity = vol_spread_scratch(s, threads)};
    uint8_t *other;
    double *away;
    void *rest;
    const int64_t *c = click->at;
    size_t centre = (size_t)((c[0] * s.n[1] + c[1]) * s.n[2] + c[2]);
    lay_out(s, threads, &arena, &other, &away, &rest);
    for (size_t i = 0; i < n; i++) other[i] = nn_sigmoid_above_half(logits[i]) != (click->label == 1) || i == centre;
    vol_distance(other, s, unit, threads, rest, away);
    double depth = isfinite(away[centre]) ? sqrt(away[centre]) : nowhere;
    double level = mean_around(image, s, c[0], c[1], c[2]), far = 3.5 * depth + 3, sign = click->label == 1 ? 1 : -1;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++) {
                size_t i = (size_t)((z * s.n[1] + y) * s.n[2] + x);
                double d2 = (double)((z - c[0]) * (z - c[0]) + (y - c[1]) * (y - c[1]) + (x - c[2]) * (x - c[2]));
                if (!other[i] || d2 > far * far) continue;
                double d = sqrt(d2), e = isfinite(away[i]) ? sqrt(away[i]) : nowhere;
                double odds = 3.2 + 0.3 * depth - d * (0.6 / depth + 0.15) - e * (0.45 / depth + 0.3) -
                              1.2 * fabs(mean_around(image, s, z, y, x) - level);
                if (i == centre && odds < sure) odds = sure;
                if (!(odds > 0)) continue;
                voxel[count] = (int64_t)i;
                value[count++] = (real)(sign * (odds < 8 ? odds : 8));
            }
    nn_arena_leave(scratch, arena.used);
    return count;
}
