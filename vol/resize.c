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
