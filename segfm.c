/* The session: volume + model + prompts → mask. Orchestration; the arithmetic is in nn and vol.

   Frames: the scan; the crop (the scan's foreground; every box below is in it); the zoomed-out window (the whole crop at
   the window's size); the region of interest (a part of the crop); the windows over the region. */
#include "segfm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/segvol/segvol.h"
#include "vol/vol.h"

/* ---- model --------------------------------------------------------------------------------------------------- */

struct segfm_model {
    segvol_model net;
    void *memory;
    size_t bytes;
};

static void *aligned_memory(size_t bytes) {
    size_t rounded;
    if (!base_add(bytes, NN_ALIGN - 1, &rounded)) return NULL;
    return aligned_alloc(NN_ALIGN, rounded / NN_ALIGN * NN_ALIGN);
}

static segfm_status no_memory(size_t bytes, segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "memory: got none, need %zu bytes", bytes);
}

segfm_model_options segfm_model_options_default(void) { return (segfm_model_options){.corrector = true}; }

/* Binds file to model: once counting, once for real. */
static segfm_status bind(segfm_model *model, const weights_file *file, const segfm_model_options *options,
                         segfm_error *error) {
    nn_arena arena = {0};
    int threads = nn_threads(options->threads);
    segfm_status status = segvol_model_bind(&model->net, file, options->corrector, &arena, threads, NULL, NULL, error);
    if (status != SEGFM_OK) return status;
    model->bytes = arena.used;
    model->memory = aligned_memory(arena.used);
    if (model->memory == NULL) return no_memory(arena.used, error);
    arena = (nn_arena){.base = model->memory, .capacity = arena.used};
    return segvol_model_bind(&model->net, file, options->corrector, &arena, threads, options->done, options->done_user,
                             error);
}

segfm_status segfm_model_open(const void *bytes, size_t size, const segfm_model_options *options, segfm_model **out,
                              segfm_error *error) {
    segfm_model_options defaults = segfm_model_options_default();
    *out = NULL;
    if (options == NULL) options = &defaults;
    if (options->threads < 0)
        return base_fail(error, SEGFM_BAD_USAGE, "model options: got %d threads, need at least 0", options->threads);
    weights_file file;
    segfm_status status = weights_open(bytes, size, &file, error);
    if (status != SEGFM_OK) return status;
    segfm_model *model = calloc(1, sizeof *model);
    if (model == NULL) status = no_memory(sizeof *model, error);
    else status = bind(model, &file, options, error);
    weights_close(&file);
    if (status == SEGFM_OK) *out = model;
    else segfm_model_close(model);
    return status;
}

void segfm_model_close(segfm_model *model) {
    if (model == NULL) return;
    free(model->memory);
    free(model);
}

void segfm_model_window(const segfm_model *model, int64_t window[3]) {
    for (int axis = 0; axis < 3; axis++) window[axis] = model->net.config.spatial[axis];
}

size_t segfm_model_bytes(const segfm_model *model) { return sizeof *model + model->bytes; }

/* ---- session ------------------------------------------------------------------------------------------------- */

/* A slot of the cache. What a window shows depends on where it starts and which of its voxels lie in the region (the others
   are zero): both in the crop's coordinates. */
typedef struct slot {
    int64_t start[3];
    vol_box shown;
    uint64_t pass;   /* the segmentation that used it last; 0: empty */
    real *embedding; /* (segvol_image_count) */
} slot;

/* Slots are searched one by one, and a small model's embeddings would leave room for millions. */
enum { MAX_SLOTS = 4096 };

typedef struct click {
    int64_t at[3]; /* in the scan */
    bool foreground;
} click;

/* What the last segmentation found. */
typedef struct result {
    bool valid;
    bool has_region;
    vol_box region;      /* cut to the crop */
    vol_box wide_region; /* as the reference computes it */
    vol_box zoom_box;
    int64_t windows, encoded, reused;
} result;

struct segfm_session {
    const segvol_model *net;
    segfm_options options;
    void *owned; /* memory to free, or NULL */
    size_t bytes;

    vol_shape scan, window, cropped; /* cropped: the crop's shape */
    vol_box crop;
    bool has_volume, has_zoom_embedding;

    bool has_box;
    vol_box box; /* in the scan */
    click *clicks;
    int click_count;
    result found;

    real *image;              /* (cropped) */
    real *region_logits;      /* (found.region); also scratch of the size of a scan */
    uint8_t *prediction;      /* (cropped) mask of the zoom-out pass */
    int32_t *source;          /* nearest source along x of every column of the crop */
    real *zoom_image;         /* (window) */
    real *zoom_logits;        /* (window) */
    real *zoom_embedding;     /* (segvol_image_count) */
    real *part, *part_logits; /* (window) one window of the region */
    uint8_t *part_prediction; /* (window) */
    slot *slots;              /* (slot_count) */
    size_t slot_count;
    uint64_t pass;        /* counts segmentations */
    segvol_point *points; /* (max_clicks) prompts of one pass */
    segvol_workspace workspace;
};

segfm_options segfm_options_default(void) {
    const size_t megabytes = sizeof(size_t) < 8 ? 64 : 512; /* of address space; what is not used costs no memory */
    return (segfm_options){.max_clicks = 64, .cache_bytes = megabytes << 20};
}

/* Lays a session for scans of `shape` out in the arena. */
static segfm_status plan(segfm_session *s, const segvol_model *net, vol_shape shape, const segfm_options *options,
                         nn_arena *arena, segfm_error *error) {
    size_t scan, dims[3];
    for (int axis = 0; axis < 3; axis++) dims[axis] = (size_t)shape.n[axis];
    if (!base_count(dims, 3, 1, &scan)) return no_memory(SIZE_MAX, error);
    *s = (segfm_session){.net = net, .options = *options, .scan = shape};
    s->options.threads = nn_threads(options->threads);
    for (int axis = 0; axis < 3; axis++) s->window.n[axis] = net->config.spatial[axis];
    size_t window = net->window_voxels, image = segvol_image_count(net), clicks = (size_t)options->max_clicks;
    s->clicks = nn_arena_take(arena, clicks, sizeof *s->clicks);
    s->points = nn_arena_take(arena, clicks, sizeof *s->points);
    s->image = nn_arena_reals(arena, scan);
    s->region_logits = nn_arena_reals(arena, scan);
    s->prediction = nn_arena_take(arena, scan, 1);
    s->source = nn_arena_take(arena, dims[2], sizeof *s->source);
    s->zoom_image = nn_arena_reals(arena, window);
    s->zoom_logits = nn_arena_reals(arena, window);
    s->zoom_embedding = nn_arena_reals(arena, image);
    s->part = nn_arena_reals(arena, window);
    s->part_logits = nn_arena_reals(arena, window);
    s->part_prediction = nn_arena_take(arena, window, 1);
    s->slot_count = options->cache_bytes / nn_plus(nn_times(image, sizeof(real)), sizeof(slot));
    if (s->slot_count == 0) s->slot_count = 1;
    if (s->slot_count > MAX_SLOTS) s->slot_count = MAX_SLOTS;
    s->slots = nn_arena_take(arena, s->slot_count, sizeof *s->slots);
    real *embeddings = nn_arena_reals(arena, nn_times(s->slot_count, image));
    for (size_t i = 0; s->slots != NULL && embeddings != NULL && i < s->slot_count; i++)
        s->slots[i] = (slot){.embedding = embeddings + i * image};
    if (arena->failed) return no_memory(SIZE_MAX, error);
    return segvol_workspace_plan(&s->workspace, net, clicks + 2, s->options.threads, false, arena, error);
}

/* Checks what the caller gives and counts the bytes: the struct itself comes first in the arena. */
static segfm_status count_bytes(const segfm_model *model, const int64_t shape[3], const segfm_options *options,
                                size_t *bytes, segfm_error *error) {
    for (int axis = 0; axis < 3; axis++)
        if (shape[axis] < 1 || shape[axis] > INT32_MAX)
            return base_fail(error, SEGFM_BAD_USAGE, "scan shape, axis %d: got %lld voxels, need 1 to %d", axis,
                             (long long)shape[axis], INT32_MAX);
    if (options->max_clicks < 1 || options->max_clicks > 65536 || options->threads < 0)
        return base_fail(error, SEGFM_BAD_USAGE,
                         "session options: got %d clicks and %d threads, need 1 to 65536 and at least 0",
                         options->max_clicks, options->threads);
    segfm_session s;
    nn_arena arena = {0};
    nn_arena_take(&arena, 1, sizeof s);
    segfm_status status = plan(&s, &model->net, (vol_shape){{shape[0], shape[1], shape[2]}}, options, &arena, error);
    if (status == SEGFM_OK) *bytes = arena.used;
    return status;
}

segfm_status segfm_session_bytes(const segfm_model *model, const int64_t shape[3], const segfm_options *options,
                                 size_t *bytes, segfm_error *error) {
    segfm_options defaults = segfm_options_default();
    return count_bytes(model, shape, options != NULL ? options : &defaults, bytes, error);
}

segfm_status segfm_session_new(const segfm_model *model, const int64_t shape[3], const segfm_options *options,
                               void *memory, size_t size, segfm_session **out, segfm_error *error) {
    segfm_options defaults = segfm_options_default();
    size_t need = 0;
    *out = NULL;
    if (options == NULL) options = &defaults;
    segfm_status status = count_bytes(model, shape, options, &need, error);
    if (status != SEGFM_OK) return status;
    void *owned = NULL;
    if (memory == NULL) {
        memory = owned = aligned_memory(need);
        if (memory == NULL) return no_memory(need, error);
    } else if (size < need || (uintptr_t)memory % NN_ALIGN != 0) {
        return base_fail(error, SEGFM_BAD_USAGE, "session memory: got %zu bytes, need %zu, %d-byte aligned", size, need,
                         NN_ALIGN);
    }
    nn_arena arena = {.base = memory, .capacity = need};
    segfm_session *s = nn_arena_take(&arena, 1, sizeof *s);
    status = plan(s, &model->net, (vol_shape){{shape[0], shape[1], shape[2]}}, options, &arena, error);
    if (status != SEGFM_OK) {
        free(owned);
        return status;
    }
    s->owned = owned;
    s->bytes = need;
    *out = s;
    return SEGFM_OK;
}

void segfm_session_free(segfm_session *session) {
    if (session == NULL) return;
    void *owned = session->owned; /* the session itself lies in it */
    nn_arena_leave(session, session->bytes);
    free(owned);
}

/* ---- the scan ------------------------------------------------------------------------------------------------ */

segfm_status segfm_set_volume(segfm_session *s, const float *voxels, segfm_error *error) {
    size_t n = vol_count(s->scan);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(voxels[i]))
            return base_fail(error, SEGFM_BAD_INPUT, "voxel %zu of the scan is not a finite number", i);
    segfm_reset(s);
    vol_foreground stats;
    vol_foreground_stats(voxels, n, s->options.threads, &stats);
    vol_normalise(voxels, n, &stats, s->options.threads, s->region_logits);
    s->crop = vol_foreground_box(s->region_logits, s->scan);
    if (vol_box_is_empty(s->crop)) /* a constant scan: nothing to crop to */
        for (int axis = 0; axis < 3; axis++) s->crop.lo[axis] = 0, s->crop.hi[axis] = s->scan.n[axis] - 1;
    for (int axis = 0; axis < 3; axis++) s->cropped.n[axis] = s->crop.hi[axis] - s->crop.lo[axis] + 1;
    vol_crop(s->region_logits, s->scan, s->crop, s->image);
    vol_resize_nearest(s->image, s->cropped, s->zoom_image, s->window, s->options.threads);
    for (int64_t x = 0; x < s->cropped.n[2]; x++)
        s->source[x] = (int32_t)vol_nearest_source(x, s->window.n[2], s->cropped.n[2]);
    s->has_volume = true;
    s->has_zoom_embedding = false;
    for (size_t i = 0; i < s->slot_count; i++) s->slots[i].pass = 0;
    return SEGFM_OK;
}

void segfm_reset(segfm_session *s) {
    s->has_box = false;
    s->click_count = 0;
    s->found = (result){0};
}

/* ---- prompts in other frames --------------------------------------------------------------------------------- */

static vol_box box_in_crop(const segfm_session *s) {
    vol_box b = s->has_box ? vol_box_intersect(s->box, s->crop) : vol_box_none();
    if (!vol_box_is_empty(b))
        for (int axis = 0; axis < 3; axis++) b.lo[axis] -= s->crop.lo[axis], b.hi[axis] -= s->crop.lo[axis];
    return b;
}

static void box_as_reals(vol_box b, real out[6]) {
    if (vol_box_is_empty(b)) b = vol_box_none();
    for (int axis = 0; axis < 3; axis++) out[axis] = (real)b.lo[axis], out[3 + axis] = (real)b.hi[axis];
}

/* The clicks inside the crop, each moved to the zoomed-out voxel that its centre falls into. */
static size_t zoomed_clicks(segfm_session *s) {
    size_t count = 0;
    for (int i = 0; i < s->click_count; i++) {
        int64_t at[3];
        bool inside = true;
        for (int axis = 0; axis < 3; axis++) {
            at[axis] = s->clicks[i].at[axis] - s->crop.lo[axis];
            inside = inside && at[axis] >= 0 && at[axis] < s->cropped.n[axis];
            at[axis] = (2 * at[axis] + 1) * s->window.n[axis] / (2 * s->cropped.n[axis]);
        }
        if (inside) s->points[count++] = (segvol_point){(real)at[0], (real)at[1], (real)at[2], s->clicks[i].foreground};
    }
    return count;
}

/* The clicks inside window w of the region, in its coordinates. */
static size_t window_clicks(segfm_session *s, const vol_windows *plan_, int64_t w) {
    size_t count = 0;
    for (int i = 0; i < s->click_count; i++) {
        vol_box voxel;
        for (int axis = 0; axis < 3; axis++) voxel.lo[axis] = voxel.hi[axis] = s->clicks[i].at[axis] - s->crop.lo[axis];
        vol_box b = vol_window_box(plan_, w, s->found.region.lo, voxel);
        if (!vol_box_is_empty(b))
            s->points[count++] = (segvol_point){(real)b.lo[0], (real)b.lo[1], (real)b.lo[2], s->clicks[i].foreground};
    }
    return count;
}

/* ---- segmentation -------------------------------------------------------------------------------------------- */

static bool go_on(const segfm_session *s, int64_t done, int64_t total) {
    return s->options.progress == NULL || s->options.progress(s->options.progress_user, done, total);
}

/* The pass over the whole crop at the window's size → zoom_logits, prediction. */
static void zoom_out(segfm_session *s, vol_box box) {
    if (s->has_zoom_embedding) s->found.reused++;
    else {
        segvol_encode(s->net, &s->workspace, s->zoom_image, s->zoom_embedding);
        s->has_zoom_embedding = true;
        s->found.encoded++;
    }
    s->found.zoom_box = s->has_box ? vol_resize_box(box, s->cropped, s->window) : vol_box_none();
    real corners[6];
    box_as_reals(s->found.zoom_box, corners);
    segvol_prompts prompts = {s->points, zoomed_clicks(s), s->has_box ? corners : NULL};
    segvol_decode(s->net, &s->workspace, s->zoom_embedding, &prompts);
    segvol_upsample(s->net, &s->workspace, 0, s->zoom_logits);
    vol_resize_nearest(s->zoom_logits, s->window, s->region_logits, s->cropped, s->options.threads);
    size_t n = vol_count(s->cropped);
    for (size_t i = 0; i < n; i++) s->prediction[i] = nn_sigmoid_above_half(s->region_logits[i]);
}

/* The embedding of window w of the region, encoded unless a slot still holds it. A full cache gives up what earlier
   segmentations left, the oldest first; windows of this one that find no room share the last slot, so that the next pass
   over the same windows finds all the others. */
static const real *window_embedding(segfm_session *s, const vol_windows *windows, int64_t w) {
    slot wanted = {.pass = s->pass}, *victim = &s->slots[s->slot_count - 1];
    vol_windows_start(windows, w, wanted.start);
    for (int axis = 0; axis < 3; axis++) {
        int64_t start = wanted.start[axis] - windows->pad_lo[axis]; /* in the region */
        int64_t end = start + windows->window.n[axis];
        wanted.start[axis] = s->found.region.lo[axis] + start;
        wanted.shown.lo[axis] = s->found.region.lo[axis] + (start > 0 ? start : 0);
        wanted.shown.hi[axis] =
            s->found.region.lo[axis] + (end < windows->region.n[axis] ? end : windows->region.n[axis]) - 1;
    }
    for (size_t i = 0; i < s->slot_count; i++) {
        slot *c = &s->slots[i];
        if (c->pass != 0 && memcmp(c->start, wanted.start, sizeof c->start) == 0 &&
            memcmp(&c->shown, &wanted.shown, sizeof c->shown) == 0) {
            c->pass = s->pass;
            s->found.reused++;
            return c->embedding;
        }
        if (c->pass < victim->pass) victim = c;
    }
    wanted.embedding = victim->embedding;
    *victim = wanted;
    vol_window_extract(s->image, s->cropped, s->found.region.lo, windows, w, s->part);
    segvol_encode(s->net, &s->workspace, s->part, victim->embedding);
    s->found.encoded++;
    return victim->embedding;
}

/* One window of the region → part_logits. With a single window the box is the user's; with more, each window's box is
   derived from the zoom-out prediction inside it. Without a user's box, a window with clicks needs no box. */
static void zoom_in_window(segfm_session *s, const vol_windows *windows, int64_t w, vol_box user_box) {
    vol_box box;
    if (s->has_box && s->found.windows == 1) {
        box = vol_window_box(windows, w, s->found.region.lo, user_box);
    } else {
        vol_window_extract_mask(s->prediction, s->cropped, s->found.region.lo, windows, w, s->part_prediction);
        box = vol_mask_prompt_box(s->part_prediction, s->window);
    }
    real corners[6];
    box_as_reals(box, corners);
    segvol_prompts prompts = {s->points, window_clicks(s, windows, w), corners};
    if (!s->has_box && prompts.point_count > 0) prompts.box = NULL;
    segvol_decode(s->net, &s->workspace, window_embedding(s, windows, w), &prompts);
    segvol_upsample(s->net, &s->workspace, 0, s->part_logits);
}

/* Zoom out, find the region, zoom in (SPEC 4). */
static segfm_status segment(segfm_session *s, segfm_error *error) {
    vol_box box = box_in_crop(s);
    s->found = (result){0};
    s->pass++;
    if (!go_on(s, 0, 1)) return base_fail(error, SEGFM_CANCELLED, "cancelled before the first pass");
    zoom_out(s, box);
    vol_box both = vol_box_union(vol_mask_bounds(s->prediction, s->cropped), box);
    s->found.wide_region = vol_region(both, s->cropped, s->window);
    s->found.region = s->found.wide_region;
    for (int axis = 0; axis < 3; axis++)
        if (s->found.region.hi[axis] >= s->cropped.n[axis]) s->found.region.hi[axis] = s->cropped.n[axis] - 1;
    s->found.has_region = !s->options.zoom_only && !vol_box_is_empty(s->found.region);
    if (s->found.has_region) {
        vol_shape shape;
        vol_windows windows;
        for (int axis = 0; axis < 3; axis++) shape.n[axis] = s->found.region.hi[axis] - s->found.region.lo[axis] + 1;
        vol_windows_plan(shape, s->window, &windows);
        s->found.windows = vol_windows_total(&windows);
        memset(s->region_logits, 0, vol_count(shape) * sizeof(real));
        for (int64_t w = 0; w < s->found.windows; w++) {
            if (!go_on(s, 1 + w, 1 + s->found.windows))
                return base_fail(error, SEGFM_CANCELLED, "cancelled before window %lld of %lld", (long long)w + 1,
                                 (long long)s->found.windows);
            zoom_in_window(s, &windows, w, box);
            vol_window_add(&windows, w, s->part_logits, s->region_logits);
        }
        vol_windows_average(&windows, s->region_logits, s->options.threads);
    }
    go_on(s, 1 + s->found.windows, 1 + s->found.windows);
    s->found.valid = true;
    return SEGFM_OK;
}

/* ---- prompts ------------------------------------------------------------------------------------------------- */

static segfm_status check_volume(const segfm_session *s, segfm_error *error) {
    return s->has_volume ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "the session has no scan yet");
}

/* A cancelled segmentation leaves half a result: forget it. */
static segfm_status update(segfm_session *s, segfm_error *error) {
    segfm_status status = segment(s, error);
    if (status != SEGFM_OK) segfm_reset(s);
    return status;
}

segfm_status segfm_box(segfm_session *s, const int64_t box[6], segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    for (int axis = 0; axis < 3; axis++) {
        int64_t lo = box[axis], hi = box[3 + axis];
        if (lo > hi)
            return base_fail(error, SEGFM_BAD_USAGE, "box, axis %c: got %lld to %lld, which is empty", "zyx"[axis],
                             (long long)lo, (long long)hi);
        if (lo < 0 || hi >= s->scan.n[axis])
            return base_fail(error, SEGFM_BAD_USAGE, "box, axis %c: got %lld to %lld, the scan has 0 to %lld",
                             "zyx"[axis], (long long)lo, (long long)hi, (long long)s -> scan.n[axis] - 1);
    }
    segfm_reset(s);
    s->has_box = true;
    for (int axis = 0; axis < 3; axis++) s->box.lo[axis] = box[axis], s->box.hi[axis] = box[3 + axis];
    return update(s, error);
}

segfm_status segfm_click(segfm_session *s, const int64_t voxel[3], bool foreground, segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    for (int axis = 0; axis < 3; axis++)
        if (voxel[axis] < 0 || voxel[axis] >= s->scan.n[axis])
            return base_fail(error, SEGFM_BAD_USAGE, "click, axis %c: got %lld, the scan has 0 to %lld", "zyx"[axis],
                             (long long)voxel[axis], (long long)s -> scan.n[axis] - 1);
    if (s->click_count == s->options.max_clicks)
        return base_fail(error, SEGFM_BAD_USAGE, "clicks: the session has room for %d", s->options.max_clicks);
    s->clicks[s->click_count++] = (click){{voxel[0], voxel[1], voxel[2]}, foreground};
    return update(s, error);
}

/* ---- results ------------------------------------------------------------------------------------------------- */

/* One row (z,y) of the crop: where its logits come from. */
typedef struct logit_row {
    const real *zoom;   /* through source[x] */
    const real *region; /* or NULL when the row misses the region */
} logit_row;

static logit_row row_of(const segfm_session *s, int64_t z, int64_t y) {
    int64_t sz = vol_nearest_source(z, s->window.n[0], s->cropped.n[0]);
    int64_t sy = vol_nearest_source(y, s->window.n[1], s->cropped.n[1]);
    logit_row row = {s->zoom_logits + (sz * s->window.n[1] + sy) * s->window.n[2], NULL};
    const vol_box *r = &s->found.region;
    if (s->found.has_region && z >= r->lo[0] && z <= r->hi[0] && y >= r->lo[1] && y <= r->hi[1])
        row.region =
            s->region_logits + ((z - r->lo[0]) * (r->hi[1] - r->lo[1] + 1) + y - r->lo[1]) * (r->hi[2] - r->lo[2] + 1);
    return row;
}

static real logit_at(const segfm_session *s, const logit_row *row, int64_t x) {
    bool inside = row->region != NULL && x >= s->found.region.lo[2] && x <= s->found.region.hi[2];
    return inside ? row->region[x - s->found.region.lo[2]] : row->zoom[s->source[x]];
}

/* Fills mask or logits (the other is NULL). */
static segfm_status results(const segfm_session *s, uint8_t *mask, float *logits, size_t count, segfm_error *error) {
    size_t n = vol_count(s->scan);
    if (count < n) return base_fail(error, SEGFM_BAD_USAGE, "the result has %zu voxels, got room for %zu", n, count);
    if (mask != NULL) memset(mask, 0, n);
    for (size_t i = 0; logits != NULL && i < n; i++) logits[i] = -100.0f;
    if (!s->found.valid) return SEGFM_OK;
    for (int64_t z = 0; z < s->cropped.n[0]; z++)
        for (int64_t y = 0; y < s->cropped.n[1]; y++) {
            logit_row row = row_of(s, z, y);
            size_t at =
                (size_t)(((z + s->crop.lo[0]) * s->scan.n[1] + y + s->crop.lo[1]) * s->scan.n[2] + s->crop.lo[2]);
            for (int64_t x = 0; x < s->cropped.n[2]; x++) {
                real logit = logit_at(s, &row, x);
                if (mask != NULL) mask[at + (size_t)x] = nn_sigmoid_above_half(logit);
                else logits[at + (size_t)x] = (float)logit;
            }
        }
    return SEGFM_OK;
}

segfm_status segfm_mask(const segfm_session *s, uint8_t *mask, size_t count, segfm_error *error) {
    return results(s, mask, NULL, count, error);
}

segfm_status segfm_logits(const segfm_session *s, float *logits, size_t count, segfm_error *error) {
    return results(s, NULL, logits, count, error);
}

static void box_out(vol_box b, int64_t out[6]) {
    for (int axis = 0; axis < 3; axis++) out[axis] = b.lo[axis], out[3 + axis] = b.hi[axis];
}

void segfm_last_report(const segfm_session *s, segfm_report *out) {
    vol_box none = vol_box_none();
    box_out(s->has_volume ? s->crop : none, out->crop);
    box_out(s->found.valid ? s->found.zoom_box : none, out->zoom_box);
    box_out(s->found.has_region ? s->found.wide_region : none, out->region);
    out->windows = s->found.windows;
    out->encoded = s->found.encoded;
    out->reused = s->found.reused;
}
