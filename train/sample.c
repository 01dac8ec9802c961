/* Samples: what the network is shown of a case, and what it should say (SPEC 8).

   What is shown must look as inference shows it (segfm.c). There the network sees either the whole crop, resized nearest
   to the window whatever its size, or a window's worth of it, with zeros around what is smaller. So the resize of the
   chain is that of the crop itself, not of the crop padded to a window as in the published chain; a crop of the window's
   size is cut from the padded one. Labels are taken from the very voxels that the image is.

   The box too: a user, and `segfm eval`, give the scan's box from the object's middle slice (vol_mask_prompt_box), as do
   the zoomed-out predictions that prompt windows; but a user may also enclose all of the object. So half of the boxes
   are of the one kind, half of the other, and of what the window shows.

   A model whose window follows the box (weights_config's frame) sees the user's box and what is around it, whatever the
   crop. So there the box comes first: the object's or its middle slice's in the whole case, each side a little off, as
   users are; and the window, with its contrast and its box, follows from it. A voxel of such a window is in the object when
   more than half of what it covers is. Its contrast does not know of brightness, so that is not varied.

   The order of draws, so that a sample can be drawn again from its stream. Until the window shows something of the object,
   at most ATTEMPTS times:
     resized or cropped; of a crop: where its middle lies, which voxel of those; flips along z, y, x.
       framed: which kind of box; where frame_loose is not 0, is it loose, by what if so; where frame_shift is not 0, is it moved; along z,
       y, x: shifts of its low and its high side, by what it is moved if so; where frame_grow is not 0, does it grow, by how many voxels if
       so, which; flips along z, y, x.
   Then, but for framed ones: is the intensity scaled, by what if so; is it shifted, by what if so; which kind of box (when
   there is one), its shifts at y0, x0, y1, x1. */
#include <string.h>

#include "train.h"

enum { ATTEMPTS = 10, MOST_GROWN = 3 };

train_augmentation train_augmentation_default(void) {
    return (train_augmentation){.resize = 1,
                                .crop = 3,
                                .positive = 3,
                                .negative = 1,
                                .flip = 0.2,
                                .scale = 0.2,
                                .scale_range = 0.2,
                                .shift = 0.2,
                                .shift_range = 0.2,
                                .slice_box = 0.5,
                                .frame_jitter = 0.05,
                                .box_jitter = 2};
}

/* The voxel of the case that each index of the window shows, along z, y, x; −1: padding. Falls where the axis is flipped. */
typedef struct view {
    int64_t *from[3];
    int64_t *covered; /* (window x) framed: how much of each voxel of a row is the object's */
} view;

static void lay_out(view *v, const vol_shape *window, nn_arena *arena) {
    for (int k = 0; k < 3; k++) v->from[k] = nn_arena_take(arena, (size_t)window->n[k], sizeof *v->from[k]);
    v->covered = nn_arena_take(arena, (size_t)window->n[2], sizeof *v->covered);
}

size_t train_draw_bytes(const vol_shape *window) {
    nn_arena arena = {0};
    view v;
    lay_out(&v, window, &arena);
    return arena.failed ? SIZE_MAX : arena.used;
}

/* ---- where -------------------------------------------------------------------------------------------------- */

static uint32_t object_voxel(const train_class *object, uint64_t number) {
    const train_run_length *run = object->runs;
    while (number >= run->count) number -= run++->count;
    return run->start + (uint32_t)number;
}

/* The voxel of that number among those that are not the object's. */
static uint32_t other_voxel(const train_class *object, uint64_t number) {
    for (size_t i = 0; i < object->run_count && object->runs[i].start <= number; i++) number += object->runs[i].count;
    return (uint32_t)number;
}

static void place_of(vol_shape s, uint32_t voxel, int64_t at[3]) {
    at[2] = voxel % s.n[2];
    at[1] = voxel / s.n[2] % s.n[1];
    at[0] = voxel / s.n[2] / s.n[1];
}

/* The middle of a crop; an object that is everywhere has no outside. */
static void draw_middle(const train_case *c, const train_class *object, const train_augmentation *a, train_random *r,
                        int64_t middle[3]) {
    uint64_t others = vol_count(c->shape) - object->voxels;
    size_t outside = train_random_choice(r, (double[]){a->positive, a->negative}, 2);
    uint32_t at = outside == 1 && others > 0 ? other_voxel(object, train_random_below(r, others))
                                             : object_voxel(object, train_random_below(r, object->voxels));
    place_of(c->shape, at, middle);
}

static void resize_axis(int64_t n, int64_t window, int64_t *from) {
    for (int64_t i = 0; i < window; i++) from[i] = vol_nearest_source(i, n, window);
}

/* The crop lies in the axis, or the axis in the crop: then zeros go around it, an odd one at the end (vol_windows_plan). */
static void crop_axis(int64_t n, int64_t window, int64_t middle, int64_t *from) {
    int64_t start = middle - window / 2, last = n - window;
    if (start > last) start = last;
    if (start < 0) start = 0;
    if (last < 0) start = -(-last / 2);
    for (int64_t i = 0; i < window; i++) from[i] = start + i >= 0 && start + i < n ? start + i : -1;
}

static void flip_axis(int64_t window, int64_t *from) {
    for (int64_t i = 0, j = window - 1; i < j; i++, j--) {
        int64_t swapped = from[i];
        from[i] = from[j], from[j] = swapped;
    }
}

/* A box as a user gives it: the object's, or its middle slice's extruded, each side a little off. */
static vol_box draw_user_box(const train_case *c, const train_class *object, const train_augmentation *a,
                             train_random *r) {
    vol_box b = train_random_uniform(r) < a->slice_box ? object->slice_box : object->box, drawn = b;
    double loose = a->frame_loose > 0 && train_random_uniform(r) < 0.5 ? train_random_between(r, 0, a->frame_loose) : 0;
    bool moved = a->frame_shift > 0 && train_random_uniform(r) < 0.25;
    for (int k = 0; k < 3; k++) {
        double extent = (double)(b.hi[k] - b.lo[k] + 1), most = a->frame_jitter * extent;
        double low = train_random_between(r, -most, most), high = train_random_between(r, -most, most);
        double shift = moved ? train_random_between(r, -a->frame_shift, a->frame_shift) * extent : 0;
        low += shift - loose * extent, high += shift + loose * extent;
        drawn.lo[k] += (int64_t)(low < 0 ? low - 0.5 : low + 0.5);
        drawn.hi[k] += (int64_t)(high < 0 ? high - 0.5 : high + 0.5);
        if (drawn.lo[k] < 0) drawn.lo[k] = 0;
        if (drawn.hi[k] >= c->shape.n[k]) drawn.hi[k] = c->shape.n[k] - 1;
        if (drawn.hi[k] < drawn.lo[k]) drawn.lo[k] = b.lo[k], drawn.hi[k] = b.hi[k];
    }
    if (a->frame_grow > 0 && train_random_uniform(r) < a->frame_grow)
        for (uint64_t i = 1 + train_random_below(r, MOST_GROWN); i > 0; i--) {
            vol_box at;
            place_of(c->shape, object_voxel(object, train_random_below(r, object->voxels)), at.lo);
            memcpy(at.hi, at.lo, sizeof at.hi);
            drawn = vol_box_union(drawn, at);
        }
    return drawn;
}

static void draw_view(const train_case *c, const train_class *object, const vol_shape *window,
                      const train_augmentation *a, train_random *r, view *v) {
    bool cropped = train_random_choice(r, (double[]){a->resize, a->crop}, 2) == 1;
    int64_t middle[3] = {0};
    if (cropped) draw_middle(c, object, a, r, middle);
    for (int k = 0; k < 3; k++) {
        if (cropped) crop_axis(c->shape.n[k], window->n[k], middle[k], v->from[k]);
        else resize_axis(c->shape.n[k], window->n[k], v->from[k]);
        if (train_random_uniform(r) < a->flip) flip_axis(window->n[k], v->from[k]);
    }
}

/* ---- what ---------------------------------------------------------------------------------------------------- */

/* The first run of the object that ends after this voxel. */
static size_t first_run_after(const train_class *object, uint64_t voxel) {
    size_t lo = 0, hi = object->run_count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        const train_run_length *run = &object->runs[middle];
        if ((uint64_t)run->start + run->count > voxel) hi = middle;
        else lo = middle + 1;
    }
    return lo;
}

/* A row of the window from the runs of the case's row, whose first voxel has the raster index `row`. */
static bool fill_row(const train_class *object, uint64_t row, int64_t n, const int64_t *from, int64_t window,
                     uint8_t *out) {
    bool any = false;
    for (size_t i = first_run_after(object, row); i < object->run_count; i++) {
        int64_t begin = (int64_t)object->runs[i].start - (int64_t)row, end = begin + object->runs[i].count;
        if (begin >= n) break;
        for (int64_t x = 0; x < window; x++)
            if (from[x] >= begin && from[x] < end) out[x] = 1, any = true;
    }
    return any;
}

/* False when the window shows nothing of the object. */
static bool fill_truth(const train_case *c, const train_class *object, const vol_shape *window, const view *v,
                       uint8_t *truth) {
    bool any = false;
    memset(truth, 0, vol_count(*window));
    for (int64_t z = 0; z < window->n[0]; z++) {
        if (v->from[0][z] < object->box.lo[0] || v->from[0][z] > object->box.hi[0]) continue;
        for (int64_t y = 0; y < window->n[1]; y++) {
            if (v->from[1][y] < object->box.lo[1] || v->from[1][y] > object->box.hi[1]) continue;
            uint64_t row = (uint64_t)((v->from[0][z] * c->shape.n[1] + v->from[1][y]) * c->shape.n[2]);
            if (fill_row(object, row, c->shape.n[2], v->from[2], window->n[2],
                         truth + (z * window->n[1] + y) * window->n[2]))
                any = true;
        }
    }
    return any;
}

static void fill_image(const train_case *c, const vol_shape *window, const view *v, float factor, float term,
                       real *image) {
    const int64_t *n = c->shape.n;
    for (int64_t z = 0; z < window->n[0]; z++)
        for (int64_t y = 0; y < window->n[1]; y++) {
            bool inside = v->from[0][z] >= 0 && v->from[1][y] >= 0;
            const real *row = inside ? c->image + (v->from[0][z] * n[1] + v->from[1][y]) * n[2] : c->image;
            for (int64_t x = 0; x < window->n[2]; x++) {
                int64_t from = v->from[2][x];
                float value = inside && from >= 0 ? (float)row[from] : 0.0f;
                *image++ = (real)(value * factor + term);
            }
        }
}

/* ---- the box ------------------------------------------------------------------------------------------------- */

static int64_t clamp(int64_t x, int64_t last) { return x < 0 ? 0 : x > last ? last : x; }

static void put_box(vol_box b, train_sample *s) {
    for (int k = 0; k < 3; k++) s->box[k] = (real)b.lo[k], s->box[3 + k] = (real)b.hi[k];
}

static void draw_box(const vol_shape *window, const train_augmentation *a, train_random *r, train_sample *s) {
    vol_box b = vol_box_none();
    if (!s->empty) {
        b = train_random_uniform(r) < a->slice_box ? vol_mask_prompt_box(s->truth, *window)
                                                   : vol_mask_bounds(s->truth, *window);
        for (int side = -1; side <= 1; side += 2)
            for (int k = 1; k < 3; k++) {
                int64_t shift = (int64_t)train_random_below(r, (uint64_t)a->box_jitter + 1) * window->n[k] / 256;
                int64_t *bound = side < 0 ? &b.lo[k] : &b.hi[k];
                *bound = clamp(*bound + side * shift, window->n[k] - 1);
            }
    }
    put_box(b, s);
}

/* ---- framed -------------------------------------------------------------------------------------------------- */

/* Adds what the runs of a case's row cover of the window's voxels. weight: of the row in the window's row. */
static void cover_row(const train_class *object, const train_case *c, int64_t z, int64_t y, vol_box frame,
                      int64_t window, int64_t weight, int64_t *covered) {
    int64_t row = (z * c->shape.n[1] + y) * c->shape.n[2], n = frame.hi[2] - frame.lo[2] + 1;
    for (size_t i = first_run_after(object, (uint64_t)row); i < object->run_count; i++) {
        int64_t from = (int64_t)object->runs[i].start - row, to = from + object->runs[i].count - 1;
        if (from > frame.hi[2]) break;
        from = (from > frame.lo[2] ? from : frame.lo[2]) - frame.lo[2];
        to = (to < frame.hi[2] ? to : frame.hi[2]) - frame.lo[2];
        if (to < from) continue;
        for (int64_t x = from * window / n; x <= ((to + 1) * window - 1) / n; x++) {
            vol_cell cell = vol_cell_of(x, n, window);
            covered[x] += weight * vol_cell_share(&cell, from, to);
        }
    }
}

/* Truth of the window that shows a frame. False when it shows nothing of the object. */
static bool cover(const train_case *c, const train_class *object, vol_box frame, const vol_shape *window,
                  int64_t *covered, uint8_t *truth) {
    vol_shape n = vol_box_shape(frame);
    int64_t whole = n.n[0] * n.n[1] * n.n[2];
    bool any = false;
    for (int64_t z = 0; z < window->n[0]; z++)
        for (int64_t y = 0; y < window->n[1]; y++) {
            vol_cell cz = vol_cell_of(z, n.n[0], window->n[0]), cy = vol_cell_of(y, n.n[1], window->n[1]);
            memset(covered, 0, (size_t)window->n[2] * sizeof *covered);
            for (int64_t i = cz.first; i <= cz.last; i++)
                for (int64_t j = cy.first; j <= cy.last; j++)
                    cover_row(object, c, frame.lo[0] + i, frame.lo[1] + j, frame, window->n[2],
                              vol_cell_share(&cz, i, i) * vol_cell_share(&cy, j, j), covered);
            for (int64_t x = 0; x < window->n[2]; x++) {
                *truth = 2 * covered[x] > whole;
                if (*truth++) any = true;
            }
        }
    return any;
}

/* Swaps the halves of an axis of the image, the truth and the box. */
static void flip(const vol_shape *window, int axis, train_sample *s, vol_box *box) {
    const int64_t *n = window->n;
    for (int64_t z = 0; z < (axis == 0 ? n[0] / 2 : n[0]); z++)
        for (int64_t y = 0; y < (axis == 1 ? n[1] / 2 : n[1]); y++)
            for (int64_t x = 0; x < (axis == 2 ? n[2] / 2 : n[2]); x++) {
                int64_t a[3] = {z, y, x}, b[3] = {z, y, x};
                b[axis] = n[axis] - 1 - a[axis];
                int64_t from = (a[0] * n[1] + a[1]) * n[2] + a[2], to = (b[0] * n[1] + b[1]) * n[2] + b[2];
                real value = s->image[from];
                uint8_t inside = s->truth[from];
                s->image[from] = s->image[to], s->image[to] = value;
                s->truth[from] = s->truth[to], s->truth[to] = inside;
            }
    int64_t lo = box->lo[axis];
    box->lo[axis] = n[axis] - 1 - box->hi[axis], box->hi[axis] = n[axis] - 1 - lo;
}

static void draw_framed(const train_case *c, const train_class *object, const vol_shape *window,
                        const train_augmentation *a, train_random *r, view *v, train_sample *out) {
    bool flips[3];
    vol_box b, frame;
    out->empty = true;
    for (int i = 0; i < ATTEMPTS && out->empty; i++) {
        b = draw_user_box(c, object, a, r), frame = vol_frame(b, c->shape, a->frame);
        for (int k = 0; k < 3; k++) flips[k] = train_random_uniform(r) < a->flip;
        out->empty = !cover(c, object, frame, window, v->covered, out->truth);
    }
    vol_zoom(c->image, c->shape, frame, out->image, *window, 1);
    b = vol_zoom_box(b, frame, *window);
    vol_contrast(out->image, *window, b);
    for (int k = 0; k < 3; k++)
        if (flips[k]) flip(window, k, out, &b);
    put_box(out->empty ? vol_box_none() : b, out);
}

/* ---- the sample ---------------------------------------------------------------------------------------------- */

void train_draw(const train_case *c, size_t class_index, const vol_shape *window, const train_augmentation *a,
                train_random *random, void *memory, train_sample *out) {
    const train_class *object = &c->classes[class_index];
    nn_arena arena = {.base = memory, .capacity = train_draw_bytes(window)};
    view v;
    lay_out(&v, window, &arena);
    if (a->frame > 0) {
        draw_framed(c, object, window, a, random, &v, out);
        nn_arena_leave(memory, arena.used);
        return;
    }
    out->empty = true;
    for (int i = 0; i < ATTEMPTS && out->empty; i++) {
        draw_view(c, object, window, a, random, &v);
        out->empty = !fill_truth(c, object, window, &v, out->truth);
    }
    double factor = 1, term = 0;
    if (train_random_uniform(random) < a->scale)
        factor = 1 + train_random_between(random, -a->scale_range, a->scale_range);
    if (train_random_uniform(random) < a->shift) term = train_random_between(random, -a->shift_range, a->shift_range);
    fill_image(c, window, &v, (float)factor, (float)term, out->image);
    draw_box(window, a, random, out);
    nn_arena_leave(memory, arena.used);
}
