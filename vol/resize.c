/* Nearest-neighbour resizing, of volumes and of boxes, crops, fills. */
#include <assert.h>
#include <string.h>

#include "vol.h"

/* float in the double build too: which voxel is taken is part of the model's input, not a rounding error. */
static inline int64_t source_of(int64_t i, float scale, int64_t in) {
    int64_t source = (int64_t)((float)i * scale);
    return source < in ? source : in - 1;
}

int64_t vol_nearest_source(int64_t i, int64_t in, int64_t out) { return source_of(i, (float)in / (float)out, in); }

void vol_resize_nearest(const real *in, vol_shape s, real *out, vol_shape o, vol_box part, int threads) {
    float scale = (float)s.n[2] / (float)o.n[2];
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = part.lo[0]; z <= part.hi[0]; z++)
        for (int64_t y = part.lo[1]; y <= part.hi[1]; y++) {
            int64_t from_z = vol_nearest_source(z, s.n[0], o.n[0]);
            int64_t from_y = vol_nearest_source(y, s.n[1], o.n[1]);
            const real *from = in + (from_z * s.n[1] + from_y) * s.n[2];
            real *to = out + (z * o.n[1] + y) * o.n[2];
            for (int64_t x = part.lo[2]; x <= part.hi[2]; x++) to[x] = from[source_of(x, scale, s.n[2])];
        }
}

void vol_zoom(const real *in, vol_shape s, vol_box view, real *out, vol_shape window, int threads) {
    vol_shape o = vol_box_shape(view);
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = 0; z < window.n[0]; z++)
        for (int64_t y = 0; y < window.n[1]; y++) {
            int64_t from_z = view.lo[0] + vol_nearest_source(z, o.n[0], window.n[0]);
            int64_t from_y = view.lo[1] + vol_nearest_source(y, o.n[1], window.n[1]);
            const real *from = in + (from_z * s.n[1] + from_y) * s.n[2] + view.lo[2];
            real *to = out + (z * window.n[1] + y) * window.n[2];
            for (int64_t x = 0; x < window.n[2]; x++) to[x] = from[vol_nearest_source(x, o.n[2], window.n[2])];
        }
}

/* Where voxel i of an axis of `out` voxels lies among `in` values: between low and low + 1, `weight` of the way. */
typedef struct place {
    int64_t low, high;
    real weight;
} place;

static place place_of(int64_t i, int64_t in, int64_t out) {
    double at = ((double)i + 0.5) * (double)in / (double)out - 0.5;
    if (at < 0) at = 0;
    if (at > (double)(in - 1)) at = (double)(in - 1);
    int64_t low = (int64_t)at;
    return (place){low, low + (low + 1 < in), (real)(at - (double)low)};
}

static real between(real a, real b, real weight) { return a + (b - a) * weight; }

void vol_unzoom(const real *values, vol_shape window, vol_box view, vol_box part, vol_shape s, int threads,
                real *volume) {
    if (vol_box_is_empty(part)) return;
    vol_shape o = vol_box_shape(view);
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = part.lo[0]; z <= part.hi[0]; z++)
        for (int64_t y = part.lo[1]; y <= part.hi[1]; y++) {
            place pz = place_of(z - view.lo[0], window.n[0], o.n[0]),
                  py = place_of(y - view.lo[1], window.n[1], o.n[1]);
            const real *a = values + (pz.low * window.n[1] + py.low) * window.n[2];
            const real *b = values + (pz.low * window.n[1] + py.high) * window.n[2];
            const real *c = values + (pz.high * window.n[1] + py.low) * window.n[2];
            const real *d = values + (pz.high * window.n[1] + py.high) * window.n[2];
            real *to = volume + (z * s.n[1] + y) * s.n[2];
            for (int64_t x = part.lo[2]; x <= part.hi[2]; x++) {
                place px = place_of(x - view.lo[2], window.n[2], o.n[2]);
                real low = between(between(a[px.low], b[px.low], py.weight), between(c[px.low], d[px.low], py.weight),
                                   pz.weight);
                real high = between(between(a[px.high], b[px.high], py.weight),
                                    between(c[px.high], d[px.high], py.weight), pz.weight);
                to[x] = between(low, high, px.weight);
            }
        }
}

vol_box vol_resize_box(vol_box b, vol_shape s, vol_shape o) {
    if (vol_box_is_empty(b)) return vol_box_none();
    vol_box out = vol_box_none();
    for (int k = 0; k < 3; k++) {
        for (int64_t i = 0; i < o.n[k]; i++) {
            int64_t source = vol_nearest_source(i, s.n[k], o.n[k]);
            if (source < b.lo[k] || source > b.hi[k]) continue;
            if (out.lo[k] < 0) out.lo[k] = i;
            out.hi[k] = i;
        }
        /* A thin box can fall between the sources: the resized cube has no voxel. */
        if (out.lo[k] < 0) return vol_box_none();
    }
    return out;
}

void vol_fill(real *volume, vol_shape s, vol_box b, real value) {
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) volume[(z * s.n[1] + y) * s.n[2] + x] = value;
}

void vol_crop(const real *in, vol_shape s, vol_box b, real *out) {
    assert(!vol_box_is_empty(b) && b.hi[0] < s.n[0] && b.hi[1] < s.n[1] && b.hi[2] < s.n[2]);
    vol_shape o = vol_box_shape(b);
    for (int64_t z = 0; z < o.n[0]; z++)
        for (int64_t y = 0; y < o.n[1]; y++) {
            const real *row = in + ((z + b.lo[0]) * s.n[1] + y + b.lo[1]) * s.n[2] + b.lo[2];
            memcpy(out + (z * o.n[1] + y) * o.n[2], row, (size_t)o.n[2] * sizeof *out);
        }
}
