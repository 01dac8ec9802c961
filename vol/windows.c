/* Sliding windows over a region. Three frames of coordinates: the volume's; the region's (volume − origin); the padded
   region's (region + pad_lo), in which windows start. */
#include <assert.h>
#include <string.h>

#include "vol.h"

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

void vol_windows_plan(vol_shape region, vol_shape window, vol_windows *out) {
    out->region = region;
    out->window = window;
    for (int k = 0; k < 3; k++) {
        assert(region.n[k] >= 1 && window.n[k] >= 1);
        int64_t size = max64(region.n[k], window.n[k]);
        int64_t interval = size == window.n[k] ? size : max64(1, window.n[k] / 2);
        out->padded.n[k] = size;
        out->pad_lo[k] = (size - region.n[k]) / 2;
        out->interval[k] = interval;
        /* as many intervals as it takes for the last window to reach the end */
        out->count[k] = (size - window.n[k] + interval - 1) / interval + 1;
    }
}

int64_t vol_windows_total(const vol_windows *w) { return w->count[0] * w->count[1] * w->count[2]; }

/* Start of the d-th window along axis k. */
static int64_t axis_start(const vol_windows *w, int k, int64_t d) {
    return min64(d * w->interval[k], w->padded.n[k] - w->window.n[k]);
}

void vol_windows_start(const vol_windows *w, int64_t i, int64_t start[3]) {
    assert(i >= 0 && i < vol_windows_total(w));
    for (int k = 2; k >= 0; k--) {
        start[k] = axis_start(w, k, i % w->count[k]);
        i /= w->count[k];
    }
}

/* The voxels that a window and the region share: where they begin in the window (inner) and in the region (outer).
   Never empty, because an axis is padded only when one window covers it. */
typedef struct overlap {
    int64_t inner[3], outer[3], length[3];
} overlap;

static overlap window_overlap(const vol_windows *w, int64_t i) {
    int64_t start[3];
    overlap o;
    vol_windows_start(w, i, start);
    for (int k = 0; k < 3; k++) {
        int64_t lo = max64(start[k], w->pad_lo[k]);
        int64_t hi = min64(start[k] + w->window.n[k], w->pad_lo[k] + w->region.n[k]);
        o.inner[k] = lo - start[k];
        o.outer[k] = lo - w->pad_lo[k];
        o.length[k] = hi - lo;
    }
    return o;
}

/* Index of the first voxel of row (z, y) of an overlap in an array of shape s, in which it begins at `first`. */
static size_t row_index(vol_shape s, const int64_t first[3], int64_t z, int64_t y) {
    return (size_t)(((first[0] + z) * s.n[1] + first[1] + y) * s.n[2] + first[2]);
}

/* vol_window_extract for elements of `size` bytes; zero is all bits zero for reals and bytes alike. */
static void extract(const unsigned char *in, size_t size, vol_shape s, const int64_t origin[3], const vol_windows *w,
                    int64_t i, unsigned char *out) {
    overlap o = window_overlap(w, i);
    int64_t from[3];
    for (int k = 0; k < 3; k++) {
        from[k] = origin[k] + o.outer[k];
        assert(origin[k] >= 0 && origin[k] + w->region.n[k] <= s.n[k]);
    }
    memset(out, 0, vol_count(w->window) * size);
    for (int64_t z = 0; z < o.length[0]; z++)
        for (int64_t y = 0; y < o.length[1]; y++)
            memcpy(out + row_index(w->window, o.inner, z, y) * size, in + row_index(s, from, z, y) * size,
                   (size_t)o.length[2] * size);
}

void vol_window_extract(const real *in, vol_shape s, const int64_t origin[3], const vol_windows *w, int64_t i,
                        real *out) {
    extract((const unsigned char *)in, sizeof *in, s, origin, w, i, (unsigned char *)out);
}

void vol_window_extract_mask(const uint8_t *in, vol_shape s, const int64_t origin[3], const vol_windows *w, int64_t i,
                             uint8_t *out) {
    extract(in, sizeof *in, s, origin, w, i, out);
}

vol_box vol_window_box(const vol_windows *w, int64_t i, const int64_t origin[3], vol_box b) {
    overlap o = window_overlap(w, i);
    vol_box part;
    for (int k = 0; k < 3; k++) {
        part.lo[k] = origin[k] + o.outer[k];
        part.hi[k] = part.lo[k] + o.length[k] - 1;
    }
    part = vol_box_intersect(part, b);
    if (vol_box_is_empty(part)) return part;
    for (int k = 0; k < 3; k++) {
        int64_t shift = o.inner[k] - (origin[k] + o.outer[k]);
        part.lo[k] += shift, part.hi[k] += shift;
    }
    return part;
}

/* The overlap of window i, cut to `part`; false when nothing of it is left. Both frames are moved alike. */
static bool part_overlap(const vol_windows *w, int64_t i, const int64_t origin[3], vol_box part, overlap *o) {
    *o = window_overlap(w, i);
    for (int k = 0; k < 3; k++) {
        int64_t lo = max64(o->outer[k], part.lo[k] - origin[k]);
        int64_t hi = min64(o->outer[k] + o->length[k] - 1, part.hi[k] - origin[k]);
        if (hi < lo) return false;
        o->inner[k] += lo - o->outer[k];
        o->outer[k] = lo;
        o->length[k] = hi - lo + 1;
    }
    return true;
}

bool vol_window_meets(const vol_windows *w, int64_t i, const int64_t origin[3], vol_box part) {
    overlap o;
    return part_overlap(w, i, origin, part, &o);
}

void vol_window_add(const vol_windows *w, int64_t i, const real *values, const int64_t origin[3], vol_box part,
                    vol_shape s, real *sum) {
    overlap o;
    if (!part_overlap(w, i, origin, part, &o)) return;
    for (int k = 0; k < 3; k++) o.outer[k] += origin[k];
    for (int64_t z = 0; z < o.length[0]; z++)
        for (int64_t y = 0; y < o.length[1]; y++) {
            const real *from = values + row_index(w->window, o.inner, z, y);
            real *to = sum + row_index(s, o.outer, z, y);
            for (int64_t x = 0; x < o.length[2]; x++) to[x] += from[x];
        }
}

/* Windows along axis k that cover region coordinate v. *next: the coordinate at which their number may change. */
static int64_t axis_cover(const vol_windows *w, int k, int64_t v, int64_t *next) {
    int64_t p = v + w->pad_lo[k], covering = 0, change = w->padded.n[k];
    for (int64_t d = 0; d < w->count[k]; d++) {
        int64_t start = axis_start(w, k, d), end = start + w->window.n[k];
        if (start <= p && p < end) covering++;
        if (start > p) change = min64(change, start);
        if (end > p) change = min64(change, end);
    }
    *next = min64(change - w->pad_lo[k], w->region.n[k]);
    return covering;
}

void vol_windows_average(const vol_windows *w, const int64_t origin[3], vol_box part, vol_shape s, int threads,
                         real *sum) {
    vol_shape n = vol_box_shape(part);
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = 0; z < n.n[0]; z++)
        for (int64_t y = 0; y < n.n[1]; y++) {
            real *row = sum + row_index(s, part.lo, z, y) - part.lo[2]; /* by the volume's x */
            int64_t next;
            int64_t cover = axis_cover(w, 0, part.lo[0] + z - origin[0], &next);
            cover *= axis_cover(w, 1, part.lo[1] + y - origin[1], &next);
            for (int64_t x = part.lo[2]; x <= part.hi[2];) {
                real divisor = (real)(cover * axis_cover(w, 2, x - origin[2], &next));
                int64_t end = min64(next + origin[2], part.hi[2] + 1);
                for (; x < end; x++) row[x] /= divisor;
            }
        }
}
