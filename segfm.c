/* The session: volume + model + prompts → mask. Orchestration; the arithmetic is in nn and vol.

   Frames: the scan (clicks, the user's box, the mask); the crop, which is the scan's foreground (every other box, the
   logits); the view, which the zoomed-out window shows at its size; the region of interest (a part of the crop); the
   windows over the region. The view is the whole crop. With a model whose window follows the box it is the box and what is
   around it; then there is neither region nor other window, but there are other looks: at views of the box grown a little to one
   side. A box that the user has not given is guessed from the first click.

   What stands is a function of the object's actions, box and clicks, in their order:
     zoomed        what the decoder made of the box and the clicks in the zoomed-out window, as logits: the mean over the looks, less
                   the level above which there is the mask
     low masks     the same for each window of the region, with the clicks that the window shows
     corrections   for each click in the region, what the corrector wrote
     logits        the zoomed ones, or the low masks' mean, then the corrections in order, then the clicks (compose)
   A click changes what the decoder makes of the windows that show it and adds a correction, so undo decodes those windows again
   without it and drops the correction. In a window that follows the box the corrections of all clicks are made anew each time, on what the
   decoder makes of all clicks: so a window that has moved needs no pass for each of them. */
#include "segfm.h"

#include <math.h>
#ifndef SEGFM_NO_MALLOC
#include <stdlib.h>
#endif
#include <string.h>

#include "nn/segvol/segvol.h"
#include "vol/vol.h"

/* ---- model --------------------------------------------------------------------------------------------------- */

struct segfm_model { /* first in its memory, the weights follow */
    segvol_model net;
    void *owned; /* memory to free, or NULL */
    size_t bytes;
};

/* All that is ever allocated, for a model or a session whose caller gives no memory. With SEGFM_NO_MALLOC nothing is, and the
   library needs no heap. */
#ifndef SEGFM_NO_MALLOC
static void *aligned_memory(size_t bytes) {
    size_t rounded;
    if (!base_add(bytes, NN_ALIGN - 1, &rounded)) return NULL;
    return aligned_alloc(NN_ALIGN, rounded / NN_ALIGN * NN_ALIGN);
}

static void give_back(void *owned) { free(owned); }
#else
static void *aligned_memory(size_t bytes) {
    (void)bytes;
    return NULL;
}

static void give_back(void *owned) { (void)owned; }
#endif

static segfm_status no_memory(size_t bytes, segfm_error *error) {
    return base_fail(error, SEGFM_NO_MEMORY, "memory: got none, need %zu bytes", bytes);
}

/* *memory of `size` bytes, or NULL, becomes memory of `need` bytes; *owned: what is to be given back. */
static segfm_status find_memory(const char *what, size_t need, void **memory, size_t size, void **owned,
                                segfm_error *error) {
    *owned = NULL;
    if (*memory == NULL) {
        *memory = *owned = aligned_memory(need);
        return *memory != NULL ? SEGFM_OK : no_memory(need, error);
    }
    if (size < need || (uintptr_t)*memory % NN_ALIGN != 0)
        return base_fail(error, SEGFM_BAD_USAGE, "%s memory: got %zu bytes, need %zu, %d-byte aligned", what, size,
                         need, NN_ALIGN);
    return SEGFM_OK;
}

segfm_model_options segfm_model_options_default(void) { return (segfm_model_options){.corrector = true}; }

/* Checks options and file; *file: as it is opened, without memory. *need: bytes of the model. */
static segfm_status count_model(const void *bytes, size_t size, const segfm_model_options *options, weights_file *file,
                                size_t *need, segfm_error *error) {
    if (options->threads < 0)
        return base_fail(error, SEGFM_BAD_USAGE, "model options: got %d threads, need at least 0", options->threads);
    segfm_status status = weights_open_bare(bytes, size, file, error);
    if (status != SEGFM_OK) return status;
    segfm_model model;
    nn_arena arena = {0};
    nn_arena_take(&arena, 1, sizeof model);
    status = segvol_model_bind(&model.net, file, options->corrector, &arena, 1, NULL, NULL, error);
    if (status == SEGFM_OK) *need = arena.used;
    return status;
}

segfm_status segfm_model_need(const void *bytes, size_t size, const segfm_model_options *options, size_t *need,
                              segfm_error *error) {
    segfm_model_options defaults = segfm_model_options_default();
    weights_file file;
    return count_model(bytes, size, options != NULL ? options : &defaults, &file, need, error);
}

segfm_status segfm_model_open_in(const void *bytes, size_t size, const segfm_model_options *options, void *memory,
                                 size_t memory_size, segfm_model **out, segfm_error *error) {
    segfm_model_options defaults = segfm_model_options_default();
    weights_file file;
    void *owned = NULL;
    size_t need = 0;
    *out = NULL;
    if (options == NULL) options = &defaults;
    segfm_status status = count_model(bytes, size, options, &file, &need, error);
    if (status == SEGFM_OK) status = find_memory("model", need, &memory, memory_size, &owned, error);
    if (status != SEGFM_OK) return status;
    nn_arena arena = {.base = memory, .capacity = need};
    segfm_model *model = nn_arena_take(&arena, 1, sizeof *model);
    model->owned = owned;
    model->bytes = need;
    status = segvol_model_bind(&model->net, &file, options->corrector, &arena, nn_threads(options->threads),
                               options->done, options->done_user, error);
    if (status == SEGFM_OK) *out = model;
    else segfm_model_close(model);
    return status;
}

segfm_status segfm_model_open(const void *bytes, size_t size, const segfm_model_options *options, segfm_model **out,
                              segfm_error *error) {
    return segfm_model_open_in(bytes, size, options, NULL, 0, out, error);
}

void segfm_model_close(segfm_model *model) {
    if (model == NULL) return;
    void *owned = model->owned; /* the model itself lies in it */
    nn_arena_leave(model, model->bytes);
    give_back(owned);
}

void segfm_model_window(const segfm_model *model, int64_t window[3]) {
    for (int axis = 0; axis < 3; axis++) window[axis] = model->net.config.spatial[axis];
}

bool segfm_model_has_corrector(const segfm_model *model) { return model->net.gru_count > 0; }

size_t segfm_model_bytes(const segfm_model *model) { return model->bytes; }

/* ---- session ------------------------------------------------------------------------------------------------- */

/* A slot of the cache. What a window shows depends on where it starts and which of its voxels lie in the region (the others
   are zero): both in the crop's coordinates. */
typedef struct slot {
    int64_t start[3];
    vol_box shown;
    uint64_t pass;   /* the object that used it last; 0: empty */
    real *embedding; /* (segvol_image_count) */
} slot;

/* Slots are searched one by one, and a small model's embeddings would leave room for millions. */
enum { MAX_SLOTS = 4096 };

/* A view of the crop at the window's size. */
typedef struct look {
    vol_box view;    /* in the crop's coordinates */
    vol_box box;     /* that it follows, likewise; none: it shows the whole crop */
    bool encoded;    /* is the embedding the image's? */
    real *image;     /* (window) */
    real *embedding; /* (segvol_image_count) */
} look;

/* What the other looks are at: the box grown on the lower side of each axis, or on the upper one, by so many per cent of its extent.
   Their views hold the first one's. */
enum { LOOK_GROWTH = 10 };

/* The logit that a click gives its voxel, at least: a probability of 0.99995. */
static const real certain = 10;
/* The logit of what the model was not shown. */
static const real outside = -100;

typedef enum action_kind { ACTION_RESET, ACTION_BOX, ACTION_CLICK } action_kind;

/* One entry of the history; coordinates are the scan's. */
typedef struct action {
    action_kind kind;
    bool foreground; /* of a click, at box.lo */
    vol_box box;
} action;

struct segfm_session {
    const segvol_model *net;
    segfm_options options;
    void *owned; /* memory to free, or NULL */
    size_t bytes;

    vol_shape scan, window, cropped; /* cropped: the crop's shape */
    vol_box crop;
    bool has_volume;

    look looks[SEGFM_LOOKS]; /* the first is the one that clicks and corrections know */
    int look_count;

    /* The history. The current object is actions[first, cursor); redo knows actions[cursor, used), undo actions[oldest,
       cursor): what came before is forgotten. */
    action *actions; /* (capacity) */
    int capacity, oldest, first, cursor, used;
    bool has_box; /* actions[first] is a box, the clicks come after it */
    vol_box
        guessed; /* without one, in the crop's coordinates: the box that a window which follows one is given, or none */

    /* What stands. */
    bool valid, has_region;
    vol_box region;      /* cut to the crop */
    vol_windows windows; /* over the region */
    int64_t window_count;
    size_t steps; /* of the corrector */
    segfm_report report;
    uint64_t pass; /* counts objects begun */
    int64_t objects;

    real *image, *logits; /* (cropped) */
    uint8_t *mask;        /* (scan) */
    uint8_t *prediction;  /* (cropped) mask of the zoom-out pass that began the object */
    uint16_t *labels;     /* (scan) objects that are finished, or NULL */
    real *zoomed;         /* (window) */
    real *low;            /* (windows of the whole scan, low_voxels) */
    real *corners;        /* (windows of the whole scan, 6) each one's box prompt */
    real *spare;          /* (most_touched, low_voxels) what a click makes, until nothing can cancel it */
    int64_t *touched;     /* (most_touched) the windows of spare */
    size_t touched_count;
    real *part, *part_logits; /* (window) one window of the region */
    uint8_t *part_prediction; /* (window) */
    slot *slots;              /* (slot_count) */
    size_t slot_count;
    segvol_point *points; /* (max_clicks) prompts of one pass */
    segvol_workspace workspace;

    /* Corrections; of each step, what it wrote. */
    segvol_corrector corrector;
    vol_samples samples;
    real *coordinates, *delta, *offset; /* (2K, 3), (2K), (2K, 3) */
    size_t most_written;                /* by a step */
    int64_t *written;      /* (max_clicks, most_written) voxels of the crop, or of a window that follows the box … */
    real *written_logits;  /* … and their logits … */
    size_t *written_count; /* (max_clicks) … and how many there are */
    void *spread_scratch;
};

segfm_options segfm_options_default(void) {
    const size_t megabytes = sizeof(size_t) < 8 ? 64 : 512; /* of address space; what is not used costs no memory */
    return (segfm_options){.click_by = SEGFM_BY_BEST, .max_clicks = 64, .cache_bytes = megabytes << 20};
}

static size_t points_of(const segvol_model *net) { return net->gru_count > 0 ? 2 * (size_t)net->config.topk : 0; }

static void plan_windows(segfm_session *s, nn_arena *arena) {
    vol_windows all; /* no region has more windows than the whole scan */
    vol_windows_plan(s->scan, s->window, &all);
    size_t low = s->net->low_voxels, windows = 1, most_touched = 1;
    for (int axis = 0; axis < 3; axis++) {
        int64_t step = all.interval[axis],
                most = (s->window.n[axis] + step - 1) / step + 1; /* the last one is pushed in */
        windows = nn_times(windows, (size_t)all.count[axis]);
        most_touched *= (size_t)(most < all.count[axis] ? most : all.count[axis]);
    }
    s->low = nn_arena_reals(arena, nn_times(windows, low));
    s->corners = nn_arena_reals(arena, nn_times(windows, 6));
    s->spare = nn_arena_reals(arena, nn_times(most_touched, low));
    s->touched = nn_arena_take(arena, most_touched, sizeof *s->touched);
}

static void plan_slots(segfm_session *s, nn_arena *arena) {
    size_t image = segvol_image_count(s->net);
    s->slot_count = s->options.cache_bytes / nn_plus(nn_times(image, sizeof(real)), sizeof(slot));
    if (s->slot_count == 0) s->slot_count = 1;
    if (s->slot_count > MAX_SLOTS) s->slot_count = MAX_SLOTS;
    s->slots = nn_arena_take(arena, s->slot_count, sizeof *s->slots);
    real *embeddings = nn_arena_reals(arena, nn_times(s->slot_count, image));
    for (size_t i = 0; s->slots != NULL && embeddings != NULL && i < s->slot_count; i++)
        s->slots[i] = (slot){.embedding = embeddings + i * image};
}

/* Clicks spread in windows that follow a box. */
static bool may_spread(const segfm_session *s) {
    return s->net->config.frame > 0 && (s->options.click_by & SEGFM_BY_SPREAD) != 0 && s->options.variant == SEGFM_SEED;
}

static segfm_status plan_corrector(segfm_session *s, nn_arena *arena, segfm_error *error) {
    size_t clicks = (size_t)s->options.max_clicks, points = points_of(s->net);
    s->most_written = points;
    if (may_spread(s)) {
        s->most_written = nn_plus(points, s->net->window_voxels);
        s->spread_scratch = nn_arena_take(arena, vol_spread_scratch(s->window, s->options.threads), 1);
    }
    s->written = nn_arena_take(arena, nn_times(clicks, s->most_written), sizeof *s->written);
    s->written_logits = nn_arena_reals(arena, nn_times(clicks, s->most_written));
    s->written_count = nn_arena_take(arena, clicks, sizeof *s->written_count);
    if (points == 0) return SEGFM_OK;
    vol_shape largest = s->scan; /* of what it may work in: the scan, or a window that follows the box */
    for (int axis = 0; axis < 3; axis++)
        if (s->window.n[axis] > largest.n[axis]) largest.n[axis] = s->window.n[axis];
    vol_samples_plan(&s->samples, points / 2, largest, arena);
    s->coordinates = nn_arena_reals(arena, 3 * points);
    s->delta = nn_arena_reals(arena, points);
    s->offset = nn_arena_reals(arena, 3 * points);
    return segvol_corrector_plan(&s->corrector, s->net, clicks, s->options.threads, arena, error);
}

/* How many looks an object may have. */
static int most_looks(const segfm_session *s) {
    if (s->net->config.frame == 0) return 1;
    return s->options.looks > 0 ? s->options.looks : SEGFM_LOOKS;
}

/* Lays a session for scans of `shape` out in the arena. */
static segfm_status plan(segfm_session *s, const segvol_model *net, vol_shape shape, const segfm_options *options,
                         nn_arena *arena, segfm_error *error) {
    size_t scan, dims[3];
    for (int axis = 0; axis < 3; axis++) dims[axis] = (size_t)shape.n[axis];
    if (!base_count(dims, 3, 1, &scan)) return no_memory(SIZE_MAX, error);
    *s = (segfm_session){.net = net, .options = *options, .scan = shape};
    s->options.threads = nn_threads(options->threads);
    if (options->click_by == SEGFM_BY_BEST)
        s->options.click_by = SEGFM_BY_DECODER | (net->config.frame > 0 ? SEGFM_BY_SPREAD : SEGFM_BY_CORRECTOR);
    for (int axis = 0; axis < 3; axis++) s->window.n[axis] = net->config.spatial[axis];
    size_t window = net->window_voxels, clicks = (size_t)options->max_clicks;
    s->capacity = 2 * options->max_clicks + 16;
    s->actions = nn_arena_take(arena, (size_t)s->capacity, sizeof *s->actions);
    s->points = nn_arena_take(arena, clicks, sizeof *s->points);
    s->image = nn_arena_reals(arena, scan);
    s->logits = nn_arena_reals(arena, scan);
    s->mask = nn_arena_take(arena, scan, 1);
    s->prediction = nn_arena_take(arena, scan, 1);
    if (options->keep_objects) s->labels = nn_arena_take(arena, scan, sizeof *s->labels);
    s->zoomed = nn_arena_reals(arena, window);
    for (int i = 0; i < most_looks(s); i++) {
        s->looks[i].image = nn_arena_reals(arena, window);
        s->looks[i].embedding = nn_arena_reals(arena, segvol_image_count(net));
    }
    s->part = nn_arena_reals(arena, window);
    s->part_logits = nn_arena_reals(arena, window);
    s->part_prediction = nn_arena_take(arena, window, 1);
    plan_windows(s, arena);
    plan_slots(s, arena);
    segfm_status status = plan_corrector(s, arena, error);
    if (status == SEGFM_OK && arena->failed) return no_memory(SIZE_MAX, error);
    if (status != SEGFM_OK) return status;
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
    if (options->looks < 0 || options->looks > SEGFM_LOOKS)
        return base_fail(error, SEGFM_BAD_USAGE, "session options: got %d looks, need 0 to %d", options->looks,
                         SEGFM_LOOKS);
    if (options->click_by > SEGFM_BY_BEST || (unsigned)options->variant > SEGFM_UPSTREAM)
        return base_fail(error, SEGFM_BAD_USAGE, "session options: click_by or variant is none of its values");
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
    void *owned;
    status = find_memory("session", need, &memory, size, &owned, error);
    if (status != SEGFM_OK) return status;
    nn_arena arena = {.base = memory, .capacity = need};
    segfm_session *s = nn_arena_take(&arena, 1, sizeof *s);
    status = plan(s, &model->net, (vol_shape){{shape[0], shape[1], shape[2]}}, options, &arena, error);
    if (status != SEGFM_OK) {
        give_back(owned);
        return status;
    }
    s->owned = owned;
    s->bytes = need;
    memset(s->mask, 0, vol_count(s->scan));
    *out = s;
    return SEGFM_OK;
}

void segfm_session_free(segfm_session *session) {
    if (session == NULL) return;
    void *owned = session->owned; /* the session itself lies in it */
    nn_arena_leave(session, session->bytes);
    give_back(owned);
}

/* ---- the scan ------------------------------------------------------------------------------------------------ */

/* Nothing stands: what an object is before its first action. */
static void clear_result(segfm_session *s) {
    s->valid = s->has_region = false;
    s->window_count = 0;
    s->steps = 0;
    s->guessed = vol_box_none();
    for (int axis = 0; axis < 3; axis++) s->report.zoom_box[axis] = s->report.zoom_box[3 + axis] = -1;
    for (int axis = 0; axis < 3; axis++) s->report.region[axis] = s->report.region[3 + axis] = -1;
}

static void forget_object(segfm_session *s) {
    s->oldest = s->first = s->cursor = s->used = 0;
    s->has_box = false;
    s->report = (segfm_report){0};
    clear_result(s);
    memset(s->mask, 0, vol_count(s->scan));
}

/* A box of the crop as look i has it. */
static vol_box grown(const segfm_session *s, vol_box box, int i) {
    for (int axis = 0; axis < 3 && i > 0; axis++) {
        int64_t by = ((box.hi[axis] - box.lo[axis] + 1) * LOOK_GROWTH + 50) / 100, last = s->cropped.n[axis] - 1;
        if (i == 1) box.lo[axis] = box.lo[axis] > by ? box.lo[axis] - by : 0;
        else box.hi[axis] = last - box.hi[axis] > by ? box.hi[axis] + by : last;
    }
    return box;
}

/* What the zoomed-out window shows from now on: a box of the crop and what is around it, in so many looks, or without one the
   whole crop. */
static void show(segfm_session *s, vol_box box, int looks) {
    s->look_count = looks;
    for (int i = 0; i < looks; i++) {
        look *l = &s->looks[i];
        l->encoded = false;
        if (vol_box_is_empty(box)) {
            l->box = box, l->view = vol_box_whole(s->cropped);
            vol_resize_nearest(s->image, s->cropped, l->image, s->window, vol_box_whole(s->window), s->options.threads);
            continue;
        }
        l->box = grown(s, box, i);
        l->view = vol_frame(l->box, s->cropped, s->net->config.frame);
        vol_zoom(s->image, s->cropped, l->view, l->image, s->window, s->options.threads);
        vol_contrast(l->image, s->window, vol_zoom_box(l->box, l->view, s->window));
    }
}

segfm_status segfm_set_volume(segfm_session *s, const float *voxels, segfm_error *error) {
    size_t n = vol_count(s->scan);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(voxels[i]))
            return base_fail(error, SEGFM_BAD_INPUT, "voxel %zu of the scan is not a finite number", i);
    forget_object(s);
    s->objects = 0;
    if (s->labels != NULL) memset(s->labels, 0, n * sizeof *s->labels);
    vol_foreground stats;
    vol_foreground_stats(voxels, n, s->options.threads, &stats);
    vol_normalise(voxels, n, &stats, s->options.threads, s->logits);
    s->crop = vol_foreground_box(s->logits, s->scan);
    if (vol_box_is_empty(s->crop)) s->crop = vol_box_whole(s->scan); /* a constant scan: nothing to crop to */
    s->cropped = vol_box_shape(s->crop);
    vol_crop(s->logits, s->scan, s->crop, s->image);
    s->has_volume = true;
    show(s, vol_box_none(), 1);
    for (size_t i = 0; i < s->slot_count; i++) s->slots[i].pass = 0;
    return SEGFM_OK;
}

/* ---- prompts in other frames --------------------------------------------------------------------------------- */

static int click_count(const segfm_session *s) { return s->cursor - s->first - s->has_box; }

/* Click i of the object. */
static const action *click_at(const segfm_session *s, int i) { return &s->actions[s->first + s->has_box + i]; }

/* A box of the scan in the crop; the box of nothing when it lies outside. */
static vol_box into_crop(const segfm_session *s, vol_box b) {
    b = vol_box_intersect(b, s->crop);
    for (int axis = 0; axis < 3 && !vol_box_is_empty(b); axis++)
        b.lo[axis] -= s->crop.lo[axis], b.hi[axis] -= s->crop.lo[axis];
    return b;
}

static bool holds(vol_box outer, vol_box voxel) { return !vol_box_is_empty(vol_box_intersect(outer, voxel)); }

/* The object's box in the crop: the user's, or what was guessed from the first click. */
static vol_box object_box(const segfm_session *s) {
    return s->has_box ? into_crop(s, s->actions[s->first].box) : s->guessed;
}

/* Does the model's window follow the object's box? */
static bool follows(const segfm_session *s) {
    return s->net->config.frame > 0 && (s->has_box || !vol_box_is_empty(s->guessed));
}

/* What the window follows: the object's box, and the foreground clicks beside it. */
static vol_box followed_box(const segfm_session *s) {
    vol_box b = object_box(s);
    for (int i = 0; i < click_count(s) && !vol_box_is_empty(b); i++)
        if (click_at(s, i)->foreground) b = vol_box_union(b, into_crop(s, click_at(s, i)->box));
    return b;
}

/* Does the window not show what it should with the clicks there are? */
static bool must_move(const segfm_session *s) {
    vol_box b = follows(s) ? followed_box(s) : vol_box_none();
    return !vol_box_is_empty(b) && memcmp(&b, &s->looks[0].box, sizeof b) != 0;
}

static void box_as_reals(vol_box b, real out[6]) {
    if (vol_box_is_empty(b)) b = vol_box_none();
    for (int axis = 0; axis < 3; axis++) out[axis] = (real)b.lo[axis], out[3 + axis] = (real)b.hi[axis];
}

/* Those of the first `clicks` clicks that lie in a view, there → points. */
static size_t points_in(segfm_session *s, vol_box view, int clicks) {
    size_t count = 0;
    for (int i = 0; i < clicks; i++) {
        vol_box at = into_crop(s, click_at(s, i)->box);
        int64_t to[3];
        if (!holds(view, at)) continue;
        vol_zoom_point(at.lo, view, s->window, to);
        s->points[count++] = (segvol_point){(real)to[0], (real)to[1], (real)to[2], click_at(s, i)->foreground};
    }
    return count;
}

/* Those of the first `clicks` clicks that window w shows, in its coordinates → points. */
static size_t window_points(segfm_session *s, int64_t w, int clicks) {
    size_t count = 0;
    for (int i = 0; i < clicks; i++) {
        vol_box at = into_crop(s, click_at(s, i)->box);
        if (!vol_box_is_empty(at)) at = vol_window_box(&s->windows, w, s->region.lo, at);
        if (!vol_box_is_empty(at))
            s->points[count++] =
                (segvol_point){(real)at.lo[0], (real)at.lo[1], (real)at.lo[2], click_at(s, i)->foreground};
    }
    return count;
}

/* ---- decoder passes ------------------------------------------------------------------------------------------ */

static segfm_status go_on(const segfm_session *s, int64_t done, int64_t total, segfm_error *error) {
    if (s->options.progress == NULL || s->options.progress(s->options.progress_user, done, total)) return SEGFM_OK;
    return base_fail(error, SEGFM_CANCELLED, "cancelled before pass %lld of %lld", (long long)done + 1,
                     (long long)total);
}

/* → workspace.masks */
static void decode(segfm_session *s, const real *embedding, const segvol_prompts *prompts) {
    segvol_decode(s->net, &s->workspace, embedding, prompts);
    s->report.decoded++;
}

/* A pass over a view at the window's size, with the box and the first `clicks` clicks → part_logits */
static void decode_look(segfm_session *s, look *l, int clicks) {
    if (l->encoded) s->report.reused++;
    else {
        segvol_encode(s->net, &s->workspace, l->image, l->embedding);
        l->encoded = true;
        s->report.encoded++;
    }
    bool whole = vol_box_is_empty(l->box);
    vol_box box =
        whole ? vol_resize_box(object_box(s), s->cropped, s->window) : vol_zoom_box(l->box, l->view, s->window);
    real corners[6];
    box_as_reals(box, corners);
    for (int axis = 0; axis < 3 && l == &s->looks[0]; axis++)
        s->report.zoom_box[axis] = box.lo[axis], s->report.zoom_box[3 + axis] = box.hi[axis];
    segvol_prompts prompts = {s->points, points_in(s, l->view, clicks), s->has_box || !whole ? corners : NULL};
    decode(s, l->embedding, &prompts);
    segvol_upsample(s->net, &s->workspace, 0, s->part_logits);
}

/* All looks, with the box and the first `clicks` clicks → zoomed, in the first one's view. Where the window follows a box the logits count
   from the level on that makes the mask of largest expected overlap. */
static void decode_zoom(segfm_session *s, int clicks) {
    size_t n = s->net->window_voxels;
    for (int i = 0; i < s->look_count; i++) {
        decode_look(s, &s->looks[i], clicks);
        if (i == 0) memcpy(s->zoomed, s->part_logits, n * sizeof(real));
        else vol_rezoom(s->part_logits, s->window, s->looks[i].view, s->looks[0].view, s->options.threads, s->zoomed);
    }
    for (size_t i = 0; s->look_count > 1 && i < n; i++) s->zoomed[i] /= (real)s->look_count;
    if (!follows(s)) return;
    real level;
    vol_expected_dice(s->zoomed, n, &level);
    for (size_t i = 0; i < n; i++) s->zoomed[i] -= level;
}

/* The part of the crop that window w shows. */
static vol_box shown_by(const segfm_session *s, int64_t w) {
    vol_box b = vol_window_box(&s->windows, w, s->region.lo, s->region);
    int64_t start[3];
    vol_windows_start(&s->windows, w, start);
    for (int axis = 0; axis < 3; axis++) {
        int64_t shift = s->region.lo[axis] + start[axis] - s->windows.pad_lo[axis];
        b.lo[axis] += shift, b.hi[axis] += shift;
    }
    return b;
}

/* The embedding of window w of the region, encoded unless a slot still holds it. A full cache gives up what earlier
   objects left, the oldest first; windows of this one that find no room share the last slot, so that the next pass over the
   same windows finds all the others. */
static const real *window_embedding(segfm_session *s, int64_t w) {
    slot wanted = {.pass = s->pass, .shown = shown_by(s, w)}, *victim = &s->slots[s->slot_count - 1];
    vol_windows_start(&s->windows, w, wanted.start);
    for (int axis = 0; axis < 3; axis++) wanted.start[axis] += s->region.lo[axis] - s->windows.pad_lo[axis];
    for (size_t i = 0; i < s->slot_count; i++) {
        slot *c = &s->slots[i];
        if (c->pass != 0 && memcmp(c->start, wanted.start, sizeof c->start) == 0 &&
            memcmp(&c->shown, &wanted.shown, sizeof c->shown) == 0) {
            c->pass = s->pass;
            s->report.reused++;
            return c->embedding;
        }
        if (c->pass < victim->pass) victim = c;
    }
    wanted.embedding = victim->embedding;
    *victim = wanted;
    vol_window_extract(s->image, s->cropped, s->region.lo, &s->windows, w, s->part);
    segvol_encode(s->net, &s->workspace, s->part, victim->embedding);
    s->report.encoded++;
    return victim->embedding;
}

/* Window w of the region with its box and the first `clicks` clicks. Without a user's box, a window with clicks needs no
   box. */
static void decode_window(segfm_session *s, int64_t w, int clicks, real *low) {
    segvol_prompts prompts = {s->points, window_points(s, w, clicks), s->corners + 6 * w};
    if (!s->has_box && prompts.point_count > 0) prompts.box = NULL;
    decode(s, window_embedding(s, w), &prompts);
    memcpy(low, s->workspace.masks, s->net->low_voxels * sizeof *low);
}

/* With a single window its box is the user's; with more, each one's is derived from the zoom-out prediction inside it. */
static void prompt_window(segfm_session *s, int64_t w) {
    vol_box box;
    if (s->has_box && s->window_count == 1) {
        box = vol_window_box(&s->windows, w, s->region.lo, object_box(s));
    } else {
        vol_window_extract_mask(s->prediction, s->cropped, s->region.lo, &s->windows, w, s->part_prediction);
        box = vol_mask_prompt_box(s->part_prediction, s->window);
    }
    box_as_reals(box, s->corners + 6 * w);
}

/* ---- what is shown ------------------------------------------------------------------------------------------- */

/* low upsampled → part_logits */
static void upsample(segfm_session *s, const real *low) {
    memcpy(s->workspace.masks, low, s->net->low_voxels * sizeof *low);
    segvol_upsample(s->net, &s->workspace, 0, s->part_logits);
}

/* The corrections, over logits of the decoder. */
static void write_corrections(const segfm_session *s, real *logits) {
    for (size_t step = 0; step < s->steps; step++)
        for (size_t i = step * s->most_written; i < step * s->most_written + s->written_count[step]; i++)
            logits[s->written[i]] = s->written_logits[i];
}

/* A click's voxel gets its label. */
static void force(real *logit, bool foreground) {
    if (foreground) *logit = *logit > certain ? *logit : certain;
    else *logit = *logit < -certain ? *logit : -certain;
}

/* Corrections and clicks, over the logits of the decoder. Doing it twice is doing it once. */
static void overlay(segfm_session *s, int clicks) {
    if (!follows(s)) write_corrections(s, s->logits);
    for (int i = 0; i < clicks && s->options.variant == SEGFM_SEED; i++) {
        const action *click = click_at(s, i);
        vol_box at = into_crop(s, click->box);
        if (vol_box_is_empty(at)) continue;
        force(&s->logits[(at.lo[0] * s->cropped.n[1] + at.lo[1]) * s->cropped.n[2] + at.lo[2]], click->foreground);
    }
}

static bool lies_in(vol_box inner, vol_box outer) {
    vol_box both = vol_box_intersect(inner, outer);
    return memcmp(&both, &inner, sizeof both) == 0;
}

/* The logits of a part of the crop, from the low masks, the corrections, and the first `clicks` clicks. */
static void compose(segfm_session *s, vol_box part, int clicks) {
    vol_box inside = s->has_region ? vol_box_intersect(part, s->region) : vol_box_none();
    if (!lies_in(part, inside)) {
        vol_box view = s->looks[0].view;
        if (!lies_in(part, view)) vol_fill(s->logits, s->cropped, part, outside);
        if (follows(s)) {
            memcpy(s->part_logits, s->zoomed, s->net->window_voxels * sizeof(real));
            write_corrections(s, s->part_logits);
            vol_unzoom(s->part_logits, s->window, view, vol_box_intersect(part, view), s->cropped, s->options.threads,
                       s->logits);
        } else vol_resize_nearest(s->zoomed, s->window, s->logits, s->cropped, part, s->options.threads);
    }
    if (!vol_box_is_empty(inside)) {
        vol_fill(s->logits, s->cropped, inside, 0);
        for (int64_t w = 0; w < s->window_count; w++) {
            if (!vol_window_meets(&s->windows, w, s->region.lo, inside)) continue;
            upsample(s, s->low + (size_t)w * s->net->low_voxels);
            vol_window_add(&s->windows, w, s->part_logits, s->region.lo, inside, s->cropped, s->logits);
        }
        vol_windows_average(&s->windows, s->region.lo, inside, s->cropped, s->options.threads, s->logits);
    }
    overlay(s, clicks);
}

/* Voxels of the mask in a line, x from..to, are not what they were. */
static void count_changes(segfm_session *s, int64_t voxels, int64_t z, int64_t y, int64_t from, int64_t to) {
    if (voxels == 0) return;
    vol_box changed;
    for (int axis = 0; axis < 3; axis++)
        changed.lo[axis] = s->report.changed_box[axis], changed.hi[axis] = s->report.changed_box[3 + axis];
    changed = vol_box_union(changed, (vol_box){{z, y, from}, {z, y, to}});
    for (int axis = 0; axis < 3; axis++)
        s->report.changed_box[axis] = changed.lo[axis], s->report.changed_box[3 + axis] = changed.hi[axis];
    s->report.changed += voxels;
}

/* The mask's voxels outside of the crop, where only clicks reach. */
static void refresh_outside(segfm_session *s) {
    for (int i = 0; i < s->used; i++) {
        const action *a = &s->actions[i];
        if (a->kind != ACTION_CLICK || !vol_box_is_empty(into_crop(s, a->box))) continue;
        const int64_t *at = a->box.lo;
        bool inside = false;
        for (int c = 0; c < click_count(s) && s->options.variant == SEGFM_SEED; c++)
            if (memcmp(&click_at(s, c)->box, &a->box, sizeof a->box) == 0) inside = click_at(s, c)->foreground;
        uint8_t *mask = &s->mask[(at[0] * s->scan.n[1] + at[1]) * s->scan.n[2] + at[2]];
        s->report.inside += inside - *mask;
        count_changes(s, *mask != inside, at[0], at[1], at[2], at[2]);
        *mask = inside;
    }
}

/* The mask of a part of the crop from the logits. */
static void refresh(segfm_session *s, vol_box part) {
    refresh_outside(s);
    if (vol_box_is_empty(part)) return;
    for (int64_t z = part.lo[0]; z <= part.hi[0]; z++)
        for (int64_t y = part.lo[1]; y <= part.hi[1]; y++) {
            const real *logits = s->logits + (z * s->cropped.n[1] + y) * s->cropped.n[2];
            int64_t in_scan[3] = {z + s->crop.lo[0], y + s->crop.lo[1], s->crop.lo[2]};
            uint8_t *mask = s->mask + (in_scan[0] * s->scan.n[1] + in_scan[1]) * s->scan.n[2] + in_scan[2];
            int64_t voxels = 0, from = 0, to = 0;
            for (int64_t x = part.lo[2]; x <= part.hi[2]; x++) {
                bool inside = s->valid && nn_sigmoid_above_half(logits[x]);
                if (mask[x] == inside) continue;
                mask[x] = inside;
                s->report.inside += inside ? 1 : -1;
                if (voxels++ == 0) from = x;
                to = x;
            }
            count_changes(s, voxels, in_scan[0], in_scan[1], in_scan[2] + from, in_scan[2] + to);
        }
}

/* ---- segmentation -------------------------------------------------------------------------------------------- */

static bool decodes_clicks(const segfm_session *s) { return (s->options.click_by & SEGFM_BY_DECODER) != 0; }

/* How many clicks the passes that begin an object know: without a box there must be one. */
static int clicks_to_begin(const segfm_session *s) { return s->has_box ? 0 : 1; }

/* How sure the model is of what it finds in a box, with the first click: the DSC that it lets expect. */
static double try_box(segfm_session *s, vol_box box) {
    real level;
    show(s, box, 1);
    decode_look(s, &s->looks[0], 1);
    return vol_expected_dice(s->part_logits, s->net->window_voxels, &level);
}

/* A box for an object of which only a click is known: of the cubes around it, cut to the crop, with sides of 7, 13, 25, … voxels the one
   that the model is surest of. */
static vol_box guess_box(segfm_session *s, vol_box click) {
    vol_box best = vol_box_none(), cube = click, whole = vol_box_whole(s->cropped);
    double most = -1;
    for (int64_t reach = 3; memcmp(&cube, &whole, sizeof cube) != 0; reach *= 2) {
        for (int axis = 0; axis < 3; axis++) {
            int64_t lo = click.lo[axis] - reach, hi = click.hi[axis] + reach;
            cube.lo[axis] = lo > 0 ? lo : 0;
            cube.hi[axis] = hi < whole.hi[axis] ? hi : whole.hi[axis];
        }
        double sure = try_box(s, cube);
        if (sure > most) most = sure, best = cube;
    }
    return most < 0 ? whole : best;
}

/* Zoom out, find the region, zoom in (SPEC 4): the low masks with which an object begins; in a window that follows a box what the decoder
   makes of all clicks. guessed: the box of an object without one, as it was guessed before, or none: then it is guessed. */
static segfm_status begin(segfm_session *s, vol_box guessed, segfm_error *error) {
    int clicks = clicks_to_begin(s);
    vol_box whole = vol_box_whole(s->cropped), prompt = s->has_box ? object_box(s) : into_crop(s, click_at(s, 0)->box);
    clear_result(s);
    s->pass++;
    segfm_status status = go_on(s, 0, 1, error);
    if (status != SEGFM_OK) return status;
    if (s->net->config.frame > 0 && !s->has_box && !vol_box_is_empty(prompt))
        s->guessed = vol_box_is_empty(guessed) ? guess_box(s, prompt) : guessed;
    vol_box framed = follows(s) ? followed_box(s) : vol_box_none();
    int looks = vol_box_is_empty(framed) ? 1 : most_looks(s);
    if (memcmp(&framed, &s->looks[0].box, sizeof framed) != 0 || s->look_count != looks) show(s, framed, looks);
    decode_zoom(s, follows(s) && decodes_clicks(s) ? click_count(s) : clicks);
    compose(s, whole, 0);
    size_t n = vol_count(s->cropped);
    for (size_t i = 0; i < n; i++) s->prediction[i] = nn_sigmoid_above_half(s->logits[i]);
    vol_box both = vol_box_union(vol_mask_bounds(s->prediction, s->cropped), prompt);
    vol_box wide = vol_region(both, s->cropped, s->window);
    bool has_region = !s->options.zoom_only && !follows(s) && !vol_box_is_empty(wide);
    if (has_region) {
        for (int axis = 0; axis < 3; axis++)
            s->report.region[axis] = wide.lo[axis], s->report.region[3 + axis] = wide.hi[axis];
        s->region = vol_box_intersect(wide, whole);
        vol_windows_plan(vol_box_shape(s->region), s->window, &s->windows);
        s->window_count = vol_windows_total(&s->windows);
    }
    for (int64_t w = 0; w < s->window_count; w++) {
        status = go_on(s, 1 + w, 1 + s->window_count, error);
        if (status != SEGFM_OK) return status;
        prompt_window(s, w);
        decode_window(s, w, clicks, s->low + (size_t)w * s->net->low_voxels);
    }
    s->has_region = has_region;
    s->valid = true;
    compose(s, whole, 0);
    return SEGFM_OK;
}

/* The pass over the whole scan knows the clicks up to the last one that no window of the region shows. */
static int clicks_of_zoom(const segfm_session *s) {
    for (int i = click_count(s) - 1; i >= clicks_to_begin(s); i--) {
        vol_box at = into_crop(s, click_at(s, i)->box);
        if (!vol_box_is_empty(at) && !(s->has_region && holds(s->region, at))) return i + 1;
    }
    return clicks_to_begin(s);
}

/* Does the zoomed-out window show a voxel of the crop, in any look? */
static bool is_shown(const segfm_session *s, vol_box voxel) {
    bool shown = false;
    for (int i = 0; i < s->look_count; i++) shown = shown || holds(s->looks[i].view, voxel);
    return shown;
}

/* Decodes the windows that show a voxel (of the crop, or the box of nothing) anew, with all clicks there are; none when it
   lies outside of the view. Changes nothing when it is cancelled. *part: what of the crop may have changed. */
static segfm_status decode_around(segfm_session *s, vol_box voxel, vol_box *part, segfm_error *error) {
    size_t low = s->net->low_voxels;
    segfm_status status = SEGFM_OK;
    *part = vol_box_none();
    if (!is_shown(s, voxel) || !decodes_clicks(s)) return SEGFM_OK;
    if (!s->has_region || !holds(s->region, voxel)) {
        status = go_on(s, 0, 1, error);
        if (status != SEGFM_OK) return status;
        decode_zoom(s, clicks_of_zoom(s));
        *part = s->looks[0].view;
        return SEGFM_OK;
    }
    s->touched_count = 0;
    for (int64_t w = 0; w < s->window_count; w++)
        if (vol_window_meets(&s->windows, w, s->region.lo, voxel)) s->touched[s->touched_count++] = w;
    for (size_t i = 0; i < s->touched_count; i++) {
        status = go_on(s, (int64_t)i, (int64_t)s->touched_count, error);
        if (status != SEGFM_OK) return status;
        decode_window(s, s->touched[i], click_count(s), s->spare + i * low);
    }
    for (size_t i = 0; i < s->touched_count; i++) {
        memcpy(s->low + (size_t)s->touched[i] * low, s->spare + i * low, low * sizeof(real));
        *part = vol_box_union(*part, shown_by(s, s->touched[i]));
    }
    return SEGFM_OK;
}

/* Where corrections are made: the region, or without one the view. */
static vol_box corrected_part(const segfm_session *s) { return s->has_region ? s->region : s->looks[0].view; }

static bool has_corrector(const segfm_session *s) {
    return s->net->gru_count > 0 && (s->options.click_by & SEGFM_BY_CORRECTOR) != 0;
}

static bool spreads(const segfm_session *s) { return may_spread(s) && follows(s); }

/* Is there a correction for a click at this voxel of the crop? */
static bool is_corrected(const segfm_session *s, vol_box voxel) {
    return (has_corrector(s) || spreads(s)) && holds(corrected_part(s), voxel);
}

/* How many of the first `clicks` clicks had a correction. The published code has a block for each step, and none
   after the last. */
static size_t steps_of(const segfm_session *s, int clicks) {
    size_t steps = 0;
    for (int i = 0; i < clicks; i++) steps += is_corrected(s, into_crop(s, click_at(s, i)->box));
    return s->options.variant == SEGFM_UPSTREAM && steps > s->net->gru_count ? s->net->gru_count : steps;
}

/* The logits of a window that follows the box, with the corrections and the first `clicks` clicks → part_logits */
static void window_logits(segfm_session *s, int clicks) {
    vol_box view = s->looks[0].view;
    memcpy(s->part_logits, s->zoomed, s->net->window_voxels * sizeof(real));
    write_corrections(s, s->part_logits);
    for (int i = 0; i < clicks && s->options.variant == SEGFM_SEED; i++) {
        vol_box at = into_crop(s, click_at(s, i)->box);
        int64_t to[3];
        if (!holds(view, at)) continue;
        vol_zoom_point(at.lo, view, s->window, to);
        force(&s->part_logits[(to[0] * s->window.n[1] + to[1]) * s->window.n[2] + to[2]], click_at(s, i)->foreground);
    }
}

/* The corrector's step for a click in a view → voxels and logits; returns how many. */
static size_t corrector_step(segfm_session *s, const vol_view *view, const vol_point_click *at, int64_t *written,
                             real *logits) {
    size_t points = points_of(s->net), step = s->steps;
    vol_variant variant = s->options.variant == SEGFM_UPSTREAM ? VOL_UPSTREAM : VOL_SEED;
    vol_sample(view, variant, at, 1, NULL, NULL, s->options.threads, &s->samples);
    vol_sample_state(view, variant, at, &s->samples, s->corrector.rows + step * 8 * points, s->coordinates);
    segvol_corrector_step(s->net, &s->corrector, step, s->coordinates, s->delta, s->offset);
    if (variant == VOL_UPSTREAM) memset(s->offset, 0, 3 * points * sizeof *s->offset); /* it knows no second head */
    return vol_correction_writes(view, variant, &s->samples, s->delta, s->offset, written, logits);
}

/* Bounds of voxels of the crop. */
static vol_box bounds_of(const segfm_session *s, const int64_t *voxels, size_t count) {
    vol_box bounds = vol_box_none();
    for (size_t i = 0; i < count; i++) {
        int64_t x = voxels[i] % s->cropped.n[2], line = voxels[i] / s->cropped.n[2];
        int64_t y = line % s->cropped.n[1], z = line / s->cropped.n[1];
        bounds = vol_box_union(bounds, (vol_box){{z, y, x}, {z, y, x}});
    }
    return bounds;
}

/* The correction for click i, behind those of the clicks before it: the corrector's step, then what spreads → *part, the bounds of what may
   have changed in the crop; none in a window that follows the box, where all of it may. */
static void correct(segfm_session *s, int i, vol_box *part) {
    const action *click = click_at(s, i);
    size_t step = s->steps, count = 0;
    *part = vol_box_none();
    if (steps_of(s, i + 1) == step) return;
    vol_view view = {s->logits, s->cropped, corrected_part(s)};
    vol_point_click at = {.label = click->foreground};
    vol_box voxel = into_crop(s, click->box);
    for (int axis = 0; axis < 3; axis++) at.at[axis] = voxel.lo[axis] - view.frame.lo[axis];
    if (follows(s)) { /* as it has learned, it works in the window */
        window_logits(s, i);
        view = (vol_view){s->part_logits, s->window, vol_box_whole(s->window)};
        vol_zoom_point(voxel.lo, s->looks[0].view, s->window, at.at);
    }
    int64_t *written = s->written + step * s->most_written;
    real *logits = s->written_logits + step * s->most_written;
    if (has_corrector(s)) s->report.corrected = (int64_t)(count = corrector_step(s, &view, &at, written, logits));
    if (spreads(s)) {
        for (size_t w = 0; w < count; w++) s->part_logits[written[w]] = logits[w];
        count += vol_spread(s->looks[0].image, s->part_logits, s->window, &at, s->options.threads, s->spread_scratch,
                            written + count, logits + count);
    }
    s->written_count[step] = count;
    if (!follows(s)) *part = bounds_of(s, written, count);
    s->steps++;
}

/* All corrections anew, in a window that follows the box, on what the decoder makes of all clicks; then the logits of a part of the crop. */
static void correct_all(segfm_session *s, vol_box part) {
    vol_box written;
    s->steps = 0;
    for (int i = 0; i < click_count(s); i++) correct(s, i, &written);
    compose(s, part, click_count(s));
}

/* What the newest click adds to what stands, after its decoder passes. → *part grows by what may have changed. */
static void finish_click(segfm_session *s, vol_box *part) {
    int newest = click_count(s) - 1;
    vol_box voxel = into_crop(s, click_at(s, newest)->box), written = s->looks[0].view;
    if (follows(s) && is_shown(s, voxel)) correct_all(s, written);
    else {
        correct(s, newest, &written);
        overlay(s, newest + 1);
    }
    *part = vol_box_union(vol_box_union(*part, written), voxel);
}

static segfm_status add_click(segfm_session *s, vol_box *part, segfm_error *error) {
    int clicks = click_count(s);
    segfm_status status = decode_around(s, into_crop(s, click_at(s, clicks - 1)->box), part, error);
    if (status != SEGFM_OK) return status;
    if (!follows(s) && !vol_box_is_empty(*part)) compose(s, *part, clicks - 1);
    finish_click(s, part);
    return SEGFM_OK;
}

/* Makes the object's result from nothing, action by action. guessed: as in begin. */
static segfm_status rebuild(segfm_session *s, vol_box guessed, segfm_error *error) {
    vol_box part = vol_box_whole(s->cropped);
    int end = s->cursor, clicks = click_count(s);
    segfm_status status = SEGFM_OK;
    clear_result(s);
    if (s->has_box || clicks > 0) {
        status = begin(s, guessed, error);
        if (status == SEGFM_OK && follows(s) && clicks > 0) correct_all(s, s->looks[0].view);
        for (int i = 0; status == SEGFM_OK && !follows(s) && i < clicks; i++) {
            s->cursor = end - clicks + i + 1; /* as it was then */
            if (i < clicks_to_begin(s)) finish_click(s, &part);
            else status = add_click(s, &part, error);
        }
        s->cursor = end;
    }
    return status;
}

/* ---- history ------------------------------------------------------------------------------------------------- */

/* Finds the object that the cursor stands in. */
static void find_object(segfm_session *s) {
    s->first = s->cursor;
    s->has_box = false;
    while (s->first > 0 && s->actions[s->first - 1].kind == ACTION_CLICK) s->first--;
    if (s->first > 0 && s->actions[s->first - 1].kind == ACTION_BOX) s->first--, s->has_box = true;
}

static void start_report(segfm_session *s) {
    s->report.decoded = s->report.encoded = s->report.reused = s->report.changed = s->report.corrected = 0;
    for (int i = 0; i < 6; i++) s->report.changed_box[i] = -1;
}

/* What was begun and cancelled is as if it had been reset. */
static void abandon(segfm_session *s) {
    s->actions[s->cursor++] = (action){.kind = ACTION_RESET};
    s->used = s->cursor;
    find_object(s);
    clear_result(s);
    refresh(s, vol_box_whole(s->cropped));
}

/* The window moves: everything is made anew in it. To be cancelled before it begins, or not at all. */
static segfm_status move_window(segfm_session *s, segfm_error *error) {
    segfm_progress *progress = s->options.progress;
    segfm_status status = go_on(s, 0, 1, error);
    if (status != SEGFM_OK) return status;
    s->options.progress = NULL;
    status = rebuild(s, s->guessed, error);
    s->options.progress = progress;
    return status;
}

/* The action at the cursor, which moves past it. */
static segfm_status do_next(segfm_session *s, segfm_error *error) {
    bool is_click = s->actions[s->cursor].kind == ACTION_CLICK;
    vol_box part = vol_box_whole(s->cropped);
    s->cursor++;
    find_object(s);
    bool adds = is_click && click_count(s) > clicks_to_begin(s), moves = adds && must_move(s);
    segfm_status status = moves  ? move_window(s, error)
                          : adds ? add_click(s, &part, error)
                                 : rebuild(s, vol_box_none(), error);
    if (status != SEGFM_OK) {
        s->cursor--;
        find_object(s);
        if (!adds) clear_result(s); /* a first click leaves nothing, as before it */
        if (!is_click) abandon(s);
        return status;
    }
    refresh(s, part);
    go_on(s, 1, 1, NULL); /* all is done, whatever it says */
    return SEGFM_OK;
}

static segfm_status check_volume(const segfm_session *s, segfm_error *error) {
    return s->has_volume ? SEGFM_OK : base_fail(error, SEGFM_BAD_USAGE, "the session has no scan yet");
}

/* Room for one more action: where there is none, the oldest object is forgotten. The capacity is that of two full ones and
   some more, so there always is another. */
static void make_room(segfm_session *s) {
    if (s->cursor < s->capacity) return;
    int next = 1;
    while (s->actions[next].kind != ACTION_BOX && s->actions[next - 1].kind != ACTION_RESET) next++;
    s->oldest = s->actions[next - 1].kind == ACTION_RESET ? 0 : 1; /* what this box replaced cannot be had back */
    s->cursor -= next;
    s->used = s->cursor;
    memmove(s->actions, s->actions + next, (size_t)s->cursor * sizeof *s->actions);
    find_object(s);
}

/* A new action. When it is cancelled and changes nothing, what could be redone still can. */
static segfm_status act(segfm_session *s, action a, segfm_error *error) {
    make_room(s);
    action redo = s->actions[s->cursor];
    int used = s->used;
    start_report(s);
    s->actions[s->cursor] = a;
    s->used = s->cursor + 1;
    segfm_status status = do_next(s, error);
    if (status != SEGFM_OK && a.kind == ACTION_CLICK) {
        s->actions[s->cursor] = redo;
        s->used = used;
    }
    return status;
}

segfm_status segfm_undo(segfm_session *s, segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    if (s->cursor == s->oldest) return base_fail(error, SEGFM_BAD_USAGE, "there is nothing to undo");
    start_report(s);
    const action *undone = &s->actions[--s->cursor];
    find_object(s);
    bool click = undone->kind == ACTION_CLICK && (s->has_box || click_count(s) > 0);
    if (click && must_move(s)) {
        status = move_window(s, error);
        if (status != SEGFM_OK) {
            s->cursor++;
            find_object(s);
            return status;
        }
    } else if (click) { /* the windows that show it forget it, and its correction goes */
        vol_box part;
        status = decode_around(s, into_crop(s, undone->box), &part, error);
        if (status != SEGFM_OK) {
            s->cursor++;
            find_object(s);
            return status;
        }
        vol_box whole = vol_box_whole(s->cropped);
        s->steps = steps_of(s, click_count(s));
        if (follows(s)) correct_all(s, whole);
        else compose(s, whole, click_count(s));
    } else {
        status = rebuild(s, vol_box_none(), error);
        if (status != SEGFM_OK) {
            abandon(s);
            return status;
        }
    }
    refresh(s, vol_box_whole(s->cropped));
    go_on(s, 1, 1, NULL);
    return SEGFM_OK;
}

segfm_status segfm_redo(segfm_session *s, segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    if (s->cursor == s->used) return base_fail(error, SEGFM_BAD_USAGE, "there is nothing to redo");
    start_report(s);
    return do_next(s, error);
}

void segfm_reset(segfm_session *s) {
    if (s->has_volume && s->cursor > s->first) act(s, (action){.kind = ACTION_RESET}, NULL);
    else start_report(s);
}

segfm_status segfm_next_object(segfm_session *s, segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    if (s->objects == UINT16_MAX - 1) /* the object that is begun needs a label too */
        return base_fail(error, SEGFM_BAD_USAGE, "objects: there is no label for more than %d", UINT16_MAX);
    s->objects++;
    size_t n = vol_count(s->scan);
    for (size_t i = 0; s->labels != NULL && i < n; i++)
        if (s->mask[i] != 0) s->labels[i] = (uint16_t)s->objects;
    forget_object(s);
    start_report(s);
    return SEGFM_OK;
}

/* ---- prompts ------------------------------------------------------------------------------------------------- */

segfm_status segfm_box(segfm_session *s, const int64_t box[6], segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    action a = {.kind = ACTION_BOX};
    for (int axis = 0; axis < 3; axis++) {
        int64_t lo = box[axis], hi = box[3 + axis];
        if (lo > hi)
            return base_fail(error, SEGFM_BAD_USAGE, "box, axis %c: got %lld to %lld, which is empty", "zyx"[axis],
                             (long long)lo, (long long)hi);
        if (lo < 0 || hi >= s->scan.n[axis])
            return base_fail(error, SEGFM_BAD_USAGE, "box, axis %c: got %lld to %lld, the scan has 0 to %lld",
                             "zyx"[axis], (long long)lo, (long long)hi, (long long)s -> scan.n[axis] - 1);
        a.box.lo[axis] = lo, a.box.hi[axis] = hi;
    }
    return act(s, a, error);
}

segfm_status segfm_click(segfm_session *s, const int64_t voxel[3], bool foreground, segfm_error *error) {
    segfm_status status = check_volume(s, error);
    if (status != SEGFM_OK) return status;
    action a = {.kind = ACTION_CLICK, .foreground = foreground};
    for (int axis = 0; axis < 3; axis++) {
        if (voxel[axis] < 0 || voxel[axis] >= s->scan.n[axis])
            return base_fail(error, SEGFM_BAD_USAGE, "click, axis %c: got %lld, the scan has 0 to %lld", "zyx"[axis],
                             (long long)voxel[axis], (long long)s -> scan.n[axis] - 1);
        a.box.lo[axis] = a.box.hi[axis] = voxel[axis];
    }
    if (click_count(s) == s->options.max_clicks)
        return base_fail(error, SEGFM_BAD_USAGE, "clicks: the session has room for %d", s->options.max_clicks);
    return act(s, a, error);
}

/* ---- results ------------------------------------------------------------------------------------------------- */

static segfm_status check_room(const segfm_session *s, size_t count, segfm_error *error) {
    size_t n = vol_count(s->scan);
    return count >= n ? SEGFM_OK
                      : base_fail(error, SEGFM_BAD_USAGE, "the result has %zu voxels, got room for %zu", n, count);
}

segfm_status segfm_mask(const segfm_session *s, uint8_t *mask, size_t count, segfm_error *error) {
    segfm_status status = check_room(s, count, error);
    if (status == SEGFM_OK) memcpy(mask, s->mask, vol_count(s->scan));
    return status;
}

segfm_status segfm_logits(const segfm_session *s, float *logits, size_t count, segfm_error *error) {
    segfm_status status = check_room(s, count, error);
    if (status != SEGFM_OK) return status;
    size_t n = vol_count(s->scan);
    for (size_t i = 0; i < n; i++) logits[i] = -100.0f;
    if (!s->valid) return SEGFM_OK;
    const int64_t *scan = s->scan.n, *cropped = s->cropped.n;
    for (int64_t z = 0; z < cropped[0]; z++)
        for (int64_t y = 0; y < cropped[1]; y++) {
            const real *from = s->logits + (z * cropped[1] + y) * cropped[2];
            float *to = logits + ((z + s->crop.lo[0]) * scan[1] + y + s->crop.lo[1]) * scan[2] + s->crop.lo[2];
            for (int64_t x = 0; x < cropped[2]; x++) to[x] = (float)from[x];
        }
    for (int i = 0; i < click_count(s) && s->options.variant == SEGFM_SEED; i++) { /* those outside of the crop */
        const vol_box *at = &click_at(s, i)->box;
        if (vol_box_is_empty(into_crop(s, *at)))
            logits[(at->lo[0] * scan[1] + at->lo[1]) * scan[2] + at->lo[2]] =
                click_at(s, i)->foreground ? (float)certain : -100.0f;
    }
    return SEGFM_OK;
}

segfm_status segfm_labels(const segfm_session *s, uint16_t *labels, size_t count, segfm_error *error) {
    segfm_status status = check_room(s, count, error);
    if (status == SEGFM_OK && s->labels == NULL)
        status = base_fail(error, SEGFM_BAD_USAGE, "labels: the session was made without keep_objects");
    size_t n = vol_count(s->scan);
    for (size_t i = 0; status == SEGFM_OK && i < n; i++)
        labels[i] = s->mask[i] != 0 ? (uint16_t)(s->objects + 1) : s->labels[i];
    return status;
}

void segfm_last_report(const segfm_session *s, segfm_report *out) {
    *out = s->report;
    vol_box box = !s->valid ? vol_box_none() : follows(s) ? s->looks[0].box : object_box(s);
    for (int axis = 0; axis < 3; axis++) {
        out->crop[axis] = s->has_volume ? s->crop.lo[axis] : -1;
        out->crop[3 + axis] = s->has_volume ? s->crop.hi[axis] : -1;
        out->box[axis] = vol_box_is_empty(box) ? -1 : box.lo[axis] + s->crop.lo[axis];
        out->box[3 + axis] = vol_box_is_empty(box) ? -1 : box.hi[axis] + s->crop.lo[axis];
    }
    out->windows = s->window_count;
    out->clicks = click_count(s);
    out->has_box = s->has_box;
    out->objects = s->objects;
    out->bytes = s->bytes;
    out->can_undo = s->cursor > s->oldest;
    out->can_redo = s->cursor < s->used;
}
