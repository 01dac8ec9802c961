/* Windows that follow a box: what they show of a volume, with which contrast, and the way back. */
#include <math.h>

#include "vol.h"

/* ---- into the window ----------------------------------------------------------------------------------------- */

vol_cell vol_cell_of(int64_t i, int64_t n, int64_t window) {
    vol_cell c = {.begin = i * n, .end = (i + 1) * n, .window = window};
    c.first = c.begin / window, c.last = (c.end - 1) / window;
    return c;
}

int64_t vol_cell_share(const vol_cell *c, int64_t from, int64_t to) {
    int64_t begin = from * c->window, end = (to + 1) * c->window;
    if (begin < c->begin) begin = c->begin;
    if (end > c->end) end = c->end;
    return end > begin ? end - begin : 0;
}

/* in: of the view's corner. */
static real cell_mean(const real *in, vol_shape s, const vol_cell c[3]) {
    double sum = 0, whole = 1;
    for (int k = 0; k < 3; k++) whole *= (double)(c[k].end - c[k].begin);
    for (int64_t z = c[0].first; z <= c[0].last; z++) {
        double along_z = (double)vol_cell_share(&c[0], z, z);
        for (int64_t y = c[1].first; y <= c[1].last; y++) {
            const real *row = in + (z * s.n[1] + y) * s.n[2];
            double line = 0;
            for (int64_t x = c[2].first; x <= c[2].last; x++)
                line += (double)vol_cell_share(&c[2], x, x) * (double)row[x];
            sum += along_z * (double)vol_cell_share(&c[1], y, y) * line;
        }
    }
    return (real)(sum / whole);
}

void vol_zoom(const real *in, vol_shape s, vol_box view, real *out, vol_shape window, int threads) {
    vol_shape o = vol_box_shape(view);
    const real *corner = in + (view.lo[0] * s.n[1] + view.lo[1]) * s.n[2] + view.lo[2];
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = 0; z < window.n[0]; z++)
        for (int64_t y = 0; y < window.n[1]; y++) {
            vol_cell c[3] = {vol_cell_of(z, o.n[0], window.n[0]), vol_cell_of(y, o.n[1], window.n[1])};
            real *to = out + (z * window.n[1] + y) * window.n[2];
            for (int64_t x = 0; x < window.n[2]; x++) {
                c[2] = vol_cell_of(x, o.n[2], window.n[2]);
                to[x] = cell_mean(corner, s, c);
            }
        }
}

void vol_zoom_point(const int64_t at[3], vol_box view, vol_shape window, int64_t to[3]) {
    vol_shape o = vol_box_shape(view);
    for (int k = 0; k < 3; k++) to[k] = (2 * (at[k] - view.lo[k]) + 1) * window.n[k] / (2 * o.n[k]);
}

vol_box vol_zoom_box(vol_box b, vol_box view, vol_shape window) {
    vol_box out = vol_box_intersect(b, view);
    if (vol_box_is_empty(out)) return out;
    b = out;
    vol_zoom_point(b.lo, view, window, out.lo);
    vol_zoom_point(b.hi, view, window, out.hi);
    return out;
}

/* ---- contrast ------------------------------------------------------------------------------------------------ */

/* Mean and mean square of some voxels. */
typedef struct moments {
    double sum, squares;
    size_t count;
} moments;

static void add_value(moments *m, double v) {
    m->sum += v;
    m->squares += v * v;
    m->count++;
}

static double mean_of(const moments *m) { return m->count > 0 ? m->sum / (double)m->count : 0; }

static double deviation_of(const moments *m) {
    double mean = mean_of(m), variance = m->count > 0 ? m->squares / (double)m->count - mean * mean : 0;
    return variance > 0 ? sqrt(variance) : 0;
}

/* Squared distance from the middle of a box along one axis, in half its extents. */
static double away(int64_t i, int64_t lo, int64_t hi) {
    double d = (double)(2 * i - lo - hi) / (double)(hi - lo + 1);
    return d * d;
}

void vol_contrast(real *image, vol_shape s, vol_box box) {
    moments core = {0}, outside = {0}, all = {0};
    const real *p = image;
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++) {
            double from = away(z, box.lo[0], box.hi[0]) + away(y, box.lo[1], box.hi[1]);
            for (int64_t x = 0; x < s.n[2]; x++) {
                double distance = from + away(x, box.lo[2], box.hi[2]), v = (double)*p++;
                add_value(&all, v);
                if (distance < VOL_CONTRAST_CORE * VOL_CONTRAST_CORE) add_value(&core, v);
                if (distance > 1) add_value(&outside, v);
            }
        }
    if (core.count == 0) core = all;
    double middle = mean_of(&core), unit = deviation_of(&core) + VOL_CONTRAST_FLOOR * deviation_of(&all);
    double sign = outside.count > 0 && middle < mean_of(&outside) ? -1 : 1;
    for (size_t i = 0; i < vol_count(s); i++) {
        double d = unit > 0 ? sign * ((double)image[i] - middle) / unit : 0;
        image[i] = (real)(d / (1 + fabs(d) / VOL_CONTRAST_LIMIT));
    }
}

/* ---- and back ------------------------------------------------------------------------------------------------ */

/* Where a point of an axis lies among values: between low and low + 1, `weight` of the way. */
typedef struct place {
    int64_t low, high;
    real weight;
} place;

static place place_at(double at, int64_t n) {
    if (at < 0) at = 0;
    if (at > (double)(n - 1)) at = (double)(n - 1);
    int64_t low = (int64_t)at;
    return (place){low, low + (low + 1 < n), (real)(at - (double)low)};
}

/* Of voxel i of `out` voxels along an axis, among `in` values. */
static place place_of(int64_t i, int64_t in, int64_t out) {
    return place_at(((double)i + 0.5) * (double)in / (double)out - 0.5, in);
}

static real blend(real a, real b, real weight) { return a + (b - a) * weight; }

/* The four lines of values between which a line of a volume lies. */
typedef struct bundle {
    const real *a, *b, *c, *d;
    place z, y;
} bundle;

static bundle bundle_of(const real *values, vol_shape s, place z, place y) {
    return (bundle){.a = values + (z.low * s.n[1] + y.low) * s.n[2],
                    .b = values + (z.low * s.n[1] + y.high) * s.n[2],
                    .c = values + (z.high * s.n[1] + y.low) * s.n[2],
                    .d = values + (z.high * s.n[1] + y.high) * s.n[2],
                    .z = z,
                    .y = y};
}

static real trilinear(const bundle *l, place x) {
    real low =
        blend(blend(l->a[x.low], l->b[x.low], l->y.weight), blend(l->c[x.low], l->d[x.low], l->y.weight), l->z.weight);
    real high = blend(blend(l->a[x.high], l->b[x.high], l->y.weight), blend(l->c[x.high], l->d[x.high], l->y.weight),
                      l->z.weight);
    return blend(low, high, x.weight);
}

void vol_unzoom(const real *values, vol_shape window, vol_box view, vol_box part, vol_shape s, int threads,
                real *volume) {
    if (vol_box_is_empty(part)) return;
    vol_shape o = vol_box_shape(view);
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = part.lo[0]; z <= part.hi[0]; z++)
        for (int64_t y = part.lo[1]; y <= part.hi[1]; y++) {
            bundle lines = bundle_of(values, window, place_of(z - view.lo[0], window.n[0], o.n[0]),
                                     place_of(y - view.lo[1], window.n[1], o.n[1]));
            real *to = volume + (z * s.n[1] + y) * s.n[2];
            for (int64_t x = part.lo[2]; x <= part.hi[2]; x++)
                to[x] = trilinear(&lines, place_of(x - view.lo[2], window.n[2], o.n[2]));
        }
}

/* Of voxel i of n in a window over the view `to`, among the n of one over the view `from`. */
static place place_between(int64_t i, int64_t n, int axis, vol_box to, vol_box from) {
    double extent = (double)(to.hi[axis] - to.lo[axis] + 1), from_extent = (double)(from.hi[axis] - from.lo[axis] + 1);
    double at = (double)(to.lo[axis] - from.lo[axis]) * (double)n + ((double)i + 0.5) * extent;
    return place_at(at / from_extent - 0.5, n);
}

void vol_rezoom(const real *values, vol_shape window, vol_box from, vol_box to, int threads, real *sum) {
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads)
    for (int64_t z = 0; z < window.n[0]; z++)
        for (int64_t y = 0; y < window.n[1]; y++) {
            bundle lines = bundle_of(values, window, place_between(z, window.n[0], 0, to, from),
                                     place_between(y, window.n[1], 1, to, from));
            real *line = sum + (z * window.n[1] + y) * window.n[2];
            for (int64_t x = 0; x < window.n[2]; x++)
                line[x] += trilinear(&lines, place_between(x, window.n[2], 2, to, from));
        }
}
