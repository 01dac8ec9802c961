/* Foreground normalisation: the statistics of the voxels above the mean, the image in [0, 1] that the network sees, and
   the box of what is not background in it. */
#include <math.h>
#include <string.h>

#include "vol.h"

enum {
    GROUPS = 1024, /* partial sums of a long sum; where they begin depends on the number of voxels alone */
    LANES = 8,     /* running sums inside a group */
    RANKS = 4,     /* order statistics looked for at once: two neighbours for each of two percentiles */
/* Bits of a radix digit: 10 + 11 + 11 make the 32 of a float, in three passes, or 4 × 8 where 64 KiB are too much stack. */
#if defined(SEGFM_NO_MALLOC) || defined(SEGFM_TINY)
    DIGIT = 8,
#else
    DIGIT = 11,
#endif
    PASSES = (32 + DIGIT - 1) / DIGIT,
    BINS = 1 << DIGIT
};

/* ---- sums ---------------------------------------------------------------------------------------------------- */

/* (v − centre), or its square, for a voxel above the threshold; 0 for another. */
static inline double term(float v, double threshold, double centre, bool squared) {
    double d = (double)v - centre;
    return (double)v > threshold ? (squared ? d * d : d) : 0.0;
}

static double group_sum(const float *voxels, size_t n, double threshold, double centre, bool squared) {
    double lane[LANES] = {0}, sum = 0;
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (size_t j = 0; j < LANES; j++) lane[j] += term(voxels[i + j], threshold, centre, squared);
    for (size_t i = whole; i < n; i++) lane[i - whole] += term(voxels[i], threshold, centre, squared);
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

/* Sum of term over n voxels, in an order that depends on n alone. */
static double sum_above(const float *voxels, size_t n, double threshold, double centre, bool squared, int threads) {
    double partial[GROUPS], sum = 0;
    size_t length = n / GROUPS + 1;
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(threads)
    for (size_t g = 0; g < GROUPS; g++) {
        size_t start = g * length < n ? g * length : n;
        size_t end = n - start < length ? n : start + length;
        partial[g] = group_sum(voxels + start, end - start, threshold, centre, squared);
    }
    for (size_t g = 0; g < GROUPS; g++) sum += partial[g];
    return sum;
}

static uint64_t count_above(const float *voxels, size_t n, double threshold, int threads) {
    uint64_t count = 0;
    (void)threads;
    /* whole numbers: any order of adding gives the same */
#pragma omp parallel for num_threads(threads) reduction(+ : count)
    for (size_t i = 0; i < n; i++) count += (double)voxels[i] > threshold;
    return count;
}

/* ---- order statistics ---------------------------------------------------------------------------------------- */

/* Whole numbers in the order of the floats: negative floats grow with falling bits, and lie below the others. */
static inline uint32_t ordered_key(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float key_value(uint32_t key) {
    uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Least and greatest of n voxels. Compared as keys: their order is total (for floats −0 = +0), so that the order of
   comparing does not matter. */
static void find_range(const float *voxels, size_t n, int threads, float *least, float *greatest) {
    uint32_t lo = UINT32_MAX, hi = 0;
    (void)threads;
#pragma omp parallel for num_threads(threads) reduction(min : lo) reduction(max : hi)
    for (size_t i = 0; i < n; i++) {
        uint32_t key = ordered_key(voxels[i]);
        if (key < lo) lo = key;
        if (key > hi) hi = key;
    }
    *least = key_value(lo), *greatest = key_value(hi);
}

/* One pass of the selection. counts[p][d] = voxels above the threshold whose key has digit d at `shift` and the bits
   prefix[p] before it. */
static void count_digits(const float *voxels, size_t n, double threshold, unsigned shift, const uint32_t prefix[RANKS],
                         size_t prefixes, uint64_t counts[RANKS][BINS], int threads) {
    (void)threads;
    memset(counts, 0, RANKS * sizeof counts[0]);
    /* whole numbers again; every thread has its own counts, added up at the end */
#pragma omp parallel for num_threads(threads) reduction(+ : counts[:RANKS][:BINS])
    for (size_t i = 0; i < n; i++) {
        uint32_t key = ordered_key(voxels[i]) >> shift;
        bool above = (double)voxels[i] > threshold; /* added, not branched on: it is as good as random */
        for (size_t p = 0; p < prefixes; p++)
            if (key >> DIGIT == prefix[p]) counts[p][key % BINS] += above;
    }
}

/* value[r] = the voxel of rank[r] (from 0, ascending) among those above the threshold, of which there are more than
   rank[r]. Finds the key digit by digit from the top: the digit is where the running count passes the rank. */
static void select_ranks(const float *voxels, size_t n, double threshold, const uint64_t rank[RANKS], int threads,
                         double value[RANKS]) {
    uint64_t counts[RANKS][BINS], left[RANKS];
    uint32_t found[RANKS] = {0};
    memcpy(left, rank, sizeof left);
    for (int shift = (PASSES - 1) * DIGIT; shift >= 0; shift -= DIGIT) {
        uint32_t distinct[RANKS];
        size_t which[RANKS], prefixes = 0;
        for (size_t r = 0; r < RANKS; r++) {
            size_t p = 0;
            while (p < prefixes && distinct[p] != found[r]) p++;
            if (p == prefixes) distinct[prefixes++] = found[r];
            which[r] = p;
        }
        count_digits(voxels, n, threshold, (unsigned)shift, distinct, prefixes, counts, threads);
        for (size_t r = 0; r < RANKS; r++) {
            const uint64_t *count = counts[which[r]];
            uint32_t digit = 0;
            while (digit < BINS - 1 && left[r] >= count[digit]) left[r] -= count[digit++];
            found[r] = found[r] << DIGIT | digit;
        }
    }
    for (size_t r = 0; r < RANKS; r++) value[r] = (double)key_value(found[r]);
}

/* numpy's interpolation: from the nearer end, so that t = 1 gives b exactly. */
static double interpolate(double a, double b, double t) { return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t); }

static void find_percentiles(const float *voxels, size_t n, int threads, vol_foreground *f) {
    static const double fraction[2] = {0.05 / 100, 99.95 / 100};
    uint64_t rank[RANKS];
    double position[2], value[RANKS];
    for (int q = 0; q < 2; q++) {
        position[q] = fraction[q] * (double)(f->count - 1);
        rank[2 * q] = (uint64_t)position[q];
        rank[2 * q + 1] = rank[2 * q] + (rank[2 * q] + 1 < f->count);
    }
    select_ranks(voxels, n, f->threshold, rank, threads, value);
    f->lower = interpolate(value[0], value[1], position[0] - (double)rank[0]);
    f->upper = interpolate(value[2], value[3], position[1] - (double)rank[2]);
}

void vol_foreground_stats(const float *voxels, size_t n, int threads, vol_foreground *out) {
    *out = (vol_foreground){0};
    if (n == 0) return;
    double mean = sum_above(voxels, n, -HUGE_VAL, 0, false, threads) / (double)n;
    out->threshold = out->lower = out->upper = out->mean = mean;
    out->count = count_above(voxels, n, mean, threads);
    if (out->count == 0) return;
    find_percentiles(voxels, n, threads, out);
    out->mean = sum_above(voxels, n, out->threshold, 0, false, threads) / (double)out->count;
    out->std = sqrt(sum_above(voxels, n, out->threshold, out->mean, true, threads) / (double)out->count);
}

/* ---- the image ----------------------------------------------------------------------------------------------- */

/* A voxel's value before the min-max; it never falls when v grows. */
static inline double standardise(float v, float lower, float upper, double mean, double deviation) {
    float clipped = v < lower ? lower : v > upper ? upper : v;
    return ((double)clipped - mean) / deviation;
}

void vol_normalise(const float *voxels, size_t n, const vol_foreground *stats, int threads, real *out) {
    if (n == 0) return;
    float lower = (float)stats->lower, upper = (float)stats->upper, least, greatest;
    double mean = stats->mean, deviation = stats->std > 1e-8 ? stats->std : 1e-8;
    find_range(voxels, n, threads, &least, &greatest);
    /* The darkest voxel goes through the same arithmetic as the others, so that its like become exactly 0. */
    double darkest = standardise(least, lower, upper, mean, deviation);
    double span = standardise(greatest, lower, upper, mean, deviation) - darkest;
    if (!(span > 1e-8)) span = 1e-8;
#pragma omp parallel for num_threads(threads)
    for (size_t i = 0; i < n; i++)
        out[i] = (real)((standardise(voxels[i], lower, upper, mean, deviation) - darkest) / span);
}

/* First and last value > 0 of row (n); false when there is none. */
static bool row_extent(const real *row, int64_t n, int64_t *first, int64_t *last) {
    int64_t lo = 0, hi = n - 1;
    while (lo < n && !(row[lo] > 0)) lo++;
    if (lo == n) return false;
    while (!(row[hi] > 0)) hi--;
    *first = lo, *last = hi;
    return true;
}

vol_box vol_foreground_box(const real *image, vol_shape s) {
    vol_box bounds = vol_box_none();
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++) {
            int64_t first, last;
            if (row_extent(image + (z * s.n[1] + y) * s.n[2], s.n[2], &first, &last))
                bounds = vol_box_union(bounds, (vol_box){{z, y, first}, {z, y, last}});
        }
    return bounds;
}
