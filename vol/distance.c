/* The exact Euclidean distance transform in linear time: one axis after the other, each line the lower envelope of the
   parabolas that stand on its voxels (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012). */
#include <math.h>
#include <string.h>

#include "vol.h"

enum { COLUMNS = 8 }; /* of a plane that are gathered together: a cache line of doubles */

/* What one thread works with. */
typedef struct lines {
    double *before, *after; /* (COLUMNS, longest): squared distances without and with the line's own axis */
    double *height;         /* (longest): of a parabola at index 0, in squared voxels */
    double *from;           /* (longest): where a parabola of the envelope begins to be the lowest */
    int64_t *apex;          /* (longest): the voxel it stands on */
} lines;

static lines take_lines(nn_arena *a, vol_shape s) {
    size_t longest = (size_t)(s.n[1] > s.n[2] ? s.n[1] : s.n[2]); /* of the axes that have lines */
    lines l;
    l.before = nn_arena_take(a, nn_times(longest, COLUMNS), sizeof *l.before);
    l.after = nn_arena_take(a, nn_times(longest, COLUMNS), sizeof *l.after);
    l.height = nn_arena_take(a, longest, sizeof *l.height);
    l.from = nn_arena_take(a, longest, sizeof *l.from);
    l.apex = nn_arena_take(a, longest, sizeof *l.apex);
    return l;
}

size_t vol_distance_scratch(vol_shape s, int threads) {
    nn_arena one = {0};
    take_lines(&one, s);
    return one.failed ? SIZE_MAX : nn_times(one.used, (size_t)threads);
}

/* The parabolas over f (n), voxels `step` apart, whose lower envelope is the minimum over q of f[q] + (step·(x − q))²;
   returns their number. Voxels at infinity have none. With step 1 all numbers are whole and below 2^53, and a quotient
   that is not whole lies further from the next whole number than its rounding reaches: the envelope is exact. */
static int64_t lower_envelope(const double *f, int64_t n, double step, const lines *l) {
    const double infinity = (double)INFINITY, scale = 1 / (step * step);
    int64_t count = 0;
    for (int64_t q = 0; q < n; q++) {
        if (!(f[q] < infinity)) continue;
        double height = f[q] * scale + (double)(q * q), from = -infinity;
        while (count > 0) {
            from = (height - l->height[count - 1]) / (double)(2 * (q - l->apex[count - 1]));
            if (from > l->from[count - 1]) break;
            from = -infinity;
            count--; /* nowhere the lowest */
        }
        l->apex[count] = q, l->height[count] = height, l->from[count] = from;
        count++;
    }
    return count;
}

/* out (n) = that minimum for every x. */
static void transform_line(const double *f, int64_t n, double step, const lines *l, double *out) {
    double largest = 0;
    for (int64_t x = 0; x < n; x++) largest = f[x] > largest ? f[x] : largest;
    int64_t count = largest > 0 ? lower_envelope(f, n, step, l) : 0;
    if (count == 0) { /* all zero or all at infinity */
        memcpy(out, f, (size_t)n * sizeof *out);
        return;
    }
    for (int64_t x = 0, k = 0; x < n; x++) {
        while (k + 1 < count && l->from[k + 1] < (double)x) k++;
        /* Offset times spacing, squared, added z to y to x: the bits of scipy.ndimage.distance_transform_edt. */
        double offset = (double)(x - l->apex[k]) * step;
        out[x] = f[l->apex[k]] + offset * offset;
    }
}

/* First axis, for one y: out = steps to the nearest zero of the mask before or behind. plane: voxels of a z. */
static void count_steps(const uint8_t *mask, int64_t depth, int64_t plane, int64_t n, double *out) {
    for (int64_t x = 0; x < n; x++) out[x] = mask[x] ? (double)INFINITY : 0;
    for (int64_t z = 1; z < depth; z++) {
        const uint8_t *m = mask + z * plane;
        double *row = out + z * plane;
        for (int64_t x = 0; x < n; x++) row[x] = m[x] ? row[x - plane] + 1 : 0;
    }
    for (int64_t z = depth - 2; z >= 0; z--) {
        double *row = out + z * plane;
        for (int64_t x = 0; x < n; x++) row[x] = row[x + plane] + 1 < row[x] ? row[x + plane] + 1 : row[x];
    }
}

/* Second and third axis, for one z: the plane (ny, nx) holds steps along the first. */
static void transform_plane(double *plane, int64_t ny, int64_t nx, const double spacing[3], const lines *l) {
    for (int64_t x0 = 0; x0 < nx; x0 += COLUMNS) {
        int64_t columns = nx - x0 < COLUMNS ? nx - x0 : COLUMNS;
        for (int64_t y = 0; y < ny; y++)
            for (int64_t c = 0; c < columns; c++) {
                double offset = plane[y * nx + x0 + c] * spacing[0];
                l->before[c * ny + y] = offset * offset;
            }
        for (int64_t c = 0; c < columns; c++) transform_line(l->before + c * ny, ny, spacing[1], l, l->after + c * ny);
        for (int64_t y = 0; y < ny; y++)
            for (int64_t c = 0; c < columns; c++) plane[y * nx + x0 + c] = l->after[c * ny + y];
    }
    for (int64_t y = 0; y < ny; y++) {
        memcpy(l->before, plane + y * nx, (size_t)nx * sizeof *plane);
        transform_line(l->before, nx, spacing[2], l, plane + y * nx);
    }
}

void vol_distance(const uint8_t *mask, vol_shape s, const double spacing[3], int threads, void *scratch, double *out) {
    int64_t plane = s.n[1] * s.n[2];
    size_t each = vol_distance_scratch(s, 1);
    threads = nn_team(threads, vol_count(s));
#pragma omp parallel for num_threads(threads)
    for (int64_t y = 0; y < s.n[1]; y++) count_steps(mask + y * s.n[2], s.n[0], plane, s.n[2], out + y * s.n[2]);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t z = 0; z < s.n[0]; z++) {
        nn_arena own = {(unsigned char *)scratch + nn_thread() * each, each, 0, false};
        lines l = take_lines(&own, s);
        transform_plane(out + z * plane, s.n[1], s.n[2], spacing, &l);
    }
}
