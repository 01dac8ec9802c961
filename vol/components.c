/* 26-connected components by runs: a row is cut into its runs of inside voxels, and every run is joined with the runs that
   it touches in the four rows before it (union-find). The work after reading the voxels is that of the runs. */
#include <string.h>

#include "vol.h"

/* Rows are read as words of 64 bits, one a voxel. */
enum { WORD = 64, BYTES = 8 };

/* Eight bytes, each 0 or 1, as the bits of a number, the first lowest. */
static uint64_t gather_bits(const uint8_t *bytes) { return base_le64(bytes) * 0x0102040810204080U >> 56; }

/* The voxels [x, x + 64) of a row (n) where exactly one of the two masks is inside; 0 beyond its end. */
static uint64_t row_bits(const uint8_t *a, const uint8_t *b, int64_t n, int64_t x) {
    uint8_t inside[WORD] = {0};
    int64_t count = n - x < WORD ? n - x : WORD;
    uint64_t bits = 0;
    if (count == WORD && b == NULL) /* the common cases, of a length that compilers can unroll */
        for (int i = 0; i < WORD; i++) inside[i] = a[x + i] != 0;
    else if (count == WORD)
        for (int i = 0; i < WORD; i++) inside[i] = (a[x + i] != 0) ^ (b[x + i] != 0);
    else
        for (int64_t i = 0; i < count; i++) inside[i] = (uint8_t)((a[x + i] != 0) ^ (b != NULL && b[x + i] != 0));
    for (int i = 0; i < WORD / BYTES; i++) bits |= gather_bits(inside + BYTES * i) << BYTES * i;
    return bits;
}

/* Position of the only bit that is set: multiplied with this number, it leaves another pattern of six bits on top for each
   (Leiserson, Prokop and Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998). */
static int64_t position(uint64_t bit) {
    static const uint8_t of_pattern[WORD] = {0,  1,  2,  53, 3,  7,  54, 27, 4,  38, 41, 8,  34, 55, 48, 28,
                                             62, 5,  39, 46, 44, 42, 22, 9,  24, 35, 59, 56, 49, 18, 29, 11,
                                             63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21, 23, 58, 17, 10,
                                             51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12};
    return of_pattern[bit * 0x022fdd63cc95386dU >> 58];
}

static size_t count_bits(uint64_t v) {
    v -= v >> 1 & 0x5555555555555555U;
    v = (v & 0x3333333333333333U) + (v >> 2 & 0x3333333333333333U);
    return ((v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fU) * 0x0101010101010101U >> 56;
}

static size_t count_runs(const uint8_t *a, const uint8_t *b, vol_shape s) {
    size_t runs = 0, rows = (size_t)s.n[0] * (size_t)s.n[1];
    for (size_t r = 0; r < rows; r++, a += s.n[2], b = b ? b + s.n[2] : b) {
        uint64_t before = 0; /* the voxel before the word */
        for (int64_t x = 0; x < s.n[2]; x += WORD) {
            uint64_t bits = row_bits(a, b, s.n[2], x);
            runs += count_bits(bits & ~(bits << 1 | before));
            before = bits >> (WORD - 1);
        }
    }
    return runs;
}

/* The runs of a row (n), from run[found] on; returns how many there are by then. */
static size_t cut_row(const uint8_t *a, const uint8_t *b, int64_t n, vol_run *run, size_t found) {
    uint64_t before = 0;
    for (int64_t x = 0; x < n; x += WORD) {
        uint64_t bits = row_bits(a, b, n, x), changes = bits ^ (bits << 1 | before);
        before = bits >> (WORD - 1);
        for (; changes != 0; changes &= changes - 1) {
            int64_t at = x + position(changes & (~changes + 1));
            if (bits >> (at - x) & 1) {
                run[found] = (vol_run){(int32_t)at, (int32_t)n, (uint32_t)found};
                found++;
            } else {
                run[found - 1].end = (int32_t)at;
            }
        }
    }
    return found;
}

/* Where everything lies. */
static void take(nn_arena *a, vol_shape s, size_t runs, vol_components *c) {
    size_t rows = (size_t)s.n[0] * (size_t)s.n[1];
    c->row = nn_arena_take(a, nn_plus(rows, 1), sizeof *c->row);
    c->run = nn_arena_take(a, runs, sizeof *c->run);
    c->size = nn_arena_take(a, runs, sizeof *c->size);
}

size_t vol_components_bytes(const uint8_t *a, const uint8_t *b, vol_shape s) {
    nn_arena count = {0};
    vol_components c;
    size_t runs = count_runs(a, b, s);
    take(&count, s, runs, &c);
    return count.failed || runs > INT32_MAX || s.n[2] > INT32_MAX ? SIZE_MAX : count.used;
}

size_t vol_components_bound(vol_shape s) {
    nn_arena count = {0};
    vol_components c;
    size_t runs = nn_times(nn_times((size_t)s.n[0], (size_t)s.n[1]), ((size_t)s.n[2] + 1) / 2);
    take(&count, s, runs, &c);
    return count.failed || runs > INT32_MAX || s.n[2] > INT32_MAX ? SIZE_MAX : count.used;
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
            if (run[i].component != run[j].component) {
                uint32_t a = root_of(run, (uint32_t)i), b = root_of(run, (uint32_t)j);
                uint32_t first = a < b ? a : b; /* stays the root, so that roots keep raster order */
                run[a].component = run[b].component = run[i].component = run[j].component = first;
            }
            if (run[i].end < run[j].end) i++;
            else j++;
        }
    }
}

static void find_runs(const uint8_t *a, const uint8_t *b, vol_shape s, vol_components *c) {
    size_t rows = (size_t)s.n[0] * (size_t)s.n[1], width = (size_t)s.n[1], found = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t y = r % width, at = r * (size_t)s.n[2], start = found;
        c->row[r] = start;
        found = cut_row(a + at, b ? b + at : b, s.n[2], c->run, start);
        c->row[r + 1] = found;
        if (start == found) continue;
        if (y > 0) join_rows(c->run, start, found, c->row[r - 1], start);
        if (r < width) continue;
        size_t above = r - width; /* the same y of the slice before */
        for (size_t q = y > 0 ? above - 1 : above; q <= above + (y + 1 < width); q++)
            join_rows(c->run, start, found, c->row[q], c->row[q + 1]);
    }
}

void vol_components_find(const uint8_t *a, const uint8_t *b, vol_shape s, void *memory, vol_components *out) {
    nn_arena arena = {memory, SIZE_MAX, 0, false};
    *out = (vol_components){.shape = s, .runs = count_runs(a, b, s)};
    take(&arena, s, out->runs, out);
    find_runs(a, b, s, out);
    /* A run's tree has its root before it, whose number is known by then. */
    for (size_t i = 0; i < out->runs; i++) {
        vol_run *r = &out->run[i];
        bool is_root = r->component == i;
        if (is_root) out->size[out->count] = 0;
        r->component = is_root ? (uint32_t)out->count++ : out->run[r->component].component;
        out->size[r->component] += (uint64_t)(r->end - r->begin);
    }
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
    size_t rows = (size_t)c->shape.n[0] * (size_t)c->shape.n[1], width = (size_t)c->shape.n[2];
    for (size_t r = 0; r < rows; r++, labels += width) {
        memset(labels, 0, width * sizeof *labels);
        for (size_t i = c->row[r]; i < c->row[r + 1]; i++) {
            int32_t label = (int32_t)c->run[i].component + 1;
            for (int32_t x = c->run[i].begin; x < c->run[i].end; x++) labels[x] = label;
        }
    }
}
