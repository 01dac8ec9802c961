/* Surface metrics as the challenge's tool defines them (DeepMind's surface-distance, in SurfaceDice.py): the surface lies on
   the corners between voxels. A corner's code says which of the eight voxels around it are inside; it belongs to the
   surface unless none or all are, and counts with the area that marching cubes puts into its cell. Distances run from
   corner to corner. */
#include <math.h>
#include <string.h>

#include "vol.h"

enum { CODES = 256, FLAT_CODES = 16, MAX_LOOP = 6 };

/* ---- areas of a cell, from geometry --------------------------------------------------------------------------- */

/* The cell's vertices are the eight voxels (z,y,x) in {0,1}³. Points are given in half voxels, so that a vertex has even
   coordinates and the middle of an edge one odd; 9z + 3y + x numbers them. */
typedef struct point {
    int at[3];
} point;

static int number_of(point p) { return 9 * p.at[0] + 3 * p.at[1] + p.at[2]; }

static point point_of(int number) { return (point){{number / 9, number / 3 % 3, number % 3}}; }

static int middle(point a, point b) {
    for (int k = 0; k < 3; k++) a.at[k] = (a.at[k] + b.at[k]) / 2;
    return number_of(a);
}

/* The neighbour code's bit of a vertex: 7 for (0,0,0), 0 for (1,1,1). */
static bool is_set(unsigned code, point v) { return code >> (7 - (2 * v.at[0] + v.at[1] + v.at[2] / 2)) & 1; }

/* The vertices of the face at `side` (0, 2) of an axis, counter-clockwise seen from outside. */
static void face_vertices(int axis, int side, point v[4]) {
    static const int round[4][2] = {{0, 0}, {2, 0}, {2, 2}, {0, 2}};
    for (int i = 0; i < 4; i++) {
        const int *corner = round[side ? i : 3 - i];
        v[i].at[axis] = side;
        v[i].at[(axis + 1) % 3] = corner[0];
        v[i].at[(axis + 2) % 3] = corner[1];
    }
}

/* Where the surface crosses the faces. Of the vertices, those of the rarer kind (the inside ones when there are four of
   each) are cut off: on every face, each stretch of such neighbours gets a line from the edge before it to the edge
   behind. So two of them across a diagonal stay apart. An edge is entered by a line of one of its faces and left by one
   of the other: next[] leads round the polygons. −1: not crossed. */
static void cross_faces(unsigned code, int next[27]) {
    unsigned inside = 0;
    for (int bit = 0; bit < 8; bit++) inside += code >> bit & 1;
    unsigned rare = inside > 4 ? ~code : code;
    for (int i = 0; i < 27; i++) next[i] = -1;
    for (int face = 0; face < 6; face++) {
        point v[4];
        face_vertices(face / 2, face % 2 * 2, v);
        for (int i = 0; i < 4; i++) {
            if (!is_set(rare, v[i]) || is_set(rare, v[(i + 3) % 4])) continue;
            int last = i; /* of the stretch that begins at i */
            while (is_set(rare, v[(last + 1) % 4])) last++;
            next[middle(v[(i + 3) % 4], v[i])] = middle(v[last % 4], v[(last + 1) % 4]);
        }
    }
}

/* Area of a triangle of points, a voxel being `size` (z,y,x) large. */
static double triangle_area(point a, point b, point c, const double size[3]) {
    double p[3], q[3], sum = 0;
    for (int k = 0; k < 3; k++) p[k] = (b.at[k] - a.at[k]) / 2.0, q[k] = (c.at[k] - a.at[k]) / 2.0;
    for (int k = 0; k < 3; k++) {
        int u = (k + 1) % 3, v = (k + 2) % 3;
        double n = (p[u] * q[v] - p[v] * q[u]) / 2 * size[u] * size[v];
        sum += n * n;
    }
    return sqrt(sum);
}

static double fan_area(const point *p, int n, int start, const double size[3]) {
    double area = 0;
    for (int i = 1; i + 1 < n; i++) area += triangle_area(p[start], p[(start + i) % n], p[(start + i + 1) % n], size);
    return area;
}

/* A polygon of three to six points need not be flat, so its area hangs on the triangles it is cut into. The tool's table
   has a hexagon's alternate points as one triangle with three around it, and the fan with the largest area (for cubic
   voxels) of all others; where these rules leave a choice, the areas are the same. */
static double polygon_area(const point *p, int n, const double size[3]) {
    static const double cubic[3] = {1, 1, 1};
    if (n == MAX_LOOP) {
        double area = triangle_area(p[0], p[2], p[4], size);
        for (int i = 0; i < MAX_LOOP; i += 2) area += triangle_area(p[i], p[i + 1], p[(i + 2) % MAX_LOOP], size);
        return area;
    }
    int best = 0;
    for (int start = 1; start < n; start++)
        if (fan_area(p, n, start, cubic) > fan_area(p, n, best, cubic) + 1e-9) best = start;
    return fan_area(p, n, best, size);
}

void vol_surface_areas(const double spacing[3], double area[CODES]) {
    for (unsigned code = 0; code < CODES; code++) {
        int next[27];
        area[code] = 0;
        cross_faces(code, next);
        for (int first = 0; first < 27; first++) {
            point loop[MAX_LOOP];
            int n = 0;
            for (int at = first; next[at] >= 0 && n < MAX_LOOP; n++) {
                int following = next[at];
                loop[n] = point_of(at);
                next[at] = -1;
                at = following;
            }
            if (n > 0) area[code] += polygon_area(loop, n, spacing);
        }
    }
}

/* The same for a slice: how long the contour is in a cell of four pixels, bits 3 to 0 for (0,0) (0,1) (1,0) (1,1). A
   straight contour counts in full, one round a corner with the cut, two pixels across a diagonal with two cuts. */
void vol_contour_lengths(const double spacing[2], double length[FLAT_CODES]) {
    double cut = sqrt(spacing[0] * spacing[0] + spacing[1] * spacing[1]) / 2;
    for (unsigned code = 0; code < FLAT_CODES; code++) {
        bool a = code >> 3 & 1, b = code >> 2 & 1, c = code >> 1 & 1, d = code & 1;
        bool along_y = a == c && b == d && a != b, along_x = a == b && c == d && a != c;
        bool diagonal = a == d && b == c && a != b, none = a == b && b == c && c == d;
        length[code] = along_y ? spacing[0] : along_x ? spacing[1] : diagonal ? 2 * cut : none ? 0 : cut;
    }
}

/* ---- the corners of two masks ---------------------------------------------------------------------------------- */

/* What a measurement takes: all of it for the corners of a box, one more along an axis than voxels. */
typedef struct workspace {
    uint8_t *padded;  /* the box of a mask with a voxel of nothing around it, 0 or 1 */
    uint8_t *code[2]; /* of the corners of truth and prediction; later the list of a surface's classes */
    uint8_t *away[2]; /* 0 on the surface of truth or prediction */
    double *distance; /* the list of a surface's */
    void *scratch;    /* of the distances */
} workspace;

static vol_shape corners_of(vol_shape box, bool flat) {
    for (int k = flat ? 1 : 0; k < 3; k++) box.n[k]++;
    return box;
}

static workspace take_workspace(nn_arena *a, vol_shape box, bool flat, int threads) {
    vol_shape c = corners_of(box, flat), p = corners_of(c, flat);
    size_t padded = nn_times(nn_times((size_t)p.n[0], (size_t)p.n[1]), (size_t)p.n[2]);
    workspace w;
    w.padded = nn_arena_take(a, padded, 1);
    bool fits = padded < SIZE_MAX; /* then so do the fewer corners */
    size_t corners = fits ? vol_count(c) : 0;
    for (int i = 0; i < 2; i++) w.code[i] = nn_arena_take(a, corners, 1);
    for (int i = 0; i < 2; i++) w.away[i] = nn_arena_take(a, corners, 1);
    w.distance = nn_arena_take(a, corners, sizeof *w.distance);
    w.scratch = nn_arena_take(a, vol_distance_between_scratch(c, threads), 1);
    return w;
}

size_t vol_surface_bytes(vol_shape s, bool flat, int threads) {
    nn_arena count = {0};
    for (int k = 0; k < 3; k++)
        if (s.n[k] > INT32_MAX) return SIZE_MAX;
    take_workspace(&count, s, flat, threads);
    return count.failed ? SIZE_MAX : count.used;
}

/* padded = the box of a mask (s) with zeros around, as 0 and 1. */
static void pad_box(const uint8_t *mask, vol_shape s, vol_box box, bool flat, uint8_t *padded, int threads) {
    vol_shape b = vol_box_shape(box), p = corners_of(corners_of(b, flat), flat);
    int64_t front = flat ? 0 : 1;
    (void)threads;
    memset(padded, 0, vol_count(p));
#pragma omp parallel for num_threads(threads)
    for (int64_t z = 0; z < b.n[0]; z++)
        for (int64_t y = 0; y < b.n[1]; y++) {
            const uint8_t *in = mask + ((box.lo[0] + z) * s.n[1] + box.lo[1] + y) * s.n[2] + box.lo[2];
            uint8_t *out = padded + ((z + front) * p.n[1] + y + 1) * p.n[2] + 1;
            for (int64_t x = 0; x < b.n[2]; x++) out[x] = in[x] != 0;
        }
}

/* code of every corner (c), of the four rows of voxels around a row of corners, two neighbours each; and away. */
static void encode(const uint8_t *padded, vol_shape c, bool flat, uint8_t *code, uint8_t *away, int threads) {
    int64_t width = c.n[2] + 1, slice = flat ? 0 : (c.n[1] + 1) * width;
    uint8_t full = flat ? FLAT_CODES - 1 : CODES - 1; /* without a slice before it the code is that of the last four */
    (void)threads;
#pragma omp parallel for num_threads(threads)
    for (int64_t z = 0; z < c.n[0]; z++)
        for (int64_t y = 0; y < c.n[1]; y++) {
            const uint8_t *p = padded + z * slice + y * width, *q = p + width, *r = p + slice, *t = q + slice;
            uint8_t *out = code + (z * c.n[1] + y) * c.n[2], *off = away + (out - code);
#pragma omp simd
            for (int64_t x = 0; x < c.n[2]; x++) {
                uint8_t before = (uint8_t)(8 * p[x] + 4 * p[x + 1] + 2 * q[x] + q[x + 1]);
                uint8_t behind = (uint8_t)(8 * r[x] + 4 * r[x + 1] + 2 * t[x] + t[x + 1]);
                uint8_t both = (uint8_t)(16 * before + behind) & full;
                out[x] = both;
                off[x] = (both == 0) | (both == full);
            }
        }
}

/* ---- a surface's distances, sorted ------------------------------------------------------------------------------ */

/* n corners; class[i] is the rank of corner i's area among all areas, area[] the areas by rank. */
typedef struct surface {
    double *distance;
    uint8_t *class;
    size_t n;
    double area[CODES];
} surface;

static void swap(surface *s, size_t i, size_t j) {
    double d = s->distance[i];
    uint8_t c = s->class[i];
    s->distance[i] = s->distance[j], s->class[i] = s->class[j];
    s->distance[j] = d, s->class[j] = c;
}

/* Sorts [lo, hi) by distance, then area. In place and in three parts, because many are equal; the pivot is taken from a
   place that hops about, so that no regular surface makes it slow. */
static void sort(surface *s, size_t lo, size_t hi) {
    for (size_t hop = 0x9E3779B9U; hi - lo > 1; hop = hop * 69069 + 1) {
        size_t pivot = lo + (hop >> 8) % (hi - lo), less = lo, more = hi;
        double d = s->distance[pivot];
        uint8_t c = s->class[pivot];
        for (size_t i = lo; i < more;) {
            if (s->distance[i] < d || (s->distance[i] == d && s->class[i] < c)) swap(s, less++, i++);
            else if (s->distance[i] == d && s->class[i] == c) i++;
            else swap(s, i, --more);
        }
        if (less - lo < hi - more) { /* the smaller part by recursion: no deeper than log2(n) */
            sort(s, lo, less);
            lo = more;
        } else {
            sort(s, more, hi);
            hi = less;
        }
    }
}

static double weight(const surface *s, size_t i, bool by_distance) {
    double area = s->area[s->class[i]];
    return by_distance ? s->distance[i] * area : area;
}

/* Sum of the areas, or of distance times area, over [from, from + n): in numpy's order (eight running sums over at most
   128 terms, longer stretches in halves), so that a percentile that falls on a step falls on the tool's side of it. */
static double sum(const surface *s, size_t from, size_t n, bool by_distance) {
    enum { LANES = 8, BLOCK = 128 };
    if (n > BLOCK) {
        size_t half = n / 2 - n / 2 % LANES;
        return sum(s, from, half, by_distance) + sum(s, from + half, n - half, by_distance);
    }
    double total = 0, lane[LANES];
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i++)
        lane[i % LANES] = (i < LANES ? 0 : lane[i % LANES]) + weight(s, from + i, by_distance);
    if (whole > 0) total = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    for (size_t i = whole; i < n; i++) total += weight(s, from + i, by_distance);
    return total;
}

/* The distance that `share` of the area does not exceed. */
static double percentile(const surface *s, double share, double total) {
    double running = 0;
    for (size_t i = 0; i < s->n; i++) {
        running += s->area[s->class[i]];
        if (running / total >= share) return s->distance[i];
    }
    return s->distance[s->n - 1];
}

/* area: of the codes. Makes its ranks: class_of[code], and s->area. */
static void rank_areas(const double *area, size_t codes, surface *s, uint8_t class_of[CODES]) {
    for (size_t i = 0; i < codes; i++) {
        size_t rank = 0;
        for (size_t j = 0; j < codes; j++) rank += area[j] < area[i] || (j < i && area[j] == area[i]);
        s->area[rank] = area[i];
        class_of[i] = (uint8_t)rank;
    }
    for (size_t i = 0; i < codes; i++) /* equal areas are one class */
        while (class_of[i] > 0 && s->area[class_of[i] - 1] == area[i]) class_of[i]--;
}

/* Moves the codes (n) of the corners on the surface to the front, as classes. */
static void gather(uint8_t *code, const uint8_t *away, size_t n, const uint8_t class_of[CODES]) {
    uint8_t *class = code;
    for (size_t i = 0; i < n; i++)
        if (!away[i]) *class ++ = class_of[code[i]];
}

/* ---- the metrics ------------------------------------------------------------------------------------------------ */

static void count_voxels(const uint8_t *truth, const uint8_t *prediction, size_t n, vol_surface *out) {
    uint64_t t = 0, p = 0, both = 0;
    for (size_t i = 0; i < n; i++) {
        t += truth[i] != 0;
        p += prediction[i] != 0;
        both += (truth[i] != 0) & (prediction[i] != 0);
    }
    out->truth = t, out->prediction = p, out->both = both;
    out->undefined = t == 0 && p == 0 ? VOL_BOTH_EMPTY
                     : t == 0         ? VOL_TRUTH_EMPTY
                     : p == 0         ? VOL_PREDICTION_EMPTY
                                      : VOL_DEFINED;
}

/* What one surface says about the other. */
typedef struct side {
    double area, near, average, hd95, hd;
} side;

static side judge(const surface *s, double tolerance) {
    side r = {.area = sum(s, 0, s->n, false)};
    size_t within = 0;
    while (within < s->n && s->distance[within] <= tolerance) within++;
    r.near = sum(s, 0, within, false);
    r.average = sum(s, 0, s->n, true) / r.area;
    r.hd95 = percentile(s, 95 / 100.0, r.area);
    r.hd = s->distance[s->n - 1];
    return r;
}

static double larger(double a, double b) { return a > b ? a : b; }

static void measure(const vol_surface_request *q, const workspace *w, vol_shape corners, vol_surface *out) {
    const double spacing[3] = {q->flat ? 1 : q->spacing[0], q->spacing[1], q->spacing[2]};
    size_t n = vol_count(corners), codes = q->flat ? FLAT_CODES : CODES;
    double area[CODES];
    uint8_t class_of[CODES];
    surface s = {0};
    side sides[2];
    if (q->flat) vol_contour_lengths(q->spacing + 1, area);
    else vol_surface_areas(q->spacing, area);
    rank_areas(area, codes, &s, class_of);
    for (int i = 0; i < 2; i++) {
        s.n = vol_distance_between(w->away[i], w->away[1 - i], corners, spacing, q->threads, w->scratch, w->distance);
        gather(w->code[i], w->away[i], n, class_of);
        s.distance = w->distance, s.class = w->code[i];
        for (size_t k = 0; k < s.n; k++) s.distance[k] = sqrt(s.distance[k]);
        sort(&s, 0, s.n);
        sides[i] = judge(&s, q->tolerance);
    }
    out->asd_truth = sides[0].average, out->asd_prediction = sides[1].average;
    out->hd95 = larger(sides[0].hd95, sides[1].hd95);
    out->hd = larger(sides[0].hd, sides[1].hd);
    out->overlap_truth = sides[0].near / sides[0].area, out->overlap_prediction = sides[1].near / sides[1].area;
    out->nsd = (sides[0].near + sides[1].near) / (sides[0].area + sides[1].area);
}

vol_box vol_surface_box(const uint8_t *truth, const uint8_t *prediction, vol_shape s) {
    return vol_box_union(vol_mask_bounds(truth, s), vol_mask_bounds(prediction, s));
}

void vol_surface_measure(const uint8_t *truth, const uint8_t *prediction, const vol_surface_request *q, void *memory,
                         vol_surface *out) {
    const double undefined = (double)NAN;
    *out = (vol_surface){.dice = undefined,
                         .nsd = undefined,
                         .hd95 = undefined,
                         .hd = undefined,
                         .asd_truth = undefined,
                         .asd_prediction = undefined,
                         .overlap_truth = undefined,
                         .overlap_prediction = undefined};
    count_voxels(truth, prediction, vol_count(q->shape), out);
    if (out->undefined == VOL_BOTH_EMPTY) return;
    out->dice = 2 * (double)out->both / (double)(out->truth + out->prediction);
    if (out->undefined != VOL_DEFINED) { /* nothing of the surface that there is lies near the other */
        out->nsd = 0;
        *(out->truth > 0 ? &out->overlap_truth : &out->overlap_prediction) = 0;
        return;
    }
    nn_arena arena = {memory, SIZE_MAX, 0, false};
    vol_box box = vol_surface_box(truth, prediction, q->shape);
    vol_shape corners = corners_of(vol_box_shape(box), q->flat);
    workspace w = take_workspace(&arena, vol_box_shape(box), q->flat, q->threads);
    for (int i = 0; i < 2; i++) {
        pad_box(i == 0 ? truth : prediction, q->shape, box, q->flat, w.padded, q->threads);
        encode(w.padded, corners, q->flat, w.code[i], w.away[i], q->threads);
    }
    measure(q, &w, corners, out);
    nn_arena_leave(memory, arena.used);
}
