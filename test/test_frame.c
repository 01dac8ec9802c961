/* Windows that follow a box: cells, means, points and boxes in the window, contrast, and the way back. */
#include "test.h"

#include "../nn/nn.h"
#include "../vol/vol.h"
#include "random.h"

static const double rounding = sizeof(real) == sizeof(float) ? 1e-6 : 1e-13;
/* Deviations are told from means of squares, which are large beside them. */
static const double cancelled = sizeof(real) == sizeof(float) ? 1e-5 : 1e-11;

/* ---- cells ------------------------------------------------------------------------------------------------------ */

/* An axis of n voxels and a window cut into the same n · window units: a cell is n of them, a voxel `window`. Counts
   those that cell i and the voxels from … to have in common. */
static int64_t units_of(int64_t i, int64_t n, int64_t window, int64_t from, int64_t to) {
    int64_t count = 0;
    for (int64_t unit = 0; unit < n * window; unit++)
        count += unit / n == i && unit / window >= from && unit / window <= to;
    return count;
}

/* Each cell's shares of voxels add up to all of it, each voxel's shares of cells to all of that: nothing is lost or
   counted twice. */
static void test_cells_partition(void) {
    int bad = 0;
    for (int64_t n = 1; n <= 45; n++)
        for (int64_t window = 1; window <= 45; window++) {
            int64_t of_voxel[45] = {0};
            for (int64_t i = 0; i < window; i++) {
                vol_cell c = vol_cell_of(i, n, window);
                int64_t of_cell = 0;
                bad += c.first < 0 || c.last < c.first || c.last >= n;
                bad += i == 0 && c.first != 0;
                bad += i == window - 1 && c.last != n - 1;
                for (int64_t v = 0; v < n; v++) {
                    int64_t share = vol_cell_share(&c, v, v);
                    bad += (share > 0) != (v >= c.first && v <= c.last);
                    of_cell += share, of_voxel[v] += share;
                }
                bad += of_cell != n || vol_cell_share(&c, 0, n - 1) != n;
            }
            for (int64_t v = 0; v < n; v++) bad += of_voxel[v] != window;
        }
    CHECK(bad == 0);
}

/* Of any voxels, also of some that lie beside the cell, as many units as can be counted. */
static void test_cell_shares(void) {
    static const int64_t sizes[][2] = {{7, 3}, {3, 7}, {5, 5}, {9, 6}, {4, 13}, {11, 1}, {1, 6}};
    int bad = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int64_t i = 0, n = sizes[k][0], window = sizes[k][1]; i < window; i++) {
            vol_cell c = vol_cell_of(i, n, window);
            for (int64_t from = 0; from < n; from++)
                for (int64_t to = from; to < n; to++)
                    bad += vol_cell_share(&c, from, to) != units_of(i, n, window, from, to);
        }
    CHECK(bad == 0);
}

/* ---- into the window -------------------------------------------------------------------------------------------- */

typedef struct zoomed {
    vol_shape s, window;
    vol_box view;
} zoomed;

static const zoomed zooms[] = {
    {{{9, 14, 20}}, {{4, 8, 6}}, {{2, 3, 1}, {7, 12, 18}}},  /* shrunk */
    {{{5, 14, 20}}, {{8, 16, 24}}, {{0, 3, 9}, {4, 9, 13}}}, /* enlarged */
    {{{6, 7, 110}}, {{3, 9, 64}}, {{0, 0, 0}, {5, 6, 109}}}, /* all of it, each axis in another way */
    {{{8, 9, 10}}, {{5, 4, 9}}, {{3, 2, 1}, {5, 8, 9}}},     /* enlarged, shrunk, as it is */
    {{{6, 7, 8}}, {{3, 4, 5}}, {{5, 6, 7}, {5, 6, 7}}},      /* a voxel */
    {{{6, 7, 8}}, {{1, 1, 1}}, {{1, 2, 3}, {4, 4, 4}}},      /* into a voxel */
    {{{6, 7, 8}}, {{4, 3, 2}}, {{1, 2, 3}, {4, 4, 4}}},      /* as it is */
};
enum { ZOOMS = sizeof zooms / sizeof zooms[0] };

/* The sum over the units of a window's voxel of the values that they lie in; *units: how many there are. */
static double sum_of_units(const real *in, const zoomed *z, int64_t i, int64_t j, int64_t k, double *units) {
    vol_shape o = vol_box_shape(z->view);
    const int64_t *n = o.n, *w = z->window.n;
    double sum = 0;
    for (int64_t a = i * n[0]; a < (i + 1) * n[0]; a++)
        for (int64_t b = j * n[1]; b < (j + 1) * n[1]; b++)
            for (int64_t c = k * n[2]; c < (k + 1) * n[2]; c++) {
                int64_t at[3] = {z->view.lo[0] + a / w[0], z->view.lo[1] + b / w[1], z->view.lo[2] + c / w[2]};
                sum += (double)in[(at[0] * z->s.n[1] + at[1]) * z->s.n[2] + at[2]];
            }
    *units = (double)(n[0] * n[1] * n[2]);
    return sum;
}

/* Means over units. Of whole numbers the sums are exact, and so are the means but for their one rounding. */
static void test_zoom_of(const zoomed *z, bool whole, uint64_t seed) {
    size_t n = vol_count(z->window);
    real *in = whole ? random_wholes(seed, vol_count(z->s), -999, 999) : random_reals(seed, vol_count(z->s), -1, 1);
    real *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got), *to = want;
    for (int64_t i = 0; i < z->window.n[0]; i++)
        for (int64_t j = 0; j < z->window.n[1]; j++)
            for (int64_t k = 0; k < z->window.n[2]; k++) {
                double units, sum = sum_of_units(in, z, i, j, k, &units);
                *to++ = (real)(sum / units);
            }
    memset(got, 0xFF, n * sizeof *got);
    vol_zoom(in, z->s, z->view, got, z->window, 1);
    CHECK_CLOSE("means of what the window's voxels cover", got, want, n, rounding, 0);
    if (whole) CHECK(memcmp(got, want, n * sizeof *got) == 0);
    for (int threads = 2; threads <= 3; threads++) {
        memset(want, 0xFF, n * sizeof *want);
        vol_zoom(in, z->s, z->view, want, z->window, threads);
        CHECK(memcmp(got, want, n * sizeof *got) == 0);
    }
    free(in), free(want), free(got);
}

static void test_zoom(void) {
    for (size_t k = 0; k < ZOOMS; k++) {
        test_zoom_of(&zooms[k], true, k);
        test_zoom_of(&zooms[k], false, 20 + k);
    }
}

/* A view of the window's size is shown as it is; one that fits into it several times has its voxels repeated. */
static void test_zoom_unchanged(void) {
    const vol_shape s = {{6, 7, 8}}, window = {{3, 4, 5}}, larger = {{6, 12, 5}};
    const vol_box view = {{2, 1, 3}, {4, 4, 7}};
    real *in = random_reals(7, vol_count(s), -1, 1), part[60], same[60], repeated[6 * 12 * 5], want[6 * 12 * 5];
    vol_crop(in, s, view, part);
    vol_zoom(in, s, view, same, window, 1);
    vol_zoom(in, s, view, repeated, larger, 1);
    for (int64_t z = 0, i = 0; z < 6; z++)
        for (int64_t y = 0; y < 12; y++)
            for (int64_t x = 0; x < 5; x++, i++) want[i] = part[(z / 2 * 4 + y / 3) * 5 + x];
    CHECK_CLOSE("a view of the window's size", same, part, 60, rounding, 0);
    CHECK_CLOSE("twice, three times, once as large", repeated, want, 6 * 12 * 5, rounding, 0);
    if (sizeof(real) == sizeof(float)) { /* where a float times a small whole number is exact */
        CHECK(memcmp(same, part, sizeof same) == 0);
        CHECK(memcmp(repeated, want, sizeof want) == 0);
    }
    free(in);
}

/* ---- points and boxes in the window ------------------------------------------------------------------------------ */

/* The cell that a voxel's centre falls into, found by looking: in halves of units it lies at (2·voxel + 1) · window. */
static int64_t cell_of_centre(int64_t voxel, int64_t n, int64_t window) {
    int64_t i = 0;
    while (2 * (i + 1) * n <= (2 * voxel + 1) * window) i++;
    return i;
}

static void test_points(void) {
    int bad = 0;
    for (int64_t n = 1; n <= 30; n++)
        for (int64_t window = 1; window <= 30; window++)
            for (int64_t v = 0; v < n; v++) {
                /* the other axes have other sizes and corners */
                const vol_box view = {{4, 9, 2}, {4 + n - 1, 9 + 30 - n, 2 + 2 * n}};
                const vol_shape w = {{window, 31 - window, window + 3}};
                const int64_t at[3] = {4 + v, 9 + (30 - n), 2 + v};
                int64_t to[3];
                vol_zoom_point(at, view, w, to);
                bad += to[0] != cell_of_centre(v, n, window);
                bad += to[1] != cell_of_centre(30 - n, 31 - n, 31 - window);
                bad += to[2] != cell_of_centre(v, 2 * n + 1, window + 3);
                vol_cell c = vol_cell_of(to[0], n, window); /* it shows something of the voxel */
                bad += to[0] < 0 || to[0] >= window || vol_cell_share(&c, v, v) == 0;
            }
    CHECK(bad == 0);
}

static bool is_box(vol_box b, int64_t z0, int64_t y0, int64_t x0, int64_t z1, int64_t y1, int64_t x1) {
    const vol_box want = {{z0, y0, x0}, {z1, y1, x1}};
    return memcmp(&b, &want, sizeof b) == 0;
}

static void test_zoom_box(void) {
    const vol_box view = {{2, 3, 10}, {5, 12, 29}}; /* 4, 10, 20 voxels */
    const vol_shape window = {{8, 5, 20}};
    /* along z a voxel has two of the window's, its centre is where the second begins; along y it is the reverse */
    CHECK(is_box(vol_zoom_box((vol_box){{3, 5, 12}, {4, 8, 20}}, view, window), 3, 1, 2, 5, 2, 10));
    CHECK(is_box(vol_zoom_box(view, view, window), 1, 0, 0, 7, 4, 19));
    /* what lies outside of the view is cut off */
    CHECK(is_box(vol_zoom_box((vol_box){{0, 0, 0}, {50, 4, 10}}, view, window), 1, 0, 0, 7, 0, 0));
    CHECK(is_box(vol_zoom_box((vol_box){{5, 12, 29}, {5, 12, 29}}, view, window), 7, 4, 19, 7, 4, 19));
    CHECK(is_box(vol_zoom_box((vol_box){{0, 3, 10}, {1, 12, 29}}, view, window), -1, -1, -1, -1, -1, -1));
    CHECK(is_box(vol_zoom_box((vol_box){{2, 3, 30}, {5, 12, 40}}, view, window), -1, -1, -1, -1, -1, -1));
    CHECK(vol_box_is_empty(vol_zoom_box(vol_box_none(), view, window)));
    int bad = 0;
    uint64_t state = 3;
    for (int round = 0; round < 2000; round++) {
        vol_box v, b, want;
        vol_shape w;
        for (int k = 0; k < 3; k++) {
            v.lo[k] = random_next(&state) % 20, v.hi[k] = v.lo[k] + random_next(&state) % 30;
            b.lo[k] = v.lo[k] + random_next(&state) % (uint32_t)(v.hi[k] - v.lo[k] + 1);
            b.hi[k] = b.lo[k] + random_next(&state) % (uint32_t)(v.hi[k] - b.lo[k] + 1);
            w.n[k] = 1 + random_next(&state) % 30;
            want.lo[k] = cell_of_centre(b.lo[k] - v.lo[k], v.hi[k] - v.lo[k] + 1, w.n[k]);
            want.hi[k] = cell_of_centre(b.hi[k] - v.lo[k], v.hi[k] - v.lo[k] + 1, w.n[k]);
        }
        vol_box got = vol_zoom_box(b, v, w);
        bad += memcmp(&got, &want, sizeof got) != 0 || vol_box_is_empty(got);
    }
    CHECK(bad == 0);
}

/* ---- contrast ---------------------------------------------------------------------------------------------------- */

/* Is a voxel within the ellipsoid that has tenths/10 of the box's axes? In whole numbers: the sum over the axes of
   (offset from the middle / half extent)², times all extents and ten squared. */
static bool in_ellipsoid(const int64_t at[3], vol_box b, int64_t tenths) {
    int64_t e[3], sum = 0, all = 1;
    for (int k = 0; k < 3; k++) e[k] = b.hi[k] - b.lo[k] + 1, all *= e[k] * e[k];
    for (int k = 0; k < 3; k++) {
        int64_t off = 2 * at[k] - b.lo[k] - b.hi[k];
        sum += off * off * (all / (e[k] * e[k]));
    }
    return 100 * sum < tenths * tenths * all;
}

typedef enum place { ALL, CORE, OUTSIDE } place;

static bool belongs(place p, const int64_t at[3], vol_box b) {
    return p == ALL || (p == CORE ? in_ellipsoid(at, b, 6) : !in_ellipsoid(at, b, 10));
}

/* Mean of a part, then what is left from it: not by the mean of squares, as the code does. */
static size_t statistics(const real *image, vol_shape s, vol_box b, place p, double *mean, double *deviation) {
    size_t count = 0;
    *mean = *deviation = 0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        count = 0;
        for (int64_t i = 0; i < (int64_t)vol_count(s); i++) {
            const int64_t at[3] = {i / (s.n[1] * s.n[2]), i / s.n[2] % s.n[1], i % s.n[2]};
            if (!belongs(p, at, b)) continue;
            double v = (double)image[i], off = v - *mean;
            sum += pass == 0 ? v : off * off;
            count++;
        }
        if (count == 0) return 0;
        if (pass == 0) *mean = sum / (double)count;
        else *deviation = sqrt(sum / (double)count);
    }
    return count;
}

/* vol.h's formula. Returns how many voxels the core has. */
static size_t expected_contrast(const real *image, vol_shape s, vol_box b, double *out) {
    double middle, spread, all, all_spread, around, unused;
    size_t core = statistics(image, s, b, CORE, &middle, &spread);
    statistics(image, s, b, ALL, &all, &all_spread);
    if (core == 0) middle = all, spread = all_spread;
    bool darker = statistics(image, s, b, OUTSIDE, &around, &unused) > 0 && middle < around;
    for (size_t i = 0; i < vol_count(s); i++) {
        double d = ((double)image[i] - middle) / (spread + all_spread / 20);
        if (darker) d = -d;
        out[i] = d / (1 + fabs(d) / 6);
    }
    return core;
}

typedef struct shown {
    vol_shape s;
    vol_box b;
    bool has_core, has_outside;
} shown;

static const shown boxes_shown[] = {
    {{{12, 20, 16}}, {{2, 4, 3}, {9, 15, 12}}, true, true},  /* as a frame shows it */
    {{{12, 20, 16}}, {{0, 0, 0}, {11, 19, 15}}, true, true}, /* a box that fills the window */
    {{{7, 9, 11}}, {{0, 6, 2}, {1, 8, 10}}, true, true},     /* at the border, odd sizes */
    {{{7, 9, 11}}, {{3, 4, 5}, {3, 4, 5}}, true, true},      /* a voxel */
    {{{7, 9, 11}}, {{3, 4, 5}, {4, 5, 6}}, false, true},     /* two voxels each way: all are too far from the middle */
    {{{2, 2, 2}}, {{0, 0, 0}, {1, 1, 1}}, false, false},     /* a window of no more than that */
    {{{1, 1, 5}}, {{0, 0, 1}, {0, 0, 3}}, true, true},       /* a line */
    {{{1, 1, 2}}, {{0, 0, 0}, {0, 0, 1}}, true, false},      /* two voxels, with nothing outside */
};
enum { SHOWN = sizeof boxes_shown / sizeof boxes_shown[0] };

/* Noise, in a box an object in it: brighter for an even seed, darker for an odd one. */
static real *noisy_object(const shown *w, uint64_t seed) {
    real *image = random_reals(seed, vol_count(w->s), 0.2, 0.5);
    for (int64_t i = 0; i < (int64_t)vol_count(w->s); i++) {
        const int64_t at[3] = {i / (w->s.n[1] * w->s.n[2]), i / w->s.n[2] % w->s.n[1], i % w->s.n[2]};
        if (in_ellipsoid(at, w->b, 9)) image[i] += (real)(seed % 2 == 0 ? 0.3 : -0.15);
    }
    return image;
}

static void test_contrast(void) {
    for (size_t k = 0; k < SHOWN; k++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            const shown *w = &boxes_shown[k];
            size_t n = vol_count(w->s), wrong = 0;
            real *image = noisy_object(w, 10 * k + seed), *got = malloc(n * sizeof *got);
            double *want = malloc(n * sizeof *want), mean, unused;
            size_t core = expected_contrast(image, w->s, w->b, want);
            CHECK((core > 0) == w->has_core);
            memcpy(got, image, n * sizeof *got);
            vol_contrast(got, w->s, w->b);
            CHECK_CLOSE("contrast", got, want, n, cancelled, 0);
            for (size_t i = 0; i < n; i++) wrong += fabs((double)got[i]) <= 6 ? 0 : 1;
            CHECK(wrong == 0);
            CHECK((statistics(image, w->s, w->b, OUTSIDE, &mean, &unused) > 0) == w->has_outside);
            free(image), free(got), free(want);
        }
}

/* A scanner that shows everything brighter, in other steps, or bright as dark gives the same picture, where there is
   something outside of the box's ellipsoid to tell bright from dark by. Of whole numbers all of these are exact. */
static void test_contrast_of_scanners(void) {
    static const int scale[] = {1, 3, 1, -1, -7}, shift[] = {0, 0, -900, 5, 300};
    for (size_t k = 0; k < SHOWN; k++) {
        const shown *w = &boxes_shown[k];
        size_t n = vol_count(w->s);
        real *image = random_wholes(k, n, 0, 100), *first = malloc(n * sizeof *first),
             *other = malloc(n * sizeof *other);
        memcpy(first, image, n * sizeof *first);
        vol_contrast(first, w->s, w->b);
        for (size_t c = 0; c < sizeof scale / sizeof scale[0]; c++) {
            for (size_t i = 0; i < n; i++) other[i] = (real)(scale[c] * (int)image[i] + shift[c]);
            vol_contrast(other, w->s, w->b);
            if (scale[c] < 0 && !w->has_outside)
                for (size_t i = 0; i < n; i++) other[i] = -other[i];
            CHECK_CLOSE("contrast of another scanner", other, first, n, cancelled, 0);
        }
        free(image), free(first), free(other);
    }
}

/* A bright object on dark ground, and the reverse: the same, the object above what is around it. */
static void test_contrast_sign(void) {
    const shown *w = &boxes_shown[0];
    size_t n = vol_count(w->s), wrong = 0;
    real *bright = malloc(n * sizeof *bright), *dark = malloc(n * sizeof *dark);
    uint64_t state = 5;
    for (int64_t i = 0; i < (int64_t)n; i++) {
        const int64_t at[3] = {i / (w->s.n[1] * w->s.n[2]), i / w->s.n[2] % w->s.n[1], i % w->s.n[2]};
        int noise = (int)(random_next(&state) % 9);
        bright[i] = (real)(noise + (in_ellipsoid(at, w->b, 10) ? 64 : 0));
        dark[i] = 128 - bright[i];
    }
    vol_contrast(bright, w->s, w->b);
    vol_contrast(dark, w->s, w->b);
    CHECK_CLOSE("a dark object", dark, bright, n, cancelled, 0);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        const int64_t at[3] = {i / (w->s.n[1] * w->s.n[2]), i / w->s.n[2] % w->s.n[1], i % w->s.n[2]};
        bool object = in_ellipsoid(at, w->b, 10);
        wrong += (object ? fabs((double)bright[i]) < 2 : bright[i] < -3) ? 0 : 1;
    }
    CHECK(wrong == 0);
    free(bright), free(dark);
}

/* Numbers that can be worked out by hand. */
static void test_contrast_by_hand(void) {
    real pair[2] = {1, 3}, flat[5] = {2, 2, 9, 2, 2}, line[5] = {1, 2, 5, 2, 1}, even[5] = {1, 3, 2, 5, 3};
    const double d = 1 / 1.05, want = d / (1 + d / 6); /* mean 2, deviation 1, of the core and of all */
    vol_contrast(pair, (vol_shape){{1, 1, 2}}, (vol_box){{0, 0, 0}, {0, 0, 1}});
    CHECK(fabs((double)pair[0] + want) < rounding && fabs((double)pair[1] - want) < rounding);
    /* a core of one voxel has no deviation: a twentieth of all's is the unit. Of 2, 2, 9, 2, 2 it is 2.8: d = −50 */
    vol_contrast(flat, (vol_shape){{1, 1, 5}}, (vol_box){{0, 0, 2}, {0, 0, 2}});
    CHECK(flat[2] == 0 && fabs((double)flat[0] + 50 / (1 + 50.0 / 6)) < cancelled && flat[0] == flat[4]);
    /* the core is the middle one of three, the two beside the box are outside: 2 and 1 are darker than 5 */
    vol_contrast(line, (vol_shape){{1, 1, 5}}, (vol_box){{0, 0, 1}, {0, 0, 3}});
    CHECK(line[2] == 0 && line[1] < 0 && line[0] < line[1] && line[1] == line[3]);
    /* 1 and 3 outside are as bright as the core's 2: nothing is turned round */
    vol_contrast(even, (vol_shape){{1, 1, 5}}, (vol_box){{0, 0, 1}, {0, 0, 3}});
    CHECK(even[2] == 0 && even[0] < 0 && even[1] > 0 && even[3] > even[1]);
}

/* What is all the same has no contrast, whatever the value and the box. */
static void test_contrast_of_nothing(void) {
    static const double values[] = {0, 1, 0.3, -77.7, 1e-30, 3e4};
    for (size_t k = 0; k < SHOWN; k++)
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            const shown *w = &boxes_shown[k];
            size_t n = vol_count(w->s), wrong = 0;
            real *image = malloc(n * sizeof *image);
            for (size_t i = 0; i < n; i++) image[i] = (real)values[v];
            vol_contrast(image, w->s, w->b);
            /* sums of doubles round, and their mean may not be the value */
            for (size_t i = 0; i < n; i++)
                wrong += (sizeof(real) == sizeof(float) ? image[i] == 0 : fabs((double)image[i]) < 1e-6) ? 0 : 1;
            CHECK(wrong == 0);
            free(image);
        }
}

/* ---- and back ----------------------------------------------------------------------------------------------------- */

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

/* Where the centre of a window's voxel i of n lies along the axis of a view, in voxels of the volume. */
static double centre_of(int64_t i, int64_t n, vol_box view, int axis) {
    return (double)view.lo[axis] - 0.5 + ((double)i + 0.5) * (double)(view.hi[axis] - view.lo[axis] + 1) / (double)n;
}

/* Values that rise evenly along each axis of the volume are, in a window over another view, what they are there; beyond the outer
   centres they stay. They are added to what was there. Over the same view nothing moves; threads change no bit. */
static void test_rezoom(void) {
    static const double slope[3] = {3, -2, 0.5};
    static const vol_box views[][2] = {{{{2, 3, 1}, {12, 16, 30}}, {{4, 3, 6}, {9, 16, 26}}}, /* inside, at a border */
                                       {{{0, 1, 2}, {6, 31, 9}}, {{0, 1, 2}, {6, 31, 9}}},    /* the same */
                                       {{{4, 0, 7}, {20, 25, 8}}, {{4, 9, 7}, {20, 9, 8}}}};  /* one voxel wide */
    static const vol_shape window = {{5, 7, 9}};
    const double tolerance = sizeof(real) == sizeof(float) ? 1e-4 : 1e-12;
    for (size_t k = 0; k < sizeof views / sizeof views[0]; k++) {
        vol_box from = views[k][0], to = views[k][1];
        real values[5 * 7 * 9], want[5 * 7 * 9], got[5 * 7 * 9], again[5 * 7 * 9];
        for (int64_t i = 0; i < 5 * 7 * 9; i++) {
            const int64_t at[3] = {i / 63, i / 9 % 7, i % 9};
            double value = 0, moved = 100;
            for (int axis = 0; axis < 3; axis++) {
                int64_t n = window.n[axis];
                double x = centre_of(at[axis], n, to, axis), first = centre_of(0, n, from, axis),
                       last = centre_of(n - 1, n, from, axis);
                value += slope[axis] * centre_of(at[axis], n, from, axis);
                moved += slope[axis] * (x < first ? first : x > last ? last : x);
            }
            values[i] = (real)value, want[i] = (real)moved, got[i] = again[i] = 100;
        }
        vol_rezoom(values, window, from, to, 1, got);
        CHECK_CLOSE("what rises evenly", got, want, 5 * 7 * 9, tolerance, 0);
        vol_rezoom(values, window, from, to, 3, again);
        CHECK(memcmp(got, again, sizeof got) == 0);
        memset(got, 0, sizeof got);
        vol_rezoom(values, window, from, to, 2, got);
        if (k == 1) CHECK(memcmp(got, values, sizeof got) == 0);
    }
}

int main(void) {
    test_cells_partition();
    test_cell_shares();
    test_zoom();
    test_zoom_unchanged();
    test_points();
    test_zoom_box();
    test_contrast();
    test_contrast_of_scanners();
    test_contrast_sign();
    test_contrast_by_hand();
    test_contrast_of_nothing();
    test_unzoom();
    test_unzoom_exactly();
    test_rezoom();
    return test_summary();
}
