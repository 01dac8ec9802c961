#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../vol/vol.h"
#include "tools.h"

/* Three square panels side by side: axial, coronal, sagittal, each with its long side filling the panel. */
enum { PANEL = 300, GAP = 6 };

/* What a panel shows: `across` and `down` are the axes (z,y,x = 0,1,2) of the plane, `fixed` the one it cuts. */
typedef struct plane {
    int across, down, fixed;
} plane;
static const plane planes[3] = {{2, 1, 0}, {2, 0, 1}, {1, 0, 2}};

typedef struct picture {
    const tool_scan *scan;
    const uint8_t *mask;
    const int64_t *box;
    int64_t middle[3];
    double low, high; /* grey range */
    unsigned char *rgb;
} picture;

static size_t index_of(const tool_scan *s, const int64_t at[3]) {
    return (size_t)((at[0] * s->shape[1] + at[1]) * s->shape[2] + at[2]);
}

/* The voxel is on the mask's rim within the plane: a neighbour in the plane is outside. */
static bool on_rim(const picture *p, const plane *pl, const int64_t at[3]) {
    static const int step[4][2] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}};
    for (int i = 0; i < 4; i++) {
        int64_t next[3] = {at[0], at[1], at[2]};
        next[pl->across] += step[i][0];
        next[pl->down] += step[i][1];
        bool inside = next[pl->across] >= 0 && next[pl->across] < p->scan->shape[pl->across] && next[pl->down] >= 0 &&
                      next[pl->down] < p->scan->shape[pl->down];
        if (!inside || p->mask[index_of(p->scan, next)] == 0) return true;
    }
    return false;
}

static bool on_box(const picture *p, const plane *pl, const int64_t at[3]) {
    if (p->box == NULL) return false;
    for (int axis = 0; axis < 3; axis++)
        if (at[axis] < p->box[axis] || at[axis] > p->box[3 + axis]) return false;
    int a = pl->across, d = pl->down;
    return at[a] == p->box[a] || at[a] == p->box[3 + a] || at[d] == p->box[d] || at[d] == p->box[3 + d];
}

static void colour(const picture *p, const plane *pl, const int64_t at[3], unsigned char rgb[3]) {
    size_t i = index_of(p->scan, at);
    double grey = 255.0 * ((double)p->scan->voxels[i] - p->low) / (p->high > p->low ? p->high - p->low : 1.0);
    grey = grey < 0 ? 0 : grey > 255 ? 255 : grey;
    double tint[3] = {grey, grey, grey};
    if (on_box(p, pl, at)) {
        tint[0] = 90, tint[1] = 200, tint[2] = 255;
    } else if (p->mask[i] != 0) {
        double share = on_rim(p, pl, at) ? 1.0 : 0.3;
        static const double red[3] = {255, 70, 60};
        for (int c = 0; c < 3; c++) tint[c] = (1 - share) * grey + share * red[c];
    }
    for (int c = 0; c < 3; c++) rgb[c] = (unsigned char)(tint[c] + 0.5);
}

/* Panel `index`: the plane at true proportions, its axes' ends up and to the right as the voxel indices grow. */
static void draw_panel(const picture *p, int index) {
    const plane *pl = &planes[index];
    const tool_scan *s = p->scan;
    double spacing[3] = {s->image.spacing[2], s->image.spacing[1], s->image.spacing[0]};
    double width = (double)s->shape[pl->across] * spacing[pl->across],
           height = (double)s->shape[pl->down] * spacing[pl->down];
    double scale = (width > height ? width : height) / PANEL;
    for (int row = 0; row < PANEL; row++)
        for (int column = 0; column < PANEL; column++) {
            double a = ((column + 0.5 - PANEL / 2.0) * scale + width / 2) / spacing[pl->across];
            double d = ((PANEL / 2.0 - row - 0.5) * scale + height / 2) / spacing[pl->down];
            if (!(a >= 0 && a < (double)s->shape[pl->across] && d >= 0 && d < (double)s->shape[pl->down])) continue;
            int64_t at[3];
            at[pl->across] = (int64_t)a, at[pl->down] = (int64_t)d, at[pl->fixed] = p->middle[pl->fixed];
            colour(p, pl, at,
                   p->rgb + 3 * ((size_t)row * (3 * PANEL + 2 * GAP) + (size_t)(index * (PANEL + GAP) + column)));
        }
}

segfm_status tool_overlay(const char *path, const tool_scan *scan, const uint8_t *mask, const int64_t *box,
                          segfm_error *error) {
    picture p = {.scan = scan, .mask = mask, .box = box};
    vol_box shown = vol_mask_bounds(mask, (vol_shape){{scan->shape[0], scan->shape[1], scan->shape[2]}});
    for (int axis = 0; axis < 3; axis++) {
        int64_t lo = 0, hi = scan->shape[axis] - 1;
        if (box != NULL) lo = box[axis], hi = box[3 + axis];
        else if (!vol_box_is_empty(shown)) lo = shown.lo[axis], hi = shown.hi[axis];
        p.middle[axis] = (lo + hi) / 2;
    }
    vol_foreground stats;
    vol_foreground_stats(scan->voxels, scan->count, 1, &stats);
    p.high = stats.upper;
    p.low = (double)scan->voxels[0];
    for (size_t i = 0; i < scan->count; i++)
        if ((double)scan->voxels[i] < p.low) p.low = (double)scan->voxels[i];
    p.rgb = calloc((size_t)(3 * PANEL + 2 * GAP) * PANEL, 3);
    if (p.rgb == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the picture");
    for (int i = 0; i < 3; i++) draw_panel(&p, i);
    segfm_status status = io_png_write(path, 3 * PANEL + 2 * GAP, PANEL, p.rgb, error);
    free(p.rgb);
    return status;
}
