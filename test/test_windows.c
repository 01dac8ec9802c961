/* Sliding windows: plans by hand, extraction and stitching against versions that ask every voxel. */
#include "test.h"

#include "../vol/vol.h"

/* A region of a volume, and a window: smaller, equal and larger than the region on different axes, odd deficits,
   windows of one voxel, one-voxel axes. */
typedef struct layout {
    vol_shape volume;
    int64_t origin[3];
    vol_shape region, window;
} layout;

static const layout layouts[] = {
    {{{9, 12, 14}}, {2, 1, 3}, {{5, 9, 11}}, {{4, 6, 8}}},    /* several windows on every axis */
    {{{9, 12, 14}}, {2, 1, 3}, {{5, 9, 8}}, {{8, 6, 8}}},     /* padded, several, exact; an odd deficit */
    {{{9, 12, 14}}, {0, 0, 0}, {{9, 12, 14}}, {{9, 12, 14}}}, /* one exact window */
    {{{3, 4, 5}}, {0, 0, 0}, {{3, 4, 5}}, {{6, 7, 5}}},       /* one padded window */
    {{{3, 4, 9}}, {0, 3, 0}, {{3, 1, 9}}, {{2, 3, 4}}},       /* a one-voxel axis */
    {{{2, 5, 4}}, {1, 0, 0}, {{1, 5, 4}}, {{1, 1, 3}}},       /* windows of one voxel: interval 1 */
    {{{17, 2, 7}}, {0, 0, 0}, {{17, 2, 7}}, {{16, 5, 3}}},    /* last window almost the same as the one before */
};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

static bool is_triple(const int64_t v[3], int64_t z, int64_t y, int64_t x) {
    return v[0] == z && v[1] == y && v[2] == x;
}

static void test_plan(void) {
    vol_windows w;
    int64_t start[3];
    vol_windows_plan((vol_shape){{10, 100, 48}}, (vol_shape){{16, 64, 48}}, &w);
    CHECK(is_triple(w.padded.n, 16, 100, 48) && is_triple(w.pad_lo, 3, 0, 0));
    CHECK(is_triple(w.interval, 16, 32, 48) && is_triple(w.count, 1, 3, 1));
    vol_windows_start(&w, 1, start);
    CHECK(is_triple(start, 0, 32, 0));
    vol_windows_start(&w, 2, start);
    CHECK(is_triple(start, 0, 36, 0));

    /* an odd deficit (3, 5): the odd voxel comes after */
    vol_windows_plan((vol_shape){{13, 59, 1}}, (vol_shape){{16, 64, 1}}, &w);
    CHECK(is_triple(w.padded.n, 16, 64, 1) && is_triple(w.pad_lo, 1, 2, 0) && vol_windows_total(&w) == 1);

    /* an odd window: the interval is rounded down; z slowest, x fastest; the last is clamped */
    vol_windows_plan((vol_shape){{5, 7, 12}}, (vol_shape){{4, 7, 5}}, &w);
    CHECK(is_triple(w.interval, 2, 7, 2) && is_triple(w.count, 2, 1, 5) && vol_windows_total(&w) == 10);
    static const int64_t x_starts[5] = {0, 2, 4, 6, 7};
    int bad = 0;
    for (int64_t i = 0; i < 10; i++) {
        vol_windows_start(&w, i, start);
        bad += !is_triple(start, i / 5, 0, x_starts[i % 5]);
    }
    CHECK(bad == 0);

    vol_windows_plan((vol_shape){{120, 512, 512}}, (vol_shape){{32, 256, 256}}, &w);
    CHECK(is_triple(w.count, 7, 3, 3));
    vol_windows_start(&w, 62, start);
    CHECK(is_triple(start, 88, 256, 256));
    vol_windows_plan((vol_shape){{1, 1, 3}}, (vol_shape){{1, 1, 1}}, &w);
    CHECK(is_triple(w.interval, 1, 1, 1) && is_triple(w.count, 1, 1, 3));
}

/* Index in the volume of voxel (z,y,x) of a window that starts at `start`; −1 in the padding. */
static int64_t volume_index(const layout *l, const vol_windows *w, const int64_t start[3], int64_t z, int64_t y,
                            int64_t x) {
    int64_t at[3] = {z, y, x};
    for (int k = 0; k < 3; k++) {
        at[k] += start[k] - w->pad_lo[k];
        if (at[k] < 0 || at[k] >= l->region.n[k]) return -1;
        at[k] += l->origin[k];
    }
    return (at[0] * l->volume.n[1] + at[1]) * l->volume.n[2] + at[2];
}

static void test_extract(const layout *l) {
    size_t n = vol_count(l->volume), m = vol_count(l->window);
    real *in = malloc(n * sizeof *in), *out = malloc(m * sizeof *out);
    uint8_t *mask = malloc(n), *mask_out = malloc(m);
    for (size_t i = 0; i < n; i++) in[i] = (real)(i + 1), mask[i] = (uint8_t)(i % 251 + 1);
    vol_windows w;
    vol_windows_plan(l->region, l->window, &w);
    int bad = 0;
    for (int64_t i = 0; i < vol_windows_total(&w); i++) {
        int64_t start[3];
        vol_windows_start(&w, i, start);
        for (size_t j = 0; j < m; j++) out[j] = -5, mask_out[j] = 255;
        vol_window_extract(in, l->volume, l->origin, &w, i, out);
        vol_window_extract_mask(mask, l->volume, l->origin, &w, i, mask_out);
        for (int64_t z = 0, j = 0; z < l->window.n[0]; z++)
            for (int64_t y = 0; y < l->window.n[1]; y++)
                for (int64_t x = 0; x < l->window.n[2]; x++, j++) {
                    int64_t from = volume_index(l, &w, start, z, y, x);
                    bad += out[j] != (real)(from + 1);
                    bad += mask_out[j] != (from < 0 ? 0 : from % 251 + 1);
                }
    }
    CHECK(bad == 0);
    free(in), free(out), free(mask), free(mask_out);
}

/* The box of a window must be the bounds of the box's cube seen through the window. */
static void test_window_box(const layout *l) {
    size_t n = vol_count(l->volume), m = vol_count(l->window);
    uint8_t *cube = malloc(n), *part = malloc(m);
    vol_windows w;
    vol_windows_plan(l->region, l->window, &w);
    int bad = 0;
    for (int64_t trial = 0; trial < 60; trial++) {
        vol_box b;
        for (int k = 0; k < 3; k++) {
            int64_t size = l->volume.n[k];
            b.lo[k] = (trial * (k + 1) + trial / 7) % size;
            b.hi[k] = b.lo[k] + trial % (2 + k) < size ? b.lo[k] + trial % (2 + k) : size - 1;
        }
        memset(cube, 0, n);
        for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
            for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
                memset(cube + (z * l->volume.n[1] + y) * l->volume.n[2] + b.lo[2], 1, (size_t)vol_box_shape(b).n[2]);
        for (int64_t i = 0; i < vol_windows_total(&w); i++) {
            vol_window_extract_mask(cube, l->volume, l->origin, &w, i, part);
            vol_box want = vol_mask_bounds(part, l->window), got = vol_window_box(&w, i, l->origin, b);
            bad += memcmp(&want, &got, sizeof got) != 0;
        }
    }
    CHECK(bad == 0);
    CHECK(vol_box_is_empty(vol_window_box(&w, 0, l->origin, vol_box_none())));
    free(cube), free(part);
}

/* The region's voxels of the volume, (region). */
static void cut(const layout *l, const real *volume, real *region) {
    vol_box b;
    for (int k = 0; k < 3; k++) b.lo[k] = l->origin[k], b.hi[k] = l->origin[k] + l->region.n[k] - 1;
    vol_crop(volume, l->volume, b, region);
}

/* A part made again must give the bits of the whole, and touch nothing else. */
static void test_part(const layout *l, const vol_windows *w, const real *values, const real *whole) {
    size_t n = vol_count(l->volume);
    real *sum = malloc(n * sizeof *sum);
    vol_box part;
    for (int k = 0; k < 3; k++) {
        part.lo[k] = l->origin[k] + l->region.n[k] / 3;
        part.hi[k] = l->origin[k] + l->region.n[k] - 1 - l->region.n[k] / 4;
    }
    memcpy(sum, whole, n * sizeof *sum);
    vol_fill(sum, l->volume, part, 0);
    int64_t meet = 0;
    for (int64_t i = 0; i < vol_windows_total(w); i++) {
        real *shifted = malloc(vol_count(l->window) * sizeof *shifted);
        for (size_t j = 0; j < vol_count(l->window); j++) shifted[j] = values[(j + (size_t)i) % vol_count(l->window)];
        vol_window_add(w, i, shifted, l->origin, part, l->volume, sum);
        meet += vol_window_meets(w, i, l->origin, part);
        CHECK(vol_window_meets(w, i, l->origin, part) == !vol_box_is_empty(vol_window_box(w, i, l->origin, part)));
        free(shifted);
    }
    vol_windows_average(w, l->origin, part, l->volume, 2, sum);
    CHECK(meet > 0 && memcmp(sum, whole, n * sizeof *sum) == 0);
    free(sum);
}

/* Small whole numbers add up exactly: the sums can be demanded to the bit, and so can the averages, one division each. */
static void test_stitch(const layout *l) {
    vol_windows w;
    vol_windows_plan(l->region, l->window, &w);
    size_t n = vol_count(l->region), m = vol_count(l->window), all = vol_count(l->volume);
    real *sum = malloc(n * sizeof *sum), *want = calloc(n, sizeof *want), *again = malloc(all * sizeof *again);
    real *values = malloc(m * sizeof *values), *base = malloc(m * sizeof *base), *volume = malloc(all * sizeof *volume);
    vol_box region;
    for (int k = 0; k < 3; k++) region.lo[k] = l->origin[k], region.hi[k] = l->origin[k] + l->region.n[k] - 1;
    for (size_t j = 0; j < m; j++) base[j] = (real)(j * 7 % 101);
    vol_fill(volume, l->volume, vol_box_whole(l->volume), -3);
    vol_fill(volume, l->volume, region, 0);
    int *cover = calloc(n, sizeof *cover);
    for (int64_t i = 0; i < vol_windows_total(&w); i++) {
        int64_t start[3];
        vol_windows_start(&w, i, start);
        for (size_t j = 0; j < m; j++) values[j] = base[(j + (size_t)i) % m];
        vol_window_add(&w, i, values, l->origin, region, l->volume, volume);
        for (int64_t z = 0, j = 0; z < l->window.n[0]; z++)
            for (int64_t y = 0; y < l->window.n[1]; y++)
                for (int64_t x = 0; x < l->window.n[2]; x++, j++) {
                    if (volume_index(l, &w, start, z, y, x) < 0) continue;
                    int64_t v = z + start[0] - w.pad_lo[0];
                    v = v * l->region.n[1] + y + start[1] - w.pad_lo[1];
                    v = v * l->region.n[2] + x + start[2] - w.pad_lo[2];
                    want[v] += values[j];
                    cover[v]++;
                }
    }
    cut(l, volume, sum);
    CHECK(memcmp(sum, want, n * sizeof *sum) == 0);
    memcpy(again, volume, all * sizeof *again);
    vol_windows_average(&w, l->origin, region, l->volume, 1, volume);
    vol_windows_average(&w, l->origin, region, l->volume, 3, again);
    CHECK(memcmp(again, volume, all * sizeof *again) == 0);
    cut(l, volume, sum);
    int bad = 0;
    for (size_t v = 0; v < n; v++) {
        bad += cover[v] == 0;
        want[v] /= (real)cover[v];
    }
    CHECK(bad == 0);
    CHECK(memcmp(sum, want, n * sizeof *sum) == 0);
    size_t outside = 0;
    for (size_t v = 0; v < all; v++) outside += volume[v] == -3;
    CHECK(outside == all - n);
    test_part(l, &w, base, volume);
    free(sum), free(want), free(again), free(values), free(base), free(volume), free(cover);
}

int main(void) {
    test_plan();
    for (int i = 0; i < LAYOUTS; i++) {
        test_extract(&layouts[i]);
        test_window_box(&layouts[i]);
        test_stitch(&layouts[i]);
    }
    return test_summary();
}
