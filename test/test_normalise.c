/* Foreground statistics against sorting, the normalised image against the formula, the foreground box by hand. */
#include "test.h"

#include "../vol/vol.h"

static uint64_t state = 7;

static uint32_t draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(const float *sorted, size_t n, double q) {
    double position = q / 100 * (double)(n - 1), t = position - floor(position);
    size_t below = (size_t)position, above = below + 1 < n ? below + 1 : below;
    double a = (double)sorted[below], b = (double)sorted[above];
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

/* SPEC 3 word by word: select, sort, average. */
static vol_foreground naive_stats(const float *v, size_t n) {
    vol_foreground f = {0};
    float *above = malloc((n + 1) * sizeof *above);
    double sum = 0, squares = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) sum += (double)v[i];
    f.threshold = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        if ((double)v[i] > f.threshold) above[count++] = v[i];
    f.count = count;
    sum = 0;
    qsort(above, count, sizeof *above, compare);
    for (size_t i = 0; i < count; i++) sum += (double)above[i];
    f.mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) squares += ((double)above[i] - f.mean) * ((double)above[i] - f.mean);
    f.std = sqrt(squares / (double)count);
    f.lower = percentile(above, count, 0.05);
    f.upper = percentile(above, count, 99.95);
    free(above);
    return f;
}

enum { KINDS = 6 };

/* Different difficulties: whole numbers with ties, both signs, few values, a wide range, tiny ones, any finite bits. */
static float voxel(int kind) {
    uint32_t r = draw(), bits = r & 0x7f000000u ? r : 0;
    float v = (float)(r % 2001) - 1000;
    switch (kind) {
    case 0: return (float)(r % 256);
    case 1: return v * 0.37f;
    case 2: return r % 3 ? -0.0f : (float)(r % 2);
    case 3: return v * v * v * 1e3f;
    case 4: return v * 1e-43f;
    default:
        if ((bits & 0x7f800000u) > 0x47800000u) bits &= 0x87ffffffu; /* not so great that the mean is all that counts */
        memcpy(&v, &bits, sizeof v);
        return v;
    }
}

static bool near(double a, double b, double scale) { return fabs(a - b) <= 1e-12 * scale; }

static void test_stats(void) {
    static const size_t sizes[] = {2, 3, 7, 8, 9, 100, 1023, 1024, 1025, 1900, 8200, 30011};
    int bad_exact = 0, bad_sums = 0, bad_threads = 0, checked = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int kind = 0; kind < KINDS; kind++) {
            size_t n = sizes[k];
            float *v = malloc(n * sizeof *v);
            for (size_t i = 0; i < n; i++) v[i] = voxel(kind);
            v[0] = 1e-3f, v[1] = -1e-3f; /* not constant */
            vol_foreground want = naive_stats(v, n), got, again;
            vol_foreground_stats(v, n, 1, &got);
            vol_foreground_stats(v, n, 3, &again);
            double scale = fabs((double)v[0]);
            for (size_t i = 0; i < n; i++) scale = fmax(scale, fabs((double)v[i]));
            bad_exact += got.count != want.count || got.lower != want.lower || got.upper != want.upper;
            bad_sums += !near(got.threshold, want.threshold, scale) || !near(got.mean, want.mean, scale) ||
                        !near(got.std, want.std, scale);
            bad_threads += memcmp(&got, &again, sizeof got) != 0;
            checked++;
            free(v);
        }
    CHECK(checked == 12 * KINDS);
    CHECK(bad_exact == 0);
    CHECK(bad_sums == 0);
    CHECK(bad_threads == 0);
}

static void test_by_hand(void) {
    static const float v[8] = {0, 40, 0, 20, -0.0f, 30, 0, 10};
    vol_foreground f;
    vol_foreground_stats(v, 8, 1, &f);
    CHECK(f.threshold == 12.5 && f.count == 3 && f.mean == 30);
    CHECK(fabs(f.lower - 20.01) < 1e-12 && fabs(f.upper - 39.99) < 1e-12);
    CHECK(fabs(f.std - sqrt(200.0 / 3)) < 1e-12);
    real out[8];
    vol_normalise(v, 8, &f, 1, out);
    static const double want[8] = {0, 1, 0, 0, 0, 0.5, 0, 0};
    for (int i = 0; i < 8; i++) CHECK(want[i] == 0 ? out[i] == 0 : fabs((double)out[i] - want[i]) < 1e-6);
}

/* Nothing is above the mean: it must be the voxels' value exactly, whatever their number. */
static void test_constant(void) {
    static const float values[] = {0, 0.1f, -0.3f, 1e-40f, 3e38f, 1000};
    static const size_t sizes[] = {1, 2, 13, 1025, 10007};
    int bad = 0;
    float *v = malloc(10007 * sizeof *v);
    real *out = malloc(10007 * sizeof *out);
    for (size_t a = 0; a < 6; a++)
        for (size_t b = 0; b < 5; b++) {
            size_t n = sizes[b];
            for (size_t i = 0; i < n; i++) v[i] = values[a], out[i] = -1;
            vol_foreground f;
            vol_foreground_stats(v, n, 2, &f);
            double t = (double)values[a];
            bad += f.count != 0 || f.std != 0 || f.threshold != t || f.lower != t || f.upper != t || f.mean != t;
            vol_normalise(v, n, &f, 2, out);
            for (size_t i = 0; i < n; i++) bad += out[i] != 0;
            bad += !vol_box_is_empty(vol_foreground_box(out, (vol_shape){{1, 1, (int64_t)n}}));
        }
    CHECK(bad == 0);
    vol_foreground f = {1, 1, 1, 1, 1, 1};
    vol_foreground_stats(v, 0, 1, &f);
    CHECK(f.threshold == 0 && f.count == 0 && f.std == 0);
    vol_normalise(v, 0, &f, 1, out);
    free(v), free(out);
}

/* Two values: the only foreground value is both percentiles, so that nothing is left of it but 0. */
static void test_two_values(void) {
    static const float v[5] = {1, 5, 1, 5, 5};
    vol_foreground f;
    real out[5];
    vol_foreground_stats(v, 5, 1, &f);
    CHECK(f.count == 3 && f.lower == 5 && f.upper == 5 && f.mean == 5 && f.std == 0);
    vol_normalise(v, 5, &f, 1, out);
    for (int i = 0; i < 5; i++) CHECK(out[i] == 0);
}

static void test_image(void) {
    enum { N = 20011 };
    float *v = malloc(N * sizeof *v);
    real *out = malloc(N * sizeof *out), *again = malloc(N * sizeof *out);
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < N; i++) v[i] = voxel(kind);
        if (kind == 2) v[6] = 2; /* above an upper bound that equals the lower one */
        vol_foreground f;
        vol_foreground_stats(v, N, 1, &f);
        vol_normalise(v, N, &f, 1, out);
        vol_normalise(v, N, &f, 3, again);
        int bad = memcmp(out, again, N * sizeof *out) != 0;
        double deviation = fmax(f.std, 1e-8), lower = (double)(float)f.lower, upper = (double)(float)f.upper;
        double span = fmax((upper - lower) / deviation, 1e-8);
        for (size_t i = 0; i < N; i++) {
            double clipped = fmin(fmax((double)v[i], lower), upper);
            bad += !(fabs((double)out[i] - (clipped - lower) / deviation / span) <= 1e-6);
            bad += (double)v[i] <= lower && out[i] != 0;
            /* above the bound by more than the mean's rounding swallows */
            bad += upper > lower && (double)v[i] > lower + 1e-12 * f.mean && !(out[i] > 0);
            bad += (double)v[i] >= upper && span > 1e-8 && out[i] != 1;
        }
        CHECK(bad == 0);
    }
    free(v), free(out), free(again);
}

/* The reader refuses NaN and infinity; if one came here all the same, nothing may break. */
static void test_not_finite(void) {
    float v[40];
    real out[40];
    vol_foreground f;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 40; i++) v[i] = (float)i;
        v[3] = round == 1 ? INFINITY : -NAN;
        v[30] = round == 2 ? -INFINITY : NAN;
        vol_foreground_stats(v, 40, 2, &f);
        vol_normalise(v, 40, &f, 2, out);
        CHECK(f.count <= 40);
    }
}

static bool is_box(vol_box b, int64_t z0, int64_t y0, int64_t x0, int64_t z1, int64_t y1, int64_t x1) {
    return b.lo[0] == z0 && b.lo[1] == y0 && b.lo[2] == x0 && b.hi[0] == z1 && b.hi[1] == y1 && b.hi[2] == x1;
}

static void test_foreground_box(void) {
    vol_shape s = {{3, 4, 5}};
    real image[60] = {0};
    CHECK(is_box(vol_foreground_box(image, s), -1, -1, -1, -1, -1, -1));
    image[7] = -1, image[0] = (real)NAN;
    CHECK(is_box(vol_foreground_box(image, s), -1, -1, -1, -1, -1, -1));
    image[5] = 1; /* the −1 of its row does not count */
    CHECK(is_box(vol_foreground_box(image, s), 0, 1, 0, 0, 1, 0));
    image[5] = 0, image[20 + 2 * 5 + 3] = (real)1e-30;
    CHECK(is_box(vol_foreground_box(image, s), 1, 2, 3, 1, 2, 3));
    image[40 + 0 * 5 + 4] = 1;
    CHECK(is_box(vol_foreground_box(image, s), 1, 0, 3, 2, 2, 4));
    image[3 * 5] = 1, image[59] = 1;
    CHECK(is_box(vol_foreground_box(image, s), 0, 0, 0, 2, 3, 4));
    real one = 1;
    CHECK(is_box(vol_foreground_box(&one, (vol_shape){{1, 1, 1}}), 0, 0, 0, 0, 0, 0));
}

int main(void) {
    test_stats();
    test_by_hand();
    test_constant();
    test_two_values();
    test_image();
    test_not_finite();
    test_foreground_box();
    return test_summary();
}
