/* Cases: a scan made ready to draw samples from, as the session makes one ready to segment (SPEC 3). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

enum { LABELS = UINT16_MAX + 1 };

/* What is known of a label while the case is being made. */
typedef struct tally {
    uint64_t voxels;
    size_t runs;
    vol_box box;
    size_t place; /* its class; SIZE_MAX: left out */
} tally;

static void *aligned_memory(size_t bytes) {
    size_t whole;
    if (!base_add(bytes, NN_ALIGN - 1, &whole)) return NULL;
    return aligned_alloc(NN_ALIGN, whole / NN_ALIGN * NN_ALIGN + NN_ALIGN);
}

static segfm_status no_memory(vol_shape s, segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a case of %lld x %lld x %lld voxels (z,y,x)",
                     (long long)s.n[0], (long long)s.n[1], (long long)s.n[2]);
}

static segfm_status check_scan(const float *voxels, vol_shape s, segfm_error *error) {
    size_t n, bytes, axes[3];
    for (int k = 0; k < 3; k++) {
        if (s.n[k] < 1)
            return base_fail(error, SEGFM_BAD_INPUT, "shape: got %lld voxels along axis %d (z,y,x), need 1 or more",
                             (long long)s.n[k], k);
        axes[k] = (size_t)s.n[k];
    }
    if (!base_count(axes, 3, 1, &n) || n > UINT32_MAX || !base_mul(n, sizeof(double), &bytes))
        return base_fail(error, SEGFM_BAD_INPUT, "shape: got %lld x %lld x %lld voxels, a case holds fewer than 2^32",
                         (long long)s.n[0], (long long)s.n[1], (long long)s.n[2]);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(voxels[i]))
            return base_fail(error, SEGFM_BAD_INPUT, "voxel (z,y,x) %lld,%lld,%lld: got %s, need a finite number",
                             (long long)(i / axes[2] / axes[1]), (long long)(i / axes[2] % axes[1]),
                             (long long)(i % axes[2]), isnan(voxels[i]) ? "a NaN" : "an infinity");
    return SEGFM_OK;
}

/* ---- labels as runs ------------------------------------------------------------------------------------------- */

/* What a walk over the runs of equal labels calls for each run of a row that is not background. */
typedef void on_run(void *user, unsigned label, int64_t z, int64_t y, int64_t x, int64_t count);

/* The part b of the label map (s), coordinates relative to b. */
static void walk_runs(const uint16_t *labels, vol_shape s, vol_box b, on_run *call, void *user) {
    vol_shape o = vol_box_shape(b);
    for (int64_t z = 0; z < o.n[0]; z++)
        for (int64_t y = 0; y < o.n[1]; y++) {
            const uint16_t *row = labels + ((z + b.lo[0]) * s.n[1] + y + b.lo[1]) * s.n[2] + b.lo[2];
            for (int64_t x = 0, end; x < o.n[2]; x = end) {
                for (end = x + 1; end < o.n[2] && row[end] == row[x];) end++;
                if (row[x] != 0) call(user, row[x], z, y, x, end - x);
            }
        }
}

static void count_run(void *user, unsigned label, int64_t z, int64_t y, int64_t x, int64_t count) {
    tally *t = (tally *)user + label;
    t->box = vol_box_union(t->voxels == 0 ? vol_box_none() : t->box, (vol_box){{z, y, x}, {z, y, x + count - 1}});
    t->voxels += (uint64_t)count;
    t->runs++;
}

typedef struct filling {
    const tally *tallies;
    train_case *c;
} filling;

static void store_run(void *user, unsigned label, int64_t z, int64_t y, int64_t x, int64_t count) {
    const filling *f = user;
    if (f->tallies[label].place == SIZE_MAX) return;
    train_class *class = &f->c->classes[f->tallies[label].place];
    class->runs[class->run_count++] =
        (train_run_length){(uint32_t)((z * f->c->shape.n[1] + y) * f->c->shape.n[2] + x), (uint32_t)count};
}

/* Gives every label with at least min_voxels a class, in ascending order; *runs: of all of them. */
static segfm_status choose_classes(tally *tallies, uint64_t min_voxels, size_t *classes, size_t *runs,
                                   segfm_error *error) {
    size_t largest = 0;
    *classes = *runs = 0;
    for (size_t l = 1; l < LABELS; l++) {
        tally *t = &tallies[l];
        bool enough = t->voxels > 0 && t->voxels >= min_voxels;
        t->place = enough ? *classes : SIZE_MAX;
        if (enough) ++*classes, *runs += t->runs;
        if (t->voxels > tallies[largest].voxels) largest = l;
    }
    if (largest == 0) return base_fail(error, SEGFM_BAD_INPUT, "labels: no voxel of the foreground is labelled");
    if (*classes == 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "labels: label %zu, the largest, has %llu voxels of foreground, need %llu", largest,
                         (unsigned long long)tallies[largest].voxels, (unsigned long long)min_voxels);
    return SEGFM_OK;
}

/* ---- the case -------------------------------------------------------------------------------------------------- */

/* The whole case is one piece of memory, which begins with the image. */
static void lay_out(train_case *c, size_t runs, nn_arena *arena, train_run_length **first_run) {
    c->image = nn_arena_take(arena, vol_count(c->shape), sizeof *c->image);
    c->classes = nn_arena_take(arena, c->class_count, sizeof *c->classes);
    *first_run = nn_arena_take(arena, runs, sizeof **first_run);
}

static bool take_memory(train_case *c, size_t runs, train_run_length **first_run) {
    nn_arena arena = {0};
    lay_out(c, runs, &arena, first_run);
    if (arena.failed) return false;
    arena = (nn_arena){.base = aligned_memory(arena.used), .capacity = arena.used};
    if (arena.base == NULL) return false;
    lay_out(c, runs, &arena, first_run);
    return true;
}

static void set_classes(train_case *c, const tally *tallies, train_run_length *runs) {
    for (size_t l = 1; l < LABELS; l++) {
        const tally *t = &tallies[l];
        if (t->place == SIZE_MAX) continue;
        c->classes[t->place] = (train_class){.label = (unsigned)l, .voxels = t->voxels, .box = t->box, .runs = runs};
        runs += t->runs;
    }
}

/* Half of the object's voxels, rounded down, come before its median one in raster order. */
static void find_slice_box(vol_shape s, train_class *k) {
    int64_t slice = s.n[1] * s.n[2];
    uint64_t before = 0;
    size_t i = 0;
    while ((before += k->runs[i].count) <= k->voxels / 2) i++;
    int64_t z = k->runs[i].start / slice;
    vol_box b = vol_box_none();
    for (i = 0; i < k->run_count; i++) {
        int64_t at = k->runs[i].start % slice, y = at / s.n[2], x = at % s.n[2];
        if (k->runs[i].start / slice == z) b = vol_box_union(b, (vol_box){{z, y, x}, {z, y, x + k->runs[i].count - 1}});
    }
    b.lo[0] = k->box.lo[0], b.hi[0] = k->box.hi[0];
    k->slice_box = b;
}

/* From the normalised image of the whole scan. */
static segfm_status make(const real *image, const uint16_t *labels, vol_shape shape, uint64_t min_voxels,
                         tally *tallies, train_case *c, segfm_error *error) {
    vol_box crop = vol_foreground_box(image, shape);
    size_t runs;
    train_run_length *first_run;
    if (vol_box_is_empty(crop))
        return base_fail(error, SEGFM_BAD_INPUT, "voxels: no foreground, all have the same value");
    walk_runs(labels, shape, crop, count_run, tallies);
    segfm_status status = choose_classes(tallies, min_voxels, &c->class_count, &runs, error);
    if (status != SEGFM_OK) return status;
    c->shape = vol_box_shape(crop);
    if (!take_memory(c, runs, &first_run)) return no_memory(c->shape, error);
    vol_crop(image, shape, crop, c->image);
    set_classes(c, tallies, first_run);
    walk_runs(labels, shape, crop, store_run, &(filling){tallies, c});
    for (size_t i = 0; i < c->class_count; i++) find_slice_box(c->shape, &c->classes[i]);
    return SEGFM_OK;
}

segfm_status train_case_make(const float *voxels, const uint16_t *labels, vol_shape shape, const double spacing[3],
                             uint64_t min_voxels, int threads, train_case *out, segfm_error *error) {
    train_case c = {0};
    segfm_status status = check_scan(voxels, shape, error);
    if (status != SEGFM_OK) return status;
    size_t n = vol_count(shape);
    real *image = aligned_memory(n * sizeof *image);
    tally *tallies = calloc(LABELS, sizeof *tallies);
    if (image == NULL || tallies == NULL) status = no_memory(shape, error);
    if (status == SEGFM_OK) {
        vol_foreground stats;
        vol_foreground_stats(voxels, n, threads, &stats);
        vol_normalise(voxels, n, &stats, threads, image);
        memcpy(c.spacing, spacing, sizeof c.spacing);
        status = make(image, labels, shape, min_voxels, tallies, &c, error);
    }
    free(image);
    free(tallies);
    if (status == SEGFM_OK) *out = c;
    return status;
}

void train_case_free(train_case *c) {
    free(c->image);
    *c = (train_case){0};
}

size_t train_case_bytes(const train_case *c) {
    nn_arena arena = {0};
    size_t runs = 0;
    train_run_length *first_run;
    train_case copy = *c;
    for (size_t i = 0; i < c->class_count; i++) runs += c->classes[i].run_count;
    lay_out(&copy, runs, &arena, &first_run);
    return arena.used;
}
