/* Boxes: of masks, their set operations, and the region of interest around a prediction. */
#include <string.h>

#include "vol.h"

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

size_t vol_count(vol_shape s) { return (size_t)s.n[0] * (size_t)s.n[1] * (size_t)s.n[2]; }

bool vol_box_is_empty(vol_box b) {
    for (int k = 0; k < 3; k++)
        if (b.lo[k] < 0 || b.hi[k] < b.lo[k]) return true;
    return false;
}

vol_box vol_box_none(void) { return (vol_box){{-1, -1, -1}, {-1, -1, -1}}; }

vol_box vol_box_whole(vol_shape s) { return (vol_box){{0, 0, 0}, {s.n[0] - 1, s.n[1] - 1, s.n[2] - 1}}; }

vol_shape vol_box_shape(vol_box b) {
    vol_shape s;
    for (int k = 0; k < 3; k++) s.n[k] = b.hi[k] - b.lo[k] + 1;
    return s;
}

/* First and last non-zero byte of row (n); false when there is none. */
static bool row_extent(const uint8_t *row, int64_t n, int64_t *first, int64_t *last) {
    int64_t lo = 0, hi = n - 1;
    if (!row[0] && memcmp(row, row + 1, (size_t)n - 1) == 0) return false; /* all as the first: quick to find out */
    while (!row[lo]) lo++;
    while (!row[hi]) hi--;
    *first = lo, *last = hi;
    return true;
}

vol_box vol_mask_bounds(const uint8_t *mask, vol_shape s) {
    vol_box bounds = vol_box_none();
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++) {
            int64_t first, last;
            if (row_extent(mask + (z * s.n[1] + y) * s.n[2], s.n[2], &first, &last))
                bounds = vol_box_union(bounds, (vol_box){{z, y, first}, {z, y, last}});
        }
    return bounds;
}

static size_t count_inside(const uint8_t *mask, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += mask[i] != 0;
    return count;
}

vol_box vol_mask_prompt_box(const uint8_t *mask, vol_shape s) {
    size_t slice = (size_t)s.n[1] * (size_t)s.n[2];
    size_t total = 0;
    int64_t first = -1, last = -1;
    for (int64_t z = 0; z < s.n[0]; z++) {
        size_t count = count_inside(mask + (size_t)z * slice, slice);
        if (count == 0) continue;
        if (first < 0) first = z;
        last = z;
        total += count;
    }
    if (total == 0) return vol_box_none();

    /* In raster order slice follows slice, so the median voxel's is where the running count passes its index. */
    int64_t middle = first;
    size_t passed = 0;
    while ((passed += count_inside(mask + (size_t)middle * slice, slice)) <= total / 2) middle++;

    vol_box box = vol_mask_bounds(mask + (size_t)middle * slice, (vol_shape){{1, s.n[1], s.n[2]}});
    box.lo[0] = first, box.hi[0] = last;
    return box;
}

vol_box vol_box_union(vol_box a, vol_box b) {
    if (vol_box_is_empty(a)) return vol_box_is_empty(b) ? vol_box_none() : b;
    if (vol_box_is_empty(b)) return a;
    for (int k = 0; k < 3; k++) {
        a.lo[k] = min64(a.lo[k], b.lo[k]);
        a.hi[k] = max64(a.hi[k], b.hi[k]);
    }
    return a;
}

vol_box vol_box_intersect(vol_box a, vol_box b) {
    if (vol_box_is_empty(a) || vol_box_is_empty(b)) return vol_box_none();
    for (int k = 0; k < 3; k++) {
        a.lo[k] = max64(a.lo[k], b.lo[k]);
        a.hi[k] = min64(a.hi[k], b.hi[k]);
    }
    return vol_box_is_empty(a) ? vol_box_none() : a;
}

vol_box vol_frame(vol_box b, vol_shape s, unsigned margin) {
    if (vol_box_is_empty(b)) return vol_box_none();
    for (int k = 0; k < 3; k++) {
        int64_t around = max64(2, (b.hi[k] - b.lo[k] + 1) * (int64_t)margin / 100);
        b.lo[k] = max64(0, b.lo[k] - around);
        b.hi[k] = min64(s.n[k] - 1, b.hi[k] + around);
    }
    return b;
}

vol_box vol_region(vol_box u, vol_shape s, vol_shape window) {
    if (vol_box_is_empty(u)) return vol_box_none();
    for (int k = 0; k < 3; k++) {
        int64_t extent = u.hi[k] - u.lo[k] + 1;
        /* Both sides get the floor: an odd deficit leaves the region one voxel short of the window, as upstream. */
        int64_t margin = max64(0, window.n[k] - extent) / 2;
        u.lo[k] = max64(0, u.lo[k] - margin);
        u.hi[k] = min64(s.n[k], u.hi[k] + margin);
    }
    return u;
}
