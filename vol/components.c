/* 26-connected components by runs: a row is cut into its runs of inside voxels, and every run is joined with the runs that
   it touches in the four rows before it (union-find). The work after reading the voxels is that of the runs. */
#include <string.h>

#include "vol.h"

enum { WORD = 8 }; /* bytes looked at at once */

/* row (n) = 1 where exactly one of the two masks is inside. */
static void difference_row(const uint8_t *a, const uint8_t *b, int64_t n, uint8_t *row) {
    if (b == NULL)
        for (int64_t x = 0; x < n; x++) row[x] = a[x] != 0;
    else
        for (int64_t x = 0; x < n; x++) row[x] = (uint8_t)((a[x] != 0) ^ (b[x] != 0));
}

/* First x ≥ from where row differs from `value` (0 or 1), n when there is none. */
static int64_t skip(const uint8_t *row, int64_t n, int64_t from, uint8_t value) {
    const uint64_t same = value ? 0x0101010101010101U : 0;
    for (uint64_t word; from + WORD <= n; from += WORD) {
        memcpy(&word, row + from, WORD);
        if (word != same) break;
    }
    while (from < n && row[from] == value) from++;
    return from;
}

static size_t count_runs(const uint8_t *a, const uint8_t *b, vol_shape s) {
    size_t runs = 0, rows = (size_t)s.n[0] * (size_t)s.n[1];
    for (size_t r = 0; r < rows; r++, a += s.n[2], b = b ? b + s.n[2] : b) {
        unsigned last = 0, begun = 0;
        for (int64_t x = 0; x < s.n[2]; x++) {
            unsigned in = (unsigned)(a[x] != 0) ^ (unsigned)(b && b[x] != 0);
            begun += in & ~last;
            last = in;
        }
        runs += begun;
    }
    return runs;
}

/* Where everything lies; `row`, a row of voxels, is needed only while the runs are found. */
static uint8_t *take(nn_arena *a, vol_shape s, size_t runs, vol_components *c) {
    size_t rows = (size_t)s.n[0] * (size_t)s.n[1];
    c->run = nn_arena_take(a, runs, sizeof *c->run);
    c->row = nn_arena_take(a, nn_plus(rows, 1), sizeof *c->row);
    c->size = nn_arena_take(a, runs, sizeof *c->size);
    return nn_arena_take(a, (size_t)s.n[2], 1);
}

size_t vol_components_bytes(const uint8_t *a, const uint8_t *b, vol_shape s) {
    nn_arena count = {0};
    vol_components c;
    take(&count, s, count_runs(a, b, s), &c);
    return count.failed ? SIZE_MAX : count.used;
}

/* The first run of i's tree; shortens the way for the next who asks. */
static uint32_t root_of(vol_run *run, uint32_t i) {
    while (run[i].component != i) {
        run[i].component = run[run[i].component].component;
        i = run[i].component;
    }
    return i;
}

/* Joins the runs [i, end) of a row with those [j, j_end) of an earlier row that touch them. */
static void join_rows(vol_run *run, size_t i, size_t end, size_t j, size_t j_end) {
    while (i < end && j < j_end) {
        if (run[j].end < run[i].begin) j++;
        else if (run[i].end < run[j].begin) i++;
        else { /* they overlap, or meet at a corner: ends are exclusive */
            uint32_t a = root_of(run, (uint32_t)i), b = root_of(run, (uint32_t)j);
            if (a < b) run[b].component = a;
            else run[a].component = b; /* the first run stays the root, so roots keep raster order */
            if (run[i].end < run[j].end) i++;
            else j++;
        }
    }
}

static void find_runs(const uint8_t *a, const uint8_t *b, vol_shape s, uint8_t *row, vol_components *c) {
    size_t rows = (size_t)s.n[0] * (size_t)s.n[1], width = (size_t)s.n[1], found = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t y = r % width, at = r * (size_t)s.n[2];
        c->row[r] = found;
        difference_row(a + at, b ? b + at : b, s.n[2], row);
        for (int64_t x = skip(row, s.n[2], 0, 0); x < s.n[2]; x = skip(row, s.n[2], x, 0)) {
            int64_t end = skip(row, s.n[2], x, 1);
            c->run[found] = (vol_run){(int32_t)x, (int32_t)end, (uint32_t)found};
            found++;
            x = end;
        }
        c->row[r + 1] = found;
        if (c->row[r] == found) continue;
        size_t above = r - width; /* the same y of the slice before; not used on the first */
        if (y > 0) join_rows(c->run, c->row[r], found, c->row[r - 1], c->row[r]);
        if (r < width) continue;
        for (size_t q = y > 0 ? above - 1 : above; q <= above + (y + 1 < width); q++)
            join_rows(c->run, c->row[r], found, c->row[q], c->row[q + 1]);
    }
}

bool vol_components_find(const uint8_t *a, const uint8_t *b, vol_shape s, void *memory, vol_components *out) {
    nn_arena arena = {memory, SIZE_MAX, 0, false};
    size_t runs = count_runs(a, b, s);
    *out = (vol_components){.shape = s, .runs = runs};
    if (runs > INT32_MAX || s.n[2] > INT32_MAX) return false;
    uint8_t *row = take(&arena, s, runs, out);
    find_runs(a, b, s, row, out);
    /* A run's tree has its root before it, whose number is known by then. */
    for (size_t i = 0; i < runs; i++) {
        vol_run *r = &out->run[i];
        bool is_root = r->component == i;
        if (is_root) out->size[out->count] = 0;
        r->component = is_root ? (uint32_t)out->count++ : out->run[r->component].component;
        out->size[r->component] += (uint64_t)(r->end - r->begin);
    }
    return true;
}

size_t vol_components_largest(const vol_components *c) {
    size_t largest = 0;
    for (size_t i = 1; i < c->count; i++)
        if (c->size[i] > c->size[largest]) largest = i;
    return largest;
}

vol_box vol_components_bounds(const vol_components *c, size_t component) {
    vol_box box = vol_box_none();
    size_t rows = (size_t)c->shape.n[0] * (size_t)c->shape.n[1];
    for (size_t r = 0; r < rows; r++)
        for (size_t i = c->row[r]; i < c->row[r + 1]; i++) {
            if (c->run[i].component != component) continue;
            int64_t z = (int64_t)r / c->shape.n[1], y = (int64_t)r % c->shape.n[1];
            box = vol_box_union(box, (vol_box){{z, y, c->run[i].begin}, {z, y, c->run[i].end - 1}});
        }
    return box;
}

void vol_components_labels(const vol_components *c, int32_t *labels) {
    size_t rows = (size_t)c->shape.n[0] * (size_t)c->shape.n[1];
    for (size_t r = 0; r < rows; r++, labels += c->shape.n[2]) {
        int64_t x = 0;
        for (size_t i = c->row[r]; i < c->row[r + 1]; i++) {
            for (; x < c->run[i].begin; x++) labels[x] = 0;
            for (; x < c->run[i].end; x++) labels[x] = (int32_t)c->run[i].component + 1;
        }
        for (; x < c->shape.n[2]; x++) labels[x] = 0;
    }
}
