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
    nn_arena_leave(scratch, nn_times(each, (size_t)threads));
}

/* ---- distances of some voxels only ------------------------------------------------------------------------------- */

/* Most voxels that ask are near a target, so they look around themselves; only where that turns out dear is a plane
   transformed as above. */
enum {
    LOOKS = 16, /* per voxel of a plane: as dear as its transform */
    TRIAL = 1   /* per voxel, after which it is judged how many there will be */
};

typedef struct between {
    vol_shape shape;
    const double *spacing;
    int32_t *steps;    /* (shape): along z to the nearest target; the length of the axis where there is none */
    double *square[3]; /* (n + 1): (i·spacing)² along each axis; infinity at the end of z's */
    size_t *first;     /* (planes + 1): number of the voxels that ask before each plane */
    size_t each;       /* bytes that each thread has in per_thread */
    unsigned char *per_thread;
} between;

/* What one thread works with. */
static double *take_plane(nn_arena *a, vol_shape s, lines *l) {
    *l = take_lines(a, s);
    return nn_arena_take(a, nn_times((size_t)s.n[1], (size_t)s.n[2]), sizeof(double));
}

static between take_between(nn_arena *a, vol_shape s, int threads) {
    between b = {.shape = s};
    nn_arena one = {0};
    lines l;
    take_plane(&one, s, &l);
    b.each = one.failed ? SIZE_MAX : one.used;
    b.steps = nn_arena_take(a, nn_times(nn_times((size_t)s.n[0], (size_t)s.n[1]), (size_t)s.n[2]), sizeof *b.steps);
    for (int k = 0; k < 3; k++) b.square[k] = nn_arena_take(a, nn_plus((size_t)s.n[k], 1), sizeof(double));
    b.first = nn_arena_take(a, nn_plus((size_t)s.n[0], 1), sizeof *b.first);
    b.per_thread = nn_arena_take(a, nn_times(b.each, (size_t)threads), 1);
    return b;
}

size_t vol_distance_between_scratch(vol_shape s, int threads) {
    nn_arena count = {0};
    take_between(&count, s, threads);
    return count.failed || s.n[0] >= INT32_MAX ? SIZE_MAX : count.used;
}

/* count_steps in whole numbers, with the length of the axis for infinity. */
static void count_whole_steps(const uint8_t *mask, int32_t depth, int64_t plane, int64_t n, int32_t *out) {
    for (int64_t x = 0; x < n; x++) out[x] = mask[x] ? depth : 0;
    for (int64_t z = 1; z < depth; z++) {
        const uint8_t *m = mask + z * plane;
        int32_t *row = out + z * plane;
        for (int64_t x = 0; x < n; x++) {
            int32_t more = row[x - plane] < depth ? row[x - plane] + 1 : depth;
            row[x] = m[x] ? more : 0;
        }
    }
    for (int64_t z = depth - 2; z >= 0; z--) {
        int32_t *row = out + z * plane;
        for (int64_t x = 0; x < n; x++) row[x] = row[x + plane] + 1 < row[x] ? row[x + plane] + 1 : row[x];
    }
}

/* The least of `best` and what the row gives, looking from x one way from near to far, as long as that can be less. dy:
   squared distance in y. */
static double search_row(const between *b, const int32_t *row, int64_t x, int64_t way, double dy, double best,
                         int64_t *looks) {
    int64_t i = way < 0 ? 1 : 0, end = way < 0 ? x + 1 : b->shape.n[2] - x;
    for (; i < end && dy + b->square[2][i] < best; i++) {
        double d = b->square[0][row[x + way * i]] + dy + b->square[2][i]; /* in the order of transform_line */
        best = d < best ? d : best;
    }
    *looks += i + 1;
    return best;
}

static double search_plane(const between *b, const int32_t *plane, int64_t y, int64_t x, int64_t *looks) {
    double best = b->square[0][plane[y * b->shape.n[2] + x]];
    for (int64_t i = 0; i < b->shape.n[1] && b->square[1][i] < best; i++)
        for (int way = i > 0 ? -1 : 1; way <= 1; way += 2) {
            int64_t v = y + way * i;
            if (v < 0 || v >= b->shape.n[1]) continue;
            best = search_row(b, plane + v * b->shape.n[2], x, 1, b->square[1][i], best, looks);
            best = search_row(b, plane + v * b->shape.n[2], x, -1, b->square[1][i], best, looks);
        }
    return best;
}

/* Zeros among n bytes. */
static size_t count_zeros(const uint8_t *bytes, size_t n) {
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++) zeros += bytes[i] == 0;
    return zeros;
}

/* out: of the `asking` voxels of plane z that ask, in raster order. Once a few have looked around, it is known whether the
   plane had better be transformed. */
static void answer_plane(const between *b, const uint8_t *from, int64_t z, size_t asking, nn_arena own, double *out) {
    int64_t nx = b->shape.n[2], n = b->shape.n[1] * nx, looks = 0;
    const int32_t *steps = b->steps + z * n;
    lines l;
    double *whole = take_plane(&own, b->shape, &l);
    bool transformed = false;
    const uint8_t *next = from + z * n;
    for (size_t i = 0; i < asking; i++, next++) {
        next = memchr(next, 0, (size_t)(from + (z + 1) * n - next));
        int64_t at = next - (from + z * n);
        if (!transformed && looks > TRIAL * n &&
            (double)looks * (double)asking > (double)LOOKS * (double)n * (double)i) {
            for (int64_t k = 0; k < n; k++) whole[k] = steps[k] < b->shape.n[0] ? (double)steps[k] : (double)INFINITY;
            transform_plane(whole, b->shape.n[1], nx, b->spacing, &l);
            transformed = true;
        }
        out[i] = transformed ? whole[at] : search_plane(b, steps, at / nx, at % nx, &looks);
    }
}

size_t vol_distance_between(const uint8_t *from, const uint8_t *to, vol_shape s, const double spacing[3], int threads,
                            void *scratch, double *out) {
    nn_arena arena = {scratch, SIZE_MAX, 0, false};
    between b = take_between(&arena, s, threads);
    int64_t plane = s.n[1] * s.n[2];
    b.spacing = spacing;
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i <= s.n[k]; i++) b.square[k][i] = ((double)i * spacing[k]) * ((double)i * spacing[k]);
    b.square[0][s.n[0]] = (double)INFINITY;
    threads = nn_team(threads, vol_count(s));
#pragma omp parallel for num_threads(threads)
    for (int64_t y = 0; y < s.n[1]; y++)
        count_whole_steps(to + y * s.n[2], (int32_t)s.n[0], plane, s.n[2], b.steps + y * s.n[2]);
#pragma omp parallel for num_threads(threads)
    for (int64_t z = 0; z < s.n[0]; z++) b.first[z + 1] = count_zeros(from + z * plane, (size_t)plane);
    b.first[0] = 0;
    for (int64_t z = 0; z < s.n[0]; z++) b.first[z + 1] += b.first[z];
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t z = 0; z < s.n[0]; z++) {
        nn_arena own = {b.per_thread + nn_thread() * b.each, b.each, 0, false};
        answer_plane(&b, from, z, b.first[z + 1] - b.first[z], own, out + b.first[z]);
    }
    size_t asking = b.first[s.n[0]];
    nn_arena_leave(scratch, arena.used);
    return asking;
}
