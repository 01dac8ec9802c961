/* The distance transform against the definition: the least over all zeros. */
#include "test.h"

#include "../vol/vol.h"
#include "random.h"

static double nearest_zero(const uint8_t *mask, vol_shape s, const double spacing[3], const int64_t at[3]) {
    double least = (double)INFINITY;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++)
            for (int64_t x = 0; x < s.n[2]; x++) {
                if (mask[(z * s.n[1] + y) * s.n[2] + x]) continue;
                double dz = (double)(z - at[0]) * spacing[0], dy = (double)(y - at[1]) * spacing[1],
                       dx = (double)(x - at[2]) * spacing[2];
                least = fmin(least, dz * dz + dy * dy + dx * dx);
            }
    return least;
}

/* bound: of the relative difference; 0 demands equality. */
static void check_mask(const uint8_t *mask, vol_shape s, const double spacing[3], double bound) {
    size_t n = vol_count(s);
    double *one = malloc(n * sizeof *one), *many = malloc(n * sizeof *many);
    void *scratch = aligned_alloc(NN_ALIGN, vol_distance_scratch(s, 3));
    bool right = true;
    vol_distance(mask, s, spacing, 1, scratch, one);
    vol_distance(mask, s, spacing, 3, scratch, many);
    CHECK(memcmp(one, many, n * sizeof *one) == 0);
    for (size_t i = 0; i < n; i++) {
        int64_t k = (int64_t)i, at[3] = {k / (s.n[1] * s.n[2]), k / s.n[2] % s.n[1], k % s.n[2]};
        double want = nearest_zero(mask, s, spacing, at);
        right &= one[i] == want || fabs(one[i] - want) <= bound * want;
    }
    CHECK(right);
    free(one), free(many), free(scratch);
}

/* The distances of some voxels are those of the whole transform, however far they are. seed: which voxels ask. */
static void check_between(uint64_t seed, const uint8_t *mask, vol_shape s, const double spacing[3], double bound) {
    size_t n = vol_count(s), asking = 0;
    uint8_t *from = malloc(n);
    double *all = malloc(n * sizeof *all), *one = malloc(n * sizeof *one), *many = malloc(n * sizeof *many);
    size_t bytes = vol_distance_between_scratch(s, 3), whole = vol_distance_scratch(s, 1);
    void *scratch = aligned_alloc(NN_ALIGN, bytes > whole ? bytes : whole);
    uint32_t rare = 1 + random_next(&seed) % 9;
    for (size_t i = 0; i < n; i++) from[i] = (uint8_t)(random_next(&seed) % rare);
    vol_distance(mask, s, spacing, 1, scratch, all);
    size_t count = vol_distance_between(from, mask, s, spacing, 1, scratch, one);
    CHECK(vol_distance_between(from, mask, s, spacing, 3, scratch, many) == count);
    CHECK(memcmp(one, many, count * sizeof *one) == 0);
    bool right = true;
    for (size_t i = 0; i < n; i++) {
        if (from[i]) continue;
        double got = asking < count ? one[asking++] : -1;
        right &= got == all[i] || fabs(got - all[i]) <= bound * all[i];
    }
    CHECK(right && asking == count);
    free(from), free(all), free(one), free(many), free(scratch);
}

/* One voxel in `zeros` is a zero. */
static void check_random(uint64_t seed, vol_shape s, uint32_t zeros) {
    static const double spacings[][3] = {{1, 1, 1}, {3, 1, 2}, {2.5, 0.7, 1.3}, {0.1, 5, 0.33}};
    size_t n = vol_count(s);
    uint8_t *mask = malloc(n);
    for (size_t i = 0; i < n; i++) mask[i] = random_next(&seed) % zeros ? (uint8_t)(1 + i % 255) : 0;
    for (int i = 0; i < 4; i++) {
        double bound = i < 2 ? 0 : 1e-15;
        check_mask(mask, s, spacings[i], bound);
        check_between(seed + (uint64_t)i, mask, s, spacings[i], bound);
    }
    free(mask);
}

/* Large enough for several threads: a lone zero, whose distances are known. */
static void check_large(void) {
    const vol_shape s = {{37, 41, 53}};
    const double spacing[3] = {2, 1, 3};
    size_t n = vol_count(s);
    uint8_t *mask = malloc(n);
    double *out = malloc(n * sizeof *out), *again = malloc(n * sizeof *again);
    void *scratch = aligned_alloc(NN_ALIGN, vol_distance_scratch(s, 5));
    memset(mask, 1, n);
    mask[(20 * 41 + 7) * 53 + 50] = 0;
    vol_distance(mask, s, spacing, 1, scratch, out);
    vol_distance(mask, s, spacing, 5, scratch, again);
    CHECK(memcmp(out, again, n * sizeof *out) == 0);
    bool right = true;
    for (int64_t z = 0, i = 0; z < 37; z++)
        for (int64_t y = 0; y < 41; y++)
            for (int64_t x = 0; x < 53; x++, i++)
                right &= out[i] == (double)(4 * (z - 20) * (z - 20) + (y - 7) * (y - 7) + 9 * (x - 50) * (x - 50));
    CHECK(right);
    check_between(1, mask, s, spacing, 0); /* far away, so that planes are transformed */
    memset(mask, 1, n);
    for (size_t i = 0; i < n; i += 9) mask[i] = 0;
    check_between(2, mask, s, spacing, 0); /* near */
    free(mask), free(out), free(again), free(scratch);
}

int main(void) {
    static const vol_shape shapes[] = {{{1, 1, 1}}, {{1, 1, 9}},  {{1, 7, 1}},   {{6, 1, 1}},
                                       {{1, 8, 9}}, {{4, 1, 17}}, {{5, 16, 11}}, {{9, 7, 13}}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (uint32_t zeros = 1; zeros < 300; zeros = zeros * 3 + 1) check_random(7 * i + zeros, shapes[i], zeros);
    check_large();
    /* no zero at all; and a size that no machine has */
    uint8_t full[24];
    memset(full, 1, sizeof full);
    check_mask(full, (vol_shape){{2, 3, 4}}, (double[]){1, 2, 3}, 0);
    check_between(3, full, (vol_shape){{2, 3, 4}}, (double[]){1, 2, 3}, 0);
    CHECK(vol_distance_scratch((vol_shape){{1, INT64_MAX, 1}}, 1) == SIZE_MAX);
    CHECK(vol_distance_between_scratch((vol_shape){{1, INT64_MAX, 1}}, 1) == SIZE_MAX);
    CHECK(vol_distance_between_scratch((vol_shape){{INT32_MAX, 1, 1}}, 1) == SIZE_MAX);
    return test_summary();
}
