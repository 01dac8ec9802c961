/* Phantoms: shapes as rough signed distances in a box, and the brush that paints them. All in warped space: what is asked
   at a voxel is the position that the warp has moved there. */
#include <math.h>
#include <string.h>

#include "phantom.h"

/* ---- where ---------------------------------------------------------------------------------------------------- */

/* The voxels within `half` of a centre, and the warp's reach. */
static vol_box box_around(const phantom *p, const double centre[3], const double half[3]) {
    vol_box b;
    for (int k = 0; k < 3; k++) {
        double low = floor((centre[k] - half[k] - p->reach[k]) / p->mm[k]) - 1;
        double high = floor((centre[k] + half[k] + p->reach[k]) / p->mm[k]) + 1;
        double last = (double)p->shape.n[k] - 1;
        if (high < 0 || low > last) return vol_box_none();
        b.lo[k] = (int64_t)(low < 0 ? 0 : low);
        b.hi[k] = (int64_t)(high > last ? last : high);
    }
    return b;
}

static size_t row_of(const phantom *p, int64_t z, int64_t y) {
    return (size_t)((z * p->shape.n[1] + y) * p->shape.n[2]);
}

/* The row of a noise field that is `shift` slices and rows further on. */
static const float *noise_row(const phantom *p, const float *field, int64_t shift, int64_t z, int64_t y) {
    return field + row_of(p, (z + shift) % p->shape.n[0], (y + shift) % p->shape.n[1]);
}

static double middle_of(const phantom *p, int axis, int64_t i) { return ((double)i + 0.5) * p->mm[axis]; }

/* ---- blobs ---------------------------------------------------------------------------------------------------- */

static void turn_two(double turn[3][3], int a, int b, double turns) {
    double sine, cosine;
    nn_sin_cos_turns(turns, &sine, &cosine);
    for (int i = 0; i < 3; i++) {
        double u = turn[i][a], v = turn[i][b];
        turn[i][a] = cosine * u - sine * v;
        turn[i][b] = sine * u + cosine * v;
    }
}

void train_turn(phantom *p, double tilt, double turn[3][3]) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) turn[i][j] = i == j;
    turn_two(turn, 1, 2, train_between(p, 0, 1));
    turn_two(turn, 0, 1, train_between(p, -tilt, tilt));
    turn_two(turn, 0, 2, train_between(p, -tilt, tilt));
}

/* A blob as the inner loop wants it: position · m + base = position in radii along the blob's axes. */
typedef struct blob_row {
    float step[3][3], base[3], inverse[3]; /* inverse: 1 / radius */
    float bend, square, rough, fine;
} blob_row;

/* k = |position in radii|, g = its gradient's length: (k − 1)·k/g is the distance near the surface, which for a sphere is
   right everywhere. */
static inline float blob_distance(const blob_row *b, float pz, float py, float px) {
    float u = b->step[0][0] * pz + b->step[0][1] * py + b->step[0][2] * px + b->base[0];
    float v = b->step[1][0] * pz + b->step[1][1] * py + b->step[1][2] * px + b->base[1];
    float w = b->step[2][0] * pz + b->step[2][1] * py + b->step[2][2] * px + b->base[2];
    w += b->bend * (v * v - 0.5f);
    float uu = u * u, vv = v * v, ww = w * w;
    float k2 = (uu + vv + ww) + 1e-6f;
    float g2 = uu * (b->inverse[0] * b->inverse[0]) + vv * (b->inverse[1] * b->inverse[1]) +
               ww * (b->inverse[2] * b->inverse[2]) + 1e-6f * (b->inverse[0] * b->inverse[0]);
    float boxed = sqrtf((uu * uu + vv * vv + ww * ww) + 1e-12f);
    float k = sqrtf(k2 + b->square * (boxed - k2));
    return (k - 1.0f) * sqrtf(k2 / g2);
}

static void blob_line(const blob_row *b, const float at[3], float step, int64_t n, const float *wz, const float *wy,
                      const float *wx, const float *rough, const float *fine, float *out) {
    for (int64_t x = 0; x < n; x++) {
        float d = blob_distance(b, at[0] + wz[x], at[1] + wy[x], (at[2] + step * (float)x) + wx[x]);
        out[x] = d + (b->rough * rough[x] + b->fine * fine[x]);
    }
}

vol_box train_blob(phantom *p, const phantom_blob *blob) {
    blob_row row = {.bend = (float)blob->bend, .square = (float)blob->square};
    double half[3];
    row.rough = (float)blob->rough, row.fine = (float)blob->fine;
    for (int i = 0; i < 3; i++) {
        double sum = 0;
        for (int k = 0; k < 3; k++) sum += blob->turn[k][i] * blob->turn[k][i] * blob->radius[k] * blob->radius[k];
        /* a box's corners lie 2^¼ further out than the ellipsoid's, a bent one's tips half the bend */
        half[i] = sqrt(sum) * (1 + 0.2 * blob->square) + fabs(blob->bend) * 0.6 * blob->radius[2] +
                  3 * (blob->rough + blob->fine) + p->voxel;
        row.inverse[i] = (float)(1 / blob->radius[i]);
        double base = 0;
        for (int k = 0; k < 3; k++) {
            row.step[i][k] = (float)(blob->turn[i][k] / blob->radius[i]);
            base -= blob->turn[i][k] / blob->radius[i] * blob->centre[k];
        }
        row.base[i] = (float)base;
    }
    vol_box b = box_around(p, blob->centre, half);
    if (vol_box_is_empty(b)) return b;
#pragma omp parallel for collapse(2) num_threads(p->threads)
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++) {
            size_t at = row_of(p, z, y) + (size_t)b.lo[2];
            const float from[3] = {(float)middle_of(p, 0, z), (float)middle_of(p, 1, y),
                                   (float)middle_of(p, 2, b.lo[2])};
            blob_line(&row, from, (float)p->mm[2], b.hi[2] - b.lo[2] + 1, p->warp[0] + at, p->warp[1] + at,
                      p->warp[2] + at, noise_row(p, p->rough, blob->shift, z, y) + b.lo[2],
                      noise_row(p, p->fine, blob->shift, z, y) + b.lo[2], p->distance + at);
        }
    return b;
}

/* ---- tubes ---------------------------------------------------------------------------------------------------- */

static vol_box link_box(const phantom *p, const phantom_tube *t, int i) {
    double centre[3], half[3], widest = t->radius[i] > t->radius[i + 1] ? t->radius[i] : t->radius[i + 1];
    for (int k = 0; k < 3; k++) {
        centre[k] = 0.5 * (t->joint[i][k] + t->joint[i + 1][k]);
        half[k] = 0.5 * fabs(t->joint[i][k] - t->joint[i + 1][k]) + widest + 2 * p->voxel;
    }
    return box_around(p, centre, half);
}

/* distance = min(distance, that of the cone between joints i and i + 1). */
static void add_link(phantom *p, const phantom_tube *t, int i, vol_box b) {
    float along[3], squared = 0;
    for (int k = 0; k < 3; k++) {
        along[k] = (float)(t->joint[i + 1][k] - t->joint[i][k]);
        squared += along[k] * along[k];
    }
    float inverse = 1 / (squared + 1e-6f), r0 = (float)t->radius[i], r1 = (float)(t->radius[i + 1] - t->radius[i]);
    float first[3] = {(float)t->joint[i][0], (float)t->joint[i][1], (float)t->joint[i][2]};
#pragma omp parallel for collapse(2) num_threads(p->threads)
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++) {
            size_t row = row_of(p, z, y);
            float pz = (float)middle_of(p, 0, z) - first[0], py = (float)middle_of(p, 1, y) - first[1];
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) {
                size_t at = row + (size_t)x;
                float a = pz + p->warp[0][at], c = py + p->warp[1][at];
                float e = (float)middle_of(p, 2, x) - first[2] + p->warp[2][at];
                float s = (a * along[0] + c * along[1] + e * along[2]) * inverse;
                s = s < 0 ? 0 : s > 1 ? 1 : s;
                a -= s * along[0], c -= s * along[1], e -= s * along[2];
                float d = sqrtf(a * a + c * c + e * e) - (r0 + s * r1);
                if (d < p->distance[at]) p->distance[at] = d;
            }
        }
}

vol_box train_tube(phantom *p, const phantom_tube *t) {
    vol_box whole = vol_box_none();
    for (int i = 0; i + 1 < t->count; i++) whole = vol_box_union(whole, link_box(p, t, i));
    if (vol_box_is_empty(whole)) return whole;
    for (int64_t z = whole.lo[0]; z <= whole.hi[0]; z++)
        for (int64_t y = whole.lo[1]; y <= whole.hi[1]; y++)
            for (int64_t x = whole.lo[2]; x <= whole.hi[2]; x++) p->distance[row_of(p, z, y) + (size_t)x] = 1e9f;
    for (int i = 0; i + 1 < t->count; i++) {
        vol_box b = link_box(p, t, i);
        if (!vol_box_is_empty(b)) add_link(p, t, i, b);
    }
    return whole;
}

void train_cut(phantom *p, vol_box b, const double point[3], const double normal[3], double gap) {
    if (vol_box_is_empty(b)) return;
#pragma omp parallel for collapse(2) num_threads(p->threads)
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++)
            for (int64_t x = b.lo[2]; x <= b.hi[2]; x++) {
                size_t at = row_of(p, z, y) + (size_t)x;
                double d = gap + normal[0] * (middle_of(p, 0, z) + (double)p->warp[0][at] - point[0]) +
                           normal[1] * (middle_of(p, 1, y) + (double)p->warp[1][at] - point[1]) +
                           normal[2] * (middle_of(p, 2, x) + (double)p->warp[2][at] - point[2]);
                if ((float)d > p->distance[at]) p->distance[at] = (float)d;
            }
}

/* ---- the brush ------------------------------------------------------------------------------------------------ */

/* How much of a voxel is covered when its middle is at distance d: a border that runs through it covers a part. */
static inline float covered(float d, float inverse_edge) {
    float m = 0.5f - d * inverse_edge;
    return m < 0 ? 0 : m > 1 ? 1 : m;
}

static void paint_row(phantom *p, const phantom_paint *paint, int64_t z, int64_t y, int64_t lo, int64_t hi) {
    const float *rough = noise_row(p, p->rough, paint->shift, z, y), *fine = noise_row(p, p->fine, paint->shift, z, y);
    size_t row = row_of(p, z, y);
    float *value = p->value + row, inverse_edge = (float)(1 / paint->edge);
    float base = (float)paint->value, texture = (float)paint->texture, grain = (float)paint->grain;
    float offset = (float)paint->offset, hollow = (float)paint->hollow;
    bool confined = paint->confined && p->has_body;
    for (int64_t x = lo; x <= hi; x++) {
        float d = p->distance[row + (size_t)x] + offset;
        if (hollow > 0) d = (d < 0 ? -d : d) - hollow;
        if (confined && p->body[row + (size_t)x] > d) d = p->body[row + (size_t)x];
        float m = covered(d, inverse_edge);
        value[x] += m * ((base + (texture * rough[x] + grain * fine[x])) - value[x]);
        if (m >= 0.5f && paint->label != PAINT_KEEP) p->label[row + (size_t)x] = (uint16_t)paint->label;
    }
}

void train_paint(phantom *p, vol_box b, const phantom_paint *paint) {
    if (vol_box_is_empty(b)) return;
#pragma omp parallel for collapse(2) num_threads(p->threads)
    for (int64_t z = b.lo[0]; z <= b.hi[0]; z++)
        for (int64_t y = b.lo[1]; y <= b.hi[1]; y++) paint_row(p, paint, z, y, b.lo[2], b.hi[2]);
}

/* ---- cells ---------------------------------------------------------------------------------------------------- */

/* Squared distances to the nearest and the second nearest seed, and which one the nearest is. */
typedef struct nearest {
    float best[PHANTOM_LONGEST], second[PHANTOM_LONGEST];
    int32_t which[PHANTOM_LONGEST];
} nearest;

static void find_nearest(const phantom *p, const phantom_cells *c, int64_t z, int64_t y, nearest *out) {
    size_t row = row_of(p, z, y);
    const float *wz = p->warp[0] + row, *wy = p->warp[1] + row, *wx = p->warp[2] + row;
    float step = (float)p->mm[2];
    for (int64_t x = 0; x < p->shape.n[2]; x++) out->best[x] = out->second[x] = 1e12f, out->which[x] = 0;
    for (int i = 0; i < c->count; i++) {
        float pz = (float)(middle_of(p, 0, z) - c->seed[i][0]), py = (float)(middle_of(p, 1, y) - c->seed[i][1]);
        float px = (float)(0.5 * p->mm[2] - c->seed[i][2]);
        for (int64_t x = 0; x < p->shape.n[2]; x++) {
            float a = pz + wz[x], b = py + wy[x], e = (px + step * (float)x) + wx[x];
            float d = a * a + b * b + e * e, best = out->best[x], second = out->second[x];
            float loser = d < best ? best : d;
            out->second[x] = loser < second ? loser : second;
            out->which[x] = d < best ? i : out->which[x];
            out->best[x] = d < best ? d : best;
        }
    }
}

void train_cells(phantom *p, const phantom_cells *c) {
#pragma omp parallel for collapse(2) num_threads(p->threads)
    for (int64_t z = 0; z < p->shape.n[0]; z++)
        for (int64_t y = 0; y < p->shape.n[1]; y++) {
            nearest found;
            size_t row = row_of(p, z, y);
            find_nearest(p, c, z, y, &found);
            for (int64_t x = 0; x < p->shape.n[2]; x++) {
                size_t at = row + (size_t)x;
                int which = found.which[x];
                float to_wall = 0.5f * (sqrtf(found.second[x]) - sqrtf(found.best[x]));
                float m = covered(to_wall - (float)c->wall, (float)(1 / c->edge));
                float inside = (float)c->value[which] * (1 + (float)c->texture * p->fine[at]);
                p->value[at] = inside + m * ((float)c->wall_value - inside);
                p->label[at] = (uint16_t)c->label[which];
            }
        }
}
