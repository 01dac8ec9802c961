/* Which voxels a correction looks at, what it is told of them, and where its answer goes. */
#include <assert.h>
#include <math.h>

#include "vol.h"

enum {
    RADIUS = 20, /* around a click; upstream: half the width of the cube */
#ifndef SEGFM_TINY
    PARTS = 16, /* of the frame, which the threads share */
    SPARE = 64, /* candidates a part has room for beyond 2K */
    BLOCK = 16  /* voxels of a row that are looked at together */
#else
    PARTS = 3,
    SPARE = 1,
    BLOCK = 5
#endif
};

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t index_in_volume(const vol_view *v, int64_t z, int64_t y, int64_t x) {
    const int64_t *lo = v->frame.lo, *n = v->shape.n;
    return (size_t)(((lo[0] + z) * n[1] + lo[1] + y) * n[2] + lo[2] + x);
}

static real logit_at(const vol_view *v, vol_shape s, size_t index) {
    int64_t row = (int64_t)index / s.n[2];
    return v->logits[index_in_volume(v, row / s.n[1], row % s.n[1], (int64_t)index % s.n[2])];
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* Rows of a frame that one part has at most. */
static size_t rows_of_part(vol_shape s) { return ((size_t)(s.n[0] * s.n[1]) + PARTS - 1) / PARTS; }

void vol_samples_plan(vol_samples *s, size_t k, vol_shape largest, nn_arena *arena) {
    size_t points = nn_times(2, k), width = (size_t)largest.n[2];
    *s = (vol_samples){.k = k, .table_size = 2};
    while (s->table_size < points && s->table_size <= SIZE_MAX / 4) s->table_size *= 2;
    s->at = nn_arena_take(arena, points, sizeof *s->at);
    s->value = nn_arena_reals(arena, points);
    s->valid = nn_arena_take(arena, points, 1);
    s->room = smaller(nn_plus(points, SPARE), nn_times(rows_of_part(largest), width));
    s->candidates = nn_arena_take(arena, nn_times(PARTS, s->room), sizeof *s->candidates);
    s->row = nn_arena_take(arena, width, sizeof *s->row);
    s->picks = nn_arena_take(arena, k, sizeof *s->picks);
    s->table = nn_arena_take(arena, s->table_size, sizeof *s->table);
}

/* ---- the k smallest of many ---------------------------------------------------------------------------------- */

/* The smallest candidates so far of a part of the frame. When the room is used up, all but the K smallest go, so a
   candidate costs a few comparisons, however many there are and in whatever order they come. */
typedef struct selection {
    vol_candidate *list;
    size_t count, room, k;
    bool full; /* some went: there were more than K */
} selection;

static bool before(vol_candidate a, vol_candidate b) {
    return a.score < b.score || (a.score == b.score && a.index < b.index);
}

static int by_score(const void *a, const void *b) {
    const vol_candidate *x = a, *y = b;
    return before(*x, *y) ? -1 : 1;
}

static int by_index(const void *a, const void *b) {
    const vol_candidate *x = a, *y = b;
    return x->index < y->index ? -1 : 1;
}

static vol_candidate middle_of(vol_candidate a, vol_candidate b, vol_candidate c) {
    if (before(a, b)) return before(b, c) ? b : before(a, c) ? c : a;
    return before(a, c) ? a : before(b, c) ? c : b;
}

/* Moves the k smallest of n to the front (quickselect; no two are equal). */
static void move_smallest(vol_candidate *c, size_t n, size_t k) {
    size_t low = 0, high = n; /* what is before low or from high on is in its place */
    while (low < k && k < high) {
        vol_candidate pivot = middle_of(c[low], c[low + (high - low) / 2], c[high - 1]);
        size_t i = low, j = high; /* before i: the pivot or smaller; from j on: the pivot or larger */
        while (i < j) {
            while (before(c[i], pivot)) i++;
            while (before(pivot, c[j - 1])) j--;
            if (i >= j) break;
            vol_candidate t = c[i];
            c[i++] = c[j - 1], c[--j] = t;
        }
        if (j >= k) high = j;
        if (i <= k) low = i;
    }
}

/* True when there was no room and all but the k smallest went. */
static bool select_candidate(selection *s, real score, size_t index) {
    bool shortened = s->count == s->room;
    if (shortened) {
        assert(s->k < s->room);
        move_smallest(s->list, s->count, s->k);
        s->count = s->k;
        s->full = true;
    }
    s->list[s->count++] = (vol_candidate){score, index};
    return shortened;
}

/* ---- uncertain voxels ---------------------------------------------------------------------------------------- */

static const real tau = REAL_C(0.1), one_minus_tau = REAL_C(0.9), half = REAL_C(0.5);

static bool any_below(const real *x, size_t n, real limit) {
    int found = 0;
#pragma omp simd reduction(| : found)
    for (size_t i = 0; i < n; i++) found |= (x[i] < limit) & (x[i] > -limit);
    return found != 0;
}

/* score (n): |p − ½|, or 1 where p is not between τ and 1 − τ. */
static void scores_of(const real *x, size_t n, real *score) {
    NN_SIMD_MATH
    for (size_t i = 0; i < n; i++) {
        real p = nn_sigmoid(x[i]), distance = p < half ? half - p : p - half;
        distance = p > tau ? distance : 1;
        score[i] = p < one_minus_tau ? distance : 1;
    }
}

/* What a voxel must be below to be among the K smallest, after some candidates went: the score of the largest that is
   left, and a logit a little beyond that one's, where no score can be as small: scores are right to 2e-7, and grow by at
   least 0.09 per unit of logit here, so 1e-5 is enough. */
typedef struct limits {
    real logit, score;
} limits;

static limits limits_of(const vol_view *v, vol_shape shape, const selection *s) {
    const vol_candidate *largest = &s->list[0];
    for (size_t i = 1; i < s->k; i++)
        if (s->list[i].score > largest->score) largest = &s->list[i];
    real x = logit_at(v, shape, largest->index);
    return (limits){(x < 0 ? -x : x) + REAL_C(1e-5), largest->score};
}

/* Rows [begin, end) of the frame → the selection. Later voxels lose ties. */
static void scan_uncertain(const vol_view *v, vol_shape shape, size_t begin, size_t end, selection *s) {
    size_t width = (size_t)shape.n[2];
    limits limit = {REAL_C(2.198), half}; /* above ln 9 = 2.1972…, where p is 0.9 */
    for (size_t row = begin; row < end; row++) {
        const real *x = v->logits + index_in_volume(v, (int64_t)row / shape.n[1], (int64_t)row % shape.n[1], 0);
        for (size_t first = 0; first < width; first += BLOCK) {
            size_t count = smaller(width - first, BLOCK);
            real score[BLOCK];
            if (!any_below(x + first, count, limit.logit)) continue;
            scores_of(x + first, count, score);
            for (size_t i = 0; i < count; i++)
                if (score[i] < limit.score && select_candidate(s, score[i], row * width + first + i))
                    limit = limits_of(v, shape, s);
        }
    }
}

static void set_point(vol_samples *s, size_t i, vol_shape shape, size_t index, real value) {
    int64_t row = (int64_t)index / shape.n[2];
    s->at[i][0] = (int32_t)(row / shape.n[1]);
    s->at[i][1] = (int32_t)(row % shape.n[1]);
    s->at[i][2] = (int32_t)((int64_t)index % shape.n[2]);
    s->value[i] = value;
    s->valid[i] = 1;
}

static void set_no_points(vol_samples *s, size_t begin, size_t end, real value) {
    for (size_t i = begin; i < end; i++) {
        s->at[i][0] = s->at[i][1] = s->at[i][2] = -1;
        s->value[i] = value;
        s->valid[i] = 0;
    }
}

static void sample_uncertain(const vol_view *v, vol_variant variant, int threads, vol_samples *s) {
    vol_shape shape = vol_box_shape(v->frame);
    size_t rows = (size_t)(shape.n[0] * shape.n[1]), each = rows_of_part(shape);
    selection part[PARTS];
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(nn_team(threads, rows *(size_t)shape.n[2])) schedule(dynamic, 1)
    for (int i = 0; i < PARTS; i++) {
        part[i] = (selection){.list = s->candidates + (size_t)i * s->room, .room = s->room, .k = s->k};
        scan_uncertain(v, shape, smaller((size_t)i * each, rows), smaller(((size_t)i + 1) * each, rows), &part[i]);
    }
    size_t count = 0;
    bool full = false;
    for (int i = 0; i < PARTS; i++) {
        memmove(s->candidates + count, part[i].list, part[i].count * sizeof *s->candidates);
        count += part[i].count;
        full = full || part[i].full;
    }
    full = full || count > s->k;
    if (count > s->k) {
        move_smallest(s->candidates, count, s->k);
        count = s->k;
    }
    base_sort(s->candidates, count, sizeof *s->candidates, variant == VOL_UPSTREAM && !full ? by_index : by_score);
    for (size_t i = 0; i < count; i++) {
        vol_candidate c = s->candidates[i];
        set_point(s, i, shape, c.index, variant == VOL_SEED ? nn_sigmoid(logit_at(v, shape, c.index)) : c.score);
    }
    set_no_points(s, count, s->k, -1);
}

/* ---- likely errors ------------------------------------------------------------------------------------------- */

/* Where errors are looked for, row by row. */
typedef struct error_rule {
    const vol_view *v;
    vol_shape shape;
    vol_variant variant;
    const vol_point_click *clicks;
    size_t count;
    const uint8_t *truth;
    int64_t lo[2], hi[2]; /* rows (z, y) that can hold any; hi < lo: none */
    int32_t *row;
} error_rule;

static error_rule rule_of(const vol_view *v, vol_variant variant, const vol_point_click *clicks, size_t count,
                          const uint8_t *truth, int32_t *row) {
    error_rule r = {v, vol_box_shape(v->frame), variant, clicks, count, truth, {0, 0}, {0, 0}, row};
    if (variant == VOL_SEED) r.truth = NULL;
    for (int axis = 0; axis < 2; axis++) {
        int64_t last = r.shape.n[axis] - 1, lo = last, hi = 0;
        for (size_t i = 0; i < count; i++) {
            lo = min64(lo, clicks[i].at[axis] - RADIUS);
            hi = max64(hi, clicks[i].at[axis] + RADIUS);
        }
        r.lo[axis] = r.truth != NULL ? 0 : max64(lo, 0);
        r.hi[axis] = r.truth != NULL ? last : min64(hi, last);
    }
    return r;
}

/* Marks what a click says of row (z, y): r->row[x] = the smaller of what stands there and the squared distance to the click;
   upstream: 0. */
static void mark_row(const error_rule *r, const vol_point_click *click, int64_t z, int64_t y, const real *logits) {
    int64_t dz = z - click->at[0], dy = y - click->at[1], reach = RADIUS;
    if (dz < -RADIUS || dz > RADIUS || dy < -RADIUS || dy > RADIUS) return;
    if (r->variant == VOL_SEED) {
        while (reach >= 0 && reach * reach + dz * dz + dy * dy > RADIUS * RADIUS) reach--;
        if (reach < 0) return;
    }
    int64_t begin = max64(click->at[2] - reach, 0), end = min64(click->at[2] + reach, r->shape.n[2] - 1);
    bool expected = r->variant == VOL_SEED && click->label != 0;
    for (int64_t x = begin; x <= end; x++) {
        int64_t dx = x - click->at[2];
        int32_t distance = r->variant == VOL_SEED ? (int32_t)(dx * dx + dz * dz + dy * dy) : 0;
        if (nn_sigmoid_above_half(logits[x]) != expected && distance < r->row[x]) r->row[x] = distance;
    }
}

/* r->row[x] = INT32_MAX where voxel x of row (z, y) is no likely error, else what it is ranked by. */
static void likely_errors(const error_rule *r, int64_t z, int64_t y) {
    const real *logits = r->v->logits + index_in_volume(r->v, z, y, 0);
    int64_t width = r->shape.n[2];
    for (int64_t x = 0; x < width; x++) r->row[x] = INT32_MAX;
    for (size_t i = 0; r->truth == NULL && i < r->count; i++) mark_row(r, &r->clicks[i], z, y, logits);
    if (r->truth == NULL) return;
    const uint8_t *truth = r->truth + (z * r->shape.n[1] + y) * width;
    for (int64_t x = 0; x < width; x++)
        if (nn_sigmoid_above_half(logits[x]) != (truth[x] != 0)) r->row[x] = 0;
}

/* The nearest K. */
static size_t sample_nearest(const error_rule *r, vol_samples *s, real label) {
    selection nearest = {.list = s->candidates, .room = nn_times(PARTS, s->room), .k = s->k};
    for (int64_t z = r->lo[0]; z <= r->hi[0]; z++)
        for (int64_t y = r->lo[1]; y <= r->hi[1]; y++) {
            likely_errors(r, z, y);
            for (int64_t x = 0; x < r->shape.n[2]; x++)
                if (r->row[x] != INT32_MAX)
                    select_candidate(&nearest, (real)r->row[x], (size_t)((z * r->shape.n[1] + y) * r->shape.n[2] + x));
        }
    size_t count = smaller(nearest.count, s->k);
    move_smallest(nearest.list, nearest.count, count);
    base_sort(nearest.list, count, sizeof *nearest.list, by_score);
    for (size_t i = 0; i < count; i++) set_point(s, s->k + i, r->shape, nearest.list[i].index, label);
    return count;
}

/* How many errors there are; counts no further than `enough`. */
static size_t count_errors(const error_rule *r, size_t enough) {
    size_t count = 0;
    for (int64_t z = r->lo[0]; z <= r->hi[0]; z++)
        for (int64_t y = r->lo[1]; y <= r->hi[1] && count < enough; y++) {
            likely_errors(r, z, y);
            for (int64_t x = 0; x < r->shape.n[2]; x++) count += r->row[x] != INT32_MAX;
        }
    return smaller(count, enough);
}

/* The entry of `key` in the table, or the free one where it belongs. */
static vol_pick *entry_of(vol_samples *s, size_t key) {
    size_t i = key & (s->table_size - 1);
    while (s->table[i].place != SIZE_MAX && s->table[i].place != key) i = (i + 1) & (s->table_size - 1);
    return &s->table[i];
}

static size_t number_at(vol_samples *s, size_t place) {
    const vol_pick *e = entry_of(s, place);
    return e->place == SIZE_MAX ? place : e->number;
}

/* The first K numbers of torch.randperm(n), n > K (PyTorch 1.13, CPU): r = 0…n−1; for i = 0…n−2 r[i] and
   r[i + draw mod (n−i)] change places. Of r only what is not where it was is kept, in the table: the other draws leave the
   first K alone, but are made, as the generator goes on from there. */
static void draw_picks(vol_samples *s, size_t n, vol_mt *random) {
    for (size_t i = 0; i < s->table_size; i++) s->table[i].place = SIZE_MAX;
    for (size_t i = 0; i + 1 < n; i++) {
        size_t other = i + vol_mt_next(random) % (n - i);
        if (i >= s->k) continue;
        size_t own = number_at(s, i);
        s->picks[i] = (vol_pick){number_at(s, other), i};
        *entry_of(s, other) = (vol_pick){own, other};
    }
}

static int by_number(const void *a, const void *b) {
    const vol_pick *x = a, *y = b;
    return x->number < y->number ? -1 : 1;
}

/* Upstream's: K in raster order, or drawn. */
static size_t sample_raster(const error_rule *r, vol_samples *s, real label, vol_mt *random) {
    bool drawn = r->truth == NULL && random != NULL;
    size_t all = count_errors(r, drawn ? SIZE_MAX : s->k), count = smaller(all, s->k);
    for (size_t i = 0; i < count; i++) s->picks[i] = (vol_pick){i, i};
    if (all > count) {
        draw_picks(s, all, random);
        base_sort(s->picks, count, sizeof *s->picks, by_number);
    }
    size_t number = 0, next = 0;
    for (int64_t z = r->lo[0]; z <= r->hi[0]; z++)
        for (int64_t y = r->lo[1]; y <= r->hi[1] && next < count; y++) {
            likely_errors(r, z, y);
            for (int64_t x = 0; x < r->shape.n[2] && next < count; x++) {
                if (r->row[x] == INT32_MAX || number++ != s->picks[next].number) continue;
                set_point(s, s->k + s->picks[next++].place, r->shape,
                          (size_t)((z * r->shape.n[1] + y) * r->shape.n[2] + x), label);
            }
        }
    return count;
}

void vol_sample(const vol_view *v, vol_variant variant, const vol_point_click *clicks, size_t count,
                const uint8_t *truth, vol_mt *random, int threads, vol_samples *s) {
    assert(count > 0);
    sample_uncertain(v, variant, threads, s);
    error_rule r = rule_of(v, variant, clicks, count, truth, s->row);
    real label = (real)clicks[0].label;
    size_t found = variant == VOL_SEED ? sample_nearest(&r, s, label) : sample_raster(&r, s, label, random);
    set_no_points(s, s->k + found, 2 * s->k, label);
}

/* ---- what the corrector sees, and what it writes ------------------------------------------------------------- */

/* A coordinate as a feature. */
static real feature(vol_variant variant, int64_t at, int64_t extent) {
    if (variant == VOL_UPSTREAM) return (real)at;
    return extent == 1 ? 0 : (real)at / (real)(extent - 1);
}

void vol_sample_state(const vol_view *v, vol_variant variant, const vol_point_click *clicks, const vol_samples *s,
                      real *rows, real *coordinates) {
    vol_shape shape = vol_box_shape(v->frame);
    for (size_t i = 0; i < 2 * s->k; i++) {
        real *row = rows + 8 * i, *c = coordinates + 3 * i;
        for (int axis = 0; axis < 3; axis++) {
            c[axis] = s->valid[i] ? feature(variant, s->at[i][axis], shape.n[axis]) : -1;
            row[axis] = c[axis];
            row[5 + axis] = feature(variant, clicks[0].at[axis], shape.n[axis]);
        }
        row[3] = s->value[i];
        row[4] = s->valid[i];
    }
}

/* A whole number clamped to 0 … extent − 1; NaN: 0. */
static int64_t clamp(real c, int64_t extent) {
    if (!(c > 0)) return 0;
    return c >= (real)extent ? extent - 1 : min64((int64_t)c, extent - 1);
}

static int64_t written_coordinate(vol_variant variant, real c, int64_t extent) {
    if (variant == VOL_SEED) return clamp((real)rint((double)c), extent);
    return clamp(c * (real)(extent - 1), extent);
}

size_t vol_correction_writes(const vol_view *v, vol_variant variant, const vol_samples *s, const real *delta,
                             const real *offset, int64_t *voxel, real *value) {
    vol_shape shape = vol_box_shape(v->frame);
    size_t count = 0;
    for (size_t i = 0; i < 2 * s->k; i++) {
        int64_t at[3];
        if (variant == VOL_SEED && !s->valid[i]) continue;
        for (int axis = 0; axis < 3; axis++)
            at[axis] = written_coordinate(variant, (real)s->at[i][axis] + offset[3 * i + (size_t)axis], shape.n[axis]);
        voxel[count] = (int64_t)index_in_volume(v, at[0], at[1], at[2]);
        value[count++] = variant == VOL_SEED ? delta[i] : nn_sigmoid(delta[i]);
    }
    return count;
}
