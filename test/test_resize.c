/* Resizing and crops, and the way into a window and back. Volumes hold their own indices, so that every voxel says where it came from. */
#include "test.h"

#include "../nn/nn.h"
#include "../vol/vol.h"
#include "random.h"

static void fill(real *v, size_t n) {
    for (size_t i = 0; i < n; i++) v[i] = (real)i;
}

static void test_sources(void) {
    /* exact arithmetic gives 55·64/110 = 32; float32 gives a little less, and upstream's models saw that */
    CHECK(vol_nearest_source(55, 64, 110) == 31);
    CHECK(vol_nearest_source(54, 64, 110) == 31 && vol_nearest_source(56, 64, 110) == 32);
    /* the product is rounded to float32 too: 25·(2/50) is a little less than 1 before that */
    CHECK(vol_nearest_source(25, 2, 50) == 1 && vol_nearest_source(49, 2, 98) == 1);
    int bad = 0;
    for (int64_t n = 1; n <= 70; n++)
        for (int64_t m = 1; m <= 70; m++) {
            int64_t before = 0;
            bad += vol_nearest_source(0, n, m) != 0;
            for (int64_t i = 0; i < m; i++) {
                int64_t source = vol_nearest_source(i, n, m), exact = i * n / m;
                bad += source < before || source >= n;
                /* off the exact rule by at most one voxel, and only where the exact position is a whole number */
                bad += source != exact && !(source == exact - 1 && i * n % m == 0);
                bad += n % m == 0 && source != i * (n / m);
                before = source;
            }
        }
    CHECK(bad == 0);
    /* powers of two and equal sizes are exact */
    for (int64_t i = 0; i < 300; i++) bad += vol_nearest_source(i, 300, 300) != i;
    for (int64_t i = 0; i < 512; i++) bad += vol_nearest_source(i, 256, 512) != i / 2;
    CHECK(bad == 0);
}

static void test_resize(void) {
    static const vol_shape shapes[][2] = {
        {{{3, 4, 5}}, {{3, 4, 5}}}, {{{3, 4, 5}}, {{6, 2, 9}}},    {{{1, 1, 1}}, {{2, 3, 4}}},
        {{{7, 1, 6}}, {{1, 5, 1}}}, {{{2, 64, 9}}, {{3, 110, 7}}}, {{{11, 13, 64}}, {{4, 9, 110}}},
    };
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        vol_shape s = shapes[k][0], o = shapes[k][1];
        size_t m = vol_count(o);
        real *in = malloc(vol_count(s) * sizeof *in), *out = malloc(m * sizeof *out), *again = malloc(m * sizeof *out);
        fill(in, vol_count(s));
        vol_resize_nearest(in, s, out, o, vol_box_whole(o), 1);
        vol_resize_nearest(in, s, again, o, vol_box_whole(o), 3);
        int bad = 0;
        for (int64_t z = 0, i = 0; z < o.n[0]; z++)
            for (int64_t y = 0; y < o.n[1]; y++)
                for (int64_t x = 0; x < o.n[2]; x++, i++) {
                    int64_t from[3] = {vol_nearest_source(z, s.n[0], o.n[0]), vol_nearest_source(y, s.n[1], o.n[1]),
                                       vol_nearest_source(x, s.n[2], o.n[2])};
                    bad += out[i] != (real)((from[0] * s.n[1] + from[1]) * s.n[2] + from[2]);
                }
        CHECK(bad == 0);
        CHECK(memcmp(out, again, m * sizeof *out) == 0);
        free(in), free(out), free(again);
    }
}

/* vol_resize_box must say what resizing a binary cube and looking for its voxels says. */
static bool same_as_cube(vol_box b, vol_shape s, vol_shape o) {
    real in[5 * 4 * 7] = {0}, out[9 * 9 * 9];
    uint8_t mask[9 * 9 * 9];
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) in[(z * s.n[1] + y) * s.n[2] + x] = 1;
    vol_resize_nearest(in, s, out, o, vol_box_whole(o), 1);
    for (size_t i = 0; i < vol_count(o); i++) mask[i] = out[i] > 0;
    vol_box want = vol_mask_bounds(mask, o), got = vol_resize_box(b, s, o);
    return memcmp(&want, &got, sizeof got) == 0;
}

static void test_resize_box(void) {
    static const vol_shape targets[] = {{{5, 4, 7}}, {{9, 8, 9}}, {{2, 3, 4}}, {{1, 9, 2}}};
    vol_shape s = {{5, 4, 7}};
    int bad = 0;
    for (size_t t = 0; t < sizeof targets / sizeof targets[0]; t++)
        for (int64_t z = 0; z < 5; z++)
            for (int64_t y = 0; y < 4; y++)
                for (int64_t x = 0; x < 7; x++)
                    for (int64_t size = 1; size <= 5; size++) {
                        vol_box b = {{z, y, x}, {z + size % 3, y + size / 2, x + size - 1}};
                        if (b.hi[0] < 5 && b.hi[1] < 4 && b.hi[2] < 7) bad += !same_as_cube(b, s, targets[t]);
                    }
    CHECK(bad == 0);

    /* 15…45 of 60 voxels becomes 16…49 of 64 */
    vol_box b = vol_resize_box((vol_box){{15, 0, 0}, {45, 0, 0}}, (vol_shape){{60, 1, 1}}, (vol_shape){{64, 1, 2}});
    CHECK(b.lo[0] == 16 && b.hi[0] == 49 && b.lo[1] == 0 && b.hi[1] == 0 && b.lo[2] == 0 && b.hi[2] == 1);
    /* halving takes voxels 0, 2, 4…: a box of voxel 3 alone vanishes, and with it the whole box */
    b = vol_resize_box((vol_box){{3, 0, 0}, {3, 5, 7}}, (vol_shape){{8, 6, 8}}, (vol_shape){{4, 6, 8}});
    CHECK(b.lo[0] == -1 && b.lo[2] == -1 && b.hi[1] == -1 && vol_box_is_empty(b));
    CHECK(vol_box_is_empty(vol_resize_box(vol_box_none(), s, targets[0])));
}

static void test_crop(void) {
    vol_shape s = {{3, 4, 5}};
    real in[60], out[60];
    fill(in, 60);
    vol_crop(in, s, (vol_box){{1, 2, 1}, {2, 3, 4}}, out);
    int bad = 0;
    for (int i = 0; i < 16; i++) bad += out[i] != (real)((1 + i / 8) * 20 + (2 + i / 4 % 2) * 5 + 1 + i % 4);
    CHECK(bad == 0);
    vol_crop(in, s, (vol_box){{0, 0, 0}, {2, 3, 4}}, out);
    CHECK(memcmp(in, out, sizeof in) == 0);
    vol_crop(in, s, (vol_box){{2, 3, 4}, {2, 3, 4}}, out);
    CHECK(out[0] == 59 && out[1] == 1);
}

/* ---- a part of a volume in a window, and back ------------------------------------------------------------------- */

typedef struct zoomed {
    vol_shape s, window;
    vol_box view;
} zoomed;

static const zoomed zooms[] = {
    {{{9, 14, 20}}, {{4, 8, 6}}, {{2, 3, 1}, {7, 12, 18}}},  /* shrunk */
    {{{5, 14, 20}}, {{8, 16, 24}}, {{0, 3, 9}, {4, 9, 13}}}, /* enlarged */
    {{{6, 7, 110}}, {{3, 9, 64}}, {{0, 0, 0}, {5, 6, 109}}}, /* all of it */
    {{{6, 7, 8}}, {{3, 4, 5}}, {{5, 6, 7}, {5, 6, 7}}},      /* a voxel */
    {{{6, 7, 8}}, {{1, 1, 1}}, {{1, 2, 3}, {4, 4, 4}}},      /* into a voxel */
    {{{6, 7, 8}}, {{4, 3, 2}}, {{1, 2, 3}, {4, 4, 4}}},      /* as it is */
};
enum { ZOOMS = sizeof zooms / sizeof zooms[0] };

static void test_zoom(void) {
    for (size_t k = 0; k < ZOOMS; k++) {
        vol_shape s = zooms[k].s, o = vol_box_shape(zooms[k].view), window = zooms[k].window;
        size_t bytes = vol_count(window) * sizeof(real);
        real *in = malloc(vol_count(s) * sizeof *in), *part = malloc(vol_count(o) * sizeof *part);
        real *want = malloc(bytes), *got = malloc(bytes);
        fill(in, vol_count(s));
        vol_crop(in, s, zooms[k].view, part);
        vol_resize_nearest(part, o, want, window, vol_box_whole(window), 1);
        for (int threads = 1; threads <= 3; threads += 2) {
            memset(got, 0xFF, bytes);
            vol_zoom(in, s, zooms[k].view, got, window, threads);
            CHECK(memcmp(got, want, bytes) == 0);
        }
        free(in), free(part), free(want), free(got);
    }
}

static bool in_box(vol_box b, int64_t z, int64_t y, int64_t x) {
    return !vol_box_is_empty(vol_box_intersect(b, (vol_box){{z, y, x}, {z, y, x}}));
}

/* The view as PyTorch's rule has it; outside of the view, and of a part of it, nothing is written; parts and threads change
   no bit. */
static void test_unzoom(void) {
    const real untouched = 777;
    const double tolerance = sizeof(real) == sizeof(float) ? 1e-6 : 1e-13;
    for (size_t k = 0; k < ZOOMS; k++) {
        vol_shape s = zooms[k].s, o = vol_box_shape(zooms[k].view), window = zooms[k].window;
        vol_box view = zooms[k].view, half = view;
        size_t n = vol_count(s), in[3], out[3], wrong = 0;
        for (int a = 0; a < 3; a++) in[a] = (size_t)window.n[a], out[a] = (size_t)o.n[a];
        real *values = random_reals(k, vol_count(window), -1, 1), *want = malloc(vol_count(o) * sizeof *want);
        real *got = malloc(n * sizeof *got), *again = malloc(n * sizeof *again),
             *part = malloc(vol_count(o) * sizeof *part);
        real *scratch = aligned_reals(nn_trilinear_scratch(in, out, 1));
        nn_trilinear_forward(&(nn_run){1, scratch, nn_kernels_best()}, in, values, out, want);
        for (size_t i = 0; i < n; i++) got[i] = again[i] = untouched;
        vol_unzoom(values, window, view, view, s, 1, got);
        vol_crop(got, s, view, part);
        CHECK_CLOSE("as nn_trilinear_forward", part, want, vol_count(o), tolerance, 0);
        half.hi[2] = (view.lo[2] + view.hi[2]) / 2;
        vol_unzoom(values, window, view, half, s, 3, again);
        for (int64_t z = 0, i = 0; z < s.n[0]; z++)
            for (int64_t y = 0; y < s.n[1]; y++)
                for (int64_t x = 0; x < s.n[2]; x++, i++) {
                    wrong += !in_box(view, z, y, x) && got[i] != untouched;
                    wrong += again[i] != (in_box(half, z, y, x) ? got[i] : untouched);
                }
        CHECK(wrong == 0);
        half.lo[2] = half.hi[2] + 1, half.hi[2] = view.hi[2];
        vol_unzoom(values, window, view, half, s, 3, again);
        CHECK(memcmp(got, again, n * sizeof *got) == 0);
        vol_unzoom(values, window, view, vol_box_none(), s, 1, again);
        CHECK(memcmp(got, again, n * sizeof *got) == 0);
        if (memcmp(in, out, sizeof in) == 0) CHECK(memcmp(part, values, vol_count(o) * sizeof *part) == 0);
        free(values), free(want), free(got), free(again), free(part), free(scratch);
    }
}

/* Twice as large: a voxel is three quarters of the nearest value and one of the next, at the ends all of it. Of multiples
   of 64 that is exact along three axes. A third as large: the middle one of three. */
static void test_unzoom_exactly(void) {
    const vol_shape window = {{3, 4, 5}}, s = {{7, 10, 13}};
    const vol_box view = {{1, 2, 3}, {6, 9, 12}};
    real *values = random_wholes(3, 60, -9, 9), got[7 * 10 * 13], small[4 * 2 * 3];
    size_t wrong = 0;
    for (size_t i = 0; i < 60; i++) values[i] *= 64;
    vol_unzoom(values, window, view, view, s, 2, got);
    for (int64_t z = 0; z < 6; z++)
        for (int64_t y = 0; y < 8; y++)
            for (int64_t x = 0; x < 10; x++) {
                const int64_t at[3] = {z, y, x};
                double want = 0;
                for (int corner = 0; corner < 8; corner++) {
                    int64_t index = 0;
                    double share = 1;
                    for (int k = 0; k < 3; k++) {
                        bool next = corner >> k & 1;
                        int64_t from = at[k] / 2 + (!next ? 0 : at[k] % 2 == 0 ? -1 : 1);
                        if (from < 0) from = 0;
                        if (from >= window.n[k]) from = window.n[k] - 1;
                        index = index * window.n[k] + from;
                        share *= next ? 0.25 : 0.75;
                    }
                    want += share * (double)values[index];
                }
                wrong += (double)got[((z + 1) * 10 + y + 2) * 13 + x + 3] != want;
            }
    CHECK(wrong == 0);
    const vol_shape large = {{3, 6, 9}}, third = {{1, 2, 3}};
    real *more = random_wholes(4, 162, -9, 9);
    vol_unzoom(more, large, vol_box_whole(third), vol_box_whole(third), third, 1, small);
    for (int64_t y = 0; y < 2; y++)
        for (int64_t x = 0; x < 3; x++) wrong += small[y * 3 + x] != more[(1 * 6 + 3 * y + 1) * 9 + 3 * x + 1];
    CHECK(wrong == 0);
    free(values), free(more);
}

int main(void) {
    test_sources();
    test_resize();
    test_resize_box();
    test_crop();
    test_zoom();
    test_unzoom();
    test_unzoom_exactly();
    return test_summary();
}
