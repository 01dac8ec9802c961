/* The simulated click of the challenge's evaluation: in the largest connected error, a voxel that is as far from its border
   as any. */
#include <string.h>

#include "vol.h"

/* The grid whose distances are taken: voxel v of the component's box lies in cell (v + pad) / step. */
typedef struct grid {
    vol_box box;
    vol_shape shape;
    int64_t pad[3], step;
} grid;

static double cells_of(vol_shape s) { return (double)s.n[0] * (double)s.n[1] * (double)s.n[2]; }

/* The official script puts a quarter of the box, at least a voxel, of nothing around it on all sides, and when that makes
   more than `large` voxels it goes to blocks of 2×2×2, which hold something when one of their voxels does. Without blocks
   one voxel of nothing gives the same distances; with them the padding decides how blocks lie. */
static grid plan_grid(vol_box box, int64_t large) {
    grid g = {.box = box, .shape = vol_box_shape(box), .pad = {1, 1, 1}, .step = 1};
    vol_shape padded = g.shape;
    int64_t pad[3];
    for (int k = 0; k < 3; k++) {
        pad[k] = padded.n[k] < 8 ? 1 : padded.n[k] / 4;
        padded.n[k] += 2 * pad[k];
    }
    if (cells_of(padded) > (double)large) {
        g.step = 2;
        memcpy(g.pad, pad, sizeof pad);
    }
    for (int k = 0; k < 3; k++) g.shape.n[k] = (g.shape.n[k] + 2 * g.pad[k] + g.step - 1) / g.step;
    return g;
}

/* The cell of the voxel (z, y, 0) of the volume, had it one. */
static int64_t row_of_cells(const grid *g, int64_t z, int64_t y) {
    z = (z - g->box.lo[0] + g->pad[0]) / g->step;
    y = (y - g->box.lo[1] + g->pad[1]) / g->step;
    return (z * g->shape.n[1] + y) * g->shape.n[2];
}

static int64_t column_of_cell(const grid *g, int64_t x) { return (x - g->box.lo[2] + g->pad[2]) / g->step; }

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* Box of the voxels where the masks differ. */
static vol_box error_box(const uint8_t *a, const uint8_t *b, vol_shape s) {
    vol_box box = vol_box_none();
    for (int64_t z = 0; z < s.n[0]; z++)
        for (int64_t y = 0; y < s.n[1]; y++, a += s.n[2], b += s.n[2]) {
            int64_t lo = 0, hi = s.n[2] - 1;
            while (lo <= hi && !a[lo] == !b[lo]) lo++;
            if (lo > hi) continue;
            while (!a[hi] == !b[hi]) hi--;
            box = vol_box_union(box, (vol_box){{z, y, lo}, {z, y, hi}});
        }
    return box;
}

/* A component's box lies in that of all errors. Its grid, in voxels, is at most that with a voxel around; and it has at most
   `large` cells, unless it is in blocks, of which there are no more than the box of all errors has. */
size_t vol_click_bytes(const uint8_t *prediction, const uint8_t *truth, const vol_click_request *q) {
    nn_arena count = {0};
    vol_box box = error_box(prediction, truth, q->shape);
    if (vol_box_is_empty(box)) return 0;
    vol_shape voxels = plan_grid(box, INT64_MAX).shape, blocks = plan_grid(box, 0).shape;
    double bound = cells_of(blocks) > (double)q->large ? cells_of(blocks) : (double)q->large;
    if (cells_of(voxels) < bound) bound = cells_of(voxels);
    if (!(bound < (double)SIZE_MAX / 2)) return SIZE_MAX;
    nn_arena_take(&count, vol_components_bytes(prediction, truth, q->shape), 1);
    nn_arena_take(&count, (size_t)bound, 1);
    nn_arena_take(&count, (size_t)bound, sizeof(double));
    nn_arena_take(&count, vol_distance_scratch(voxels, q->threads), 1);
    return count.failed ? SIZE_MAX : count.used;
}

size_t vol_click_bound(const vol_click_request *q) {
    nn_arena count = {0};
    vol_shape around = q->shape;
    for (int k = 0; k < 3; k++) around.n[k] += 2;
    size_t cells = nn_times(nn_times((size_t)around.n[0], (size_t)around.n[1]), (size_t)around.n[2]);
    nn_arena_take(&count, vol_components_bound(q->shape), 1);
    nn_arena_take(&count, cells, 1);
    nn_arena_take(&count, cells, sizeof(double));
    nn_arena_take(&count, vol_distance_scratch(around, q->threads), 1);
    return count.failed ? SIZE_MAX : count.used;
}

/* ---- the component on its grid ------------------------------------------------------------------------------------ */

typedef bool visit(void *user, const grid *g, int64_t z, int64_t y, int64_t begin, int64_t end);

/* Calls f for the runs of a component in raster order until it says false. */
static void each_run(const vol_components *c, size_t component, const grid *g, visit *f, void *user) {
    int64_t ny = c->shape.n[1];
    for (int64_t z = g->box.lo[0]; z <= g->box.hi[0]; z++)
        for (int64_t y = g->box.lo[1]; y <= g->box.hi[1]; y++)
            for (size_t i = c->row[z * ny + y]; i < c->row[z * ny + y + 1]; i++)
                if (c->run[i].component == component && !f(user, g, z, y, c->run[i].begin, c->run[i].end)) return;
}

static bool draw(void *mask, const grid *g, int64_t z, int64_t y, int64_t begin, int64_t end) {
    int64_t first = column_of_cell(g, begin), last = column_of_cell(g, end - 1);
    memset((uint8_t *)mask + row_of_cells(g, z, y) + first, 1, (size_t)(last - first + 1));
    return true;
}

/* Looks for the maxima: first how many there are and where the first is, then for number `wanted`. */
typedef struct search {
    const double *distance;
    double largest;
    uint64_t count, wanted;
    int64_t at[3];
} search;

static bool find_maxima(void *user, const grid *g, int64_t z, int64_t y, int64_t begin, int64_t end) {
    search *s = user;
    const double *row = s->distance + row_of_cells(g, z, y);
    for (int64_t x = begin; x < end; x++) {
        double d = row[column_of_cell(g, x)];
        if (d > s->largest) {
            s->largest = d, s->count = 0;
            s->at[0] = z, s->at[1] = y, s->at[2] = x;
        }
        s->count += d == s->largest;
    }
    return true;
}

static bool find_wanted(void *user, const grid *g, int64_t z, int64_t y, int64_t begin, int64_t end) {
    search *s = user;
    const double *row = s->distance + row_of_cells(g, z, y);
    for (int64_t x = begin; x < end; x++) {
        if (row[column_of_cell(g, x)] != s->largest || s->wanted-- > 0) continue;
        s->at[0] = z, s->at[1] = y, s->at[2] = x;
        return false;
    }
    return true;
}

bool vol_simulate_click(const uint8_t *prediction, const uint8_t *truth, const vol_click_request *q, void *memory,
                        vol_click *out) {
    static const double unit[3] = {1, 1, 1};
    nn_arena arena = {memory, SIZE_MAX, 0, false};
    *out = (vol_click){{-1, -1, -1}, -1};
    if (vol_box_is_empty(error_box(prediction, truth, q->shape))) return false; /* whatever memory there is */
    void *runs = nn_arena_take(&arena, vol_components_bytes(prediction, truth, q->shape), 1);
    vol_components errors;
    vol_components_find(prediction, truth, q->shape, runs, &errors);
    size_t largest = vol_components_largest(&errors);
    grid g = plan_grid(vol_components_bounds(&errors, largest), q->large);

    size_t cells = vol_count(g.shape);
    uint8_t *mask = nn_arena_take(&arena, cells, 1);
    double *distance = nn_arena_take(&arena, cells, sizeof *distance);
    void *scratch = nn_arena_take(&arena, vol_distance_scratch(g.shape, q->threads), 1);
    memset(mask, 0, cells);
    each_run(&errors, largest, &g, draw, mask);
    vol_distance(mask, g.shape, unit, q->threads, scratch, distance);

    search s = {.distance = distance, .largest = -1};
    each_run(&errors, largest, &g, find_maxima, &s);
    if (q->rule == VOL_CLICK_OFFICIAL) {
        vol_mt mt;
        vol_mt_seed(&mt, 42);
        s.wanted = vol_mt_below(&mt, s.count);
        each_run(&errors, largest, &g, find_wanted, &s);
    }
    memcpy(out->at, s.at, sizeof s.at);
    nn_arena_leave(memory, arena.used);
    out->label = truth[(s.at[0] * q->shape.n[1] + s.at[1]) * q->shape.n[2] + s.at[2]] != 0;
    return true;
}
