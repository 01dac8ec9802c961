/* trace --correct: the correction alone, step by step, on logits from a file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../vol/vol.h"
#include "tools.h"

enum { DEFAULT_STEPS = 5, MAX_STEPS = TOOL_MAX_LIST };

typedef struct correction {
    tool_network network;
    segvol_corrector corrector;
    vol_samples samples;
    void *memory; /* theirs */
    vol_variant variant;
    int threads;
    size_t steps;

    io_buffer logits_file, labels_file;
    io_array array; /* of the logits: its shape is that of what is written */
    vol_shape shape;
    real *logits;
    uint8_t *truth, *prediction; /* NULL without labels */
    vol_click clicks[MAX_STEPS];

    real *state, *coordinates, *delta, *offset, *value;
    int64_t *voxel;
} correction;

static void correction_close(correction *c) {
    tool_network_close(&c->network);
    io_buffer_free(&c->logits_file);
    io_buffer_free(&c->labels_file);
    free(c->memory), free(c->logits), free(c->truth), free(c->prediction);
}

/* ---- what comes in ------------------------------------------------------------------------------------------- */

/* (z,y,x), or that with axes of 1 before. */
static segfm_status read_volume(const char *path, io_buffer *file, io_array *a, vol_shape *shape, segfm_error *error) {
    segfm_status status = io_read_file(path, file, error);
    if (status == SEGFM_OK) status = io_npy_parse(file->data, file->size, a, error);
    if (status != SEGFM_OK) return status;
    bool fits = a->dtype != IO_OBJECT && a->ndim >= 3 && a->ndim <= 5 && a->count > 0;
    for (int i = 0; fits && i < a->ndim; i++) fits = i < a->ndim - 3 ? a->shape[i] == 1 : a->shape[i] <= INT32_MAX;
    if (!fits)
        return base_fail(error, SEGFM_BAD_INPUT, "volume: got %d axes, %zu elements, need z,y,x or 1,1,z,y,x", a->ndim,
                         a->count);
    for (int axis = 0; axis < 3; axis++) shape->n[axis] = (int64_t)a->shape[a->ndim - 3 + axis];
    return SEGFM_OK;
}

static segfm_status read_logits(const char *path, correction *c, segfm_error *error) {
    segfm_status status = read_volume(path, &c->logits_file, &c->array, &c->shape, error);
    if (status == SEGFM_OK) status = tool_array_reals(&c->array, &c->logits, error);
    for (size_t i = 0; status == SEGFM_OK && i < c->array.count; i++)
        if (!isfinite(c->logits[i])) status = base_fail(error, SEGFM_BAD_INPUT, "logits: element %zu is not finite", i);
    return status;
}

static segfm_status read_labels(const char *path, correction *c, segfm_error *error) {
    io_array a;
    vol_shape shape;
    real *labels = NULL;
    segfm_status status = read_volume(path, &c->labels_file, &a, &shape, error);
    if (status == SEGFM_OK && memcmp(&shape, &c->shape, sizeof shape) != 0)
        status = base_fail(error, SEGFM_BAD_INPUT,
                           "labels: got %lld x %lld x %lld voxels, the logits have %lld x %lld x %lld",
                           (long long)shape.n[0], (long long)shape.n[1], (long long)shape.n[2],
                           (long long)c->shape.n[0], (long long)c->shape.n[1], (long long)c->shape.n[2]);
    if (status == SEGFM_OK) status = tool_array_reals(&a, &labels, error);
    if (status != SEGFM_OK) return status;
    c->truth = malloc(a.count);
    c->prediction = malloc(a.count);
    if (c->truth == NULL || c->prediction == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu voxels", a.count);
    for (size_t i = 0; status == SEGFM_OK && i < a.count; i++) c->truth[i] = labels[i] > 0;
    free(labels);
    return status;
}

static segfm_status read_clicks(const tool_list *list, correction *c, segfm_error *error) {
    for (int i = 0; i < list->count; i++) {
        int64_t v[4];
        segfm_status status = tool_integers(list->items[i], "--click", 4, 0, INT32_MAX, v, error);
        if (status != SEGFM_OK) return status;
        for (int axis = 0; axis < 3; axis++)
            if (v[axis] >= c->shape.n[axis])
                return base_fail(error, SEGFM_BAD_USAGE, "--click: got %s, axis %c has 0 to %lld", list->items[i],
                                 "zyx"[axis], (long long)c -> shape.n[axis] - 1);
        if (v[3] > 1)
            return base_fail(error, SEGFM_BAD_USAGE, "--click: got %s, the label must be 1 or 0", list->items[i]);
        c->clicks[i] = (vol_click){{v[0], v[1], v[2]}, (int)v[3]};
    }
    return SEGFM_OK;
}

/* Everything of the options but the files. */
static segfm_status check_options(const tool_correct *o, correction *c, segfm_error *error) {
    int64_t steps = o->labels != NULL ? DEFAULT_STEPS : o->clicks.count;
    if ((o->labels != NULL) == (o->clicks.count > 0))
        return base_fail(error, SEGFM_BAD_USAGE, "--correct: needs either --labels or --click");
    if (o->variant != NULL && strcmp(o->variant, "seed") != 0 && strcmp(o->variant, "upstream") != 0)
        return base_fail(error, SEGFM_BAD_USAGE, "--variant: got %s, need seed or upstream", o->variant);
    c->variant = o->variant != NULL && strcmp(o->variant, "upstream") == 0 ? VOL_UPSTREAM : VOL_SEED;
    if (o->steps != NULL) {
        int64_t most = o->labels != NULL ? MAX_STEPS : o->clicks.count;
        segfm_status status = tool_integer(o->steps, "--steps", 1, most, &steps, error);
        if (status != SEGFM_OK) return status;
    }
    c->steps = (size_t)steps;
    return SEGFM_OK;
}

static segfm_status open_model(const char *weights, correction *c, segfm_error *error) {
    tool_model source = {0};
    const unsigned char *bytes = NULL;
    size_t size = 0;
    segfm_status status = tool_weights_bytes(weights, &source, &bytes, &size, error);
    if (status == SEGFM_OK) status = tool_network_open(bytes, size, true, &source, 2, c->threads, &c->network, error);
    if (status == SEGFM_OK && c->network.net.gru_count == 0)
        status = base_fail(error, SEGFM_BAD_INPUT, "the weights have no corrector: no tensors gru_blocks.N");
    if (status != SEGFM_OK) base_fail_where(error, status, weights);
    tool_model_close(&source);
    return status;
}

/* ---- the steps ----------------------------------------------------------------------------------------------- */

static segfm_status lay_out(correction *c, nn_arena *arena, segfm_error *error) {
    size_t points = 2 * (size_t)c->network.net.config.topk;
    vol_samples_plan(&c->samples, points / 2, c->shape, arena);
    c->state = nn_arena_reals(arena, 8 * points);
    c->coordinates = nn_arena_reals(arena, 3 * points);
    c->delta = nn_arena_reals(arena, points);
    c->offset = nn_arena_reals(arena, 3 * points);
    c->value = nn_arena_reals(arena, points);
    c->voxel = nn_arena_take(arena, points, sizeof *c->voxel);
    return segvol_corrector_plan(&c->corrector, &c->network.net, c->steps, c->threads, arena, error);
}

static segfm_status allocate(correction *c, segfm_error *error) {
    nn_arena arena = {0};
    segfm_status status = lay_out(c, &arena, error);
    if (status != SEGFM_OK) return status;
    c->memory = aligned_alloc(NN_ALIGN, arena.used);
    if (c->memory == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none, need %zu bytes", arena.used);
    arena = (nn_arena){.base = c->memory, .capacity = arena.used};
    return lay_out(c, &arena, error);
}

/* The click of step `step` from the labels; without an error its coordinates and label are −1. Upstream takes raw logits
   above ½ for the prediction. */
static segfm_status simulate(correction *c, size_t step, segfm_error *error) {
    vol_click_request q = {c->shape, VOL_CLICK_OFFICIAL, VOL_CLICK_LARGE, nn_threads(c->threads)};
    for (size_t i = 0; i < c->array.count; i++)
        c->prediction[i] = c->variant == VOL_SEED ? nn_sigmoid_above_half(c->logits[i]) : c->logits[i] > REAL_C(0.5);
    size_t bytes = vol_click_bytes(c->prediction, c->truth, &q);
    void *memory = bytes == 0 || bytes > SIZE_MAX - NN_ALIGN
                       ? NULL
                       : aligned_alloc(NN_ALIGN, (bytes + NN_ALIGN - 1) / NN_ALIGN * NN_ALIGN);
    if (memory == NULL && bytes > 0)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none, need %zu bytes", bytes);
    vol_simulate_click(c->prediction, c->truth, &q, memory, &c->clicks[step]);
    free(memory);
    return SEGFM_OK;
}

static segfm_status write(const char *folder, const char *name, size_t step, int ndim, const size_t *shape,
                          const real *data, segfm_error *error) {
    char file[64];
    base_format(file, sizeof file, "%s%zu", name, step);
    return tool_write_tensor(folder, file, ndim, shape, data, error);
}

/* Everything of the step but the logits, which are corrected after it. */
static segfm_status write_step(correction *c, size_t step, const char *folder, segfm_error *error) {
    size_t k = c->samples.k;
    const vol_click *click = &c->clicks[step];
    const real numbers[4] = {(real)click->at[0], (real)click->at[1], (real)click->at[2], (real)click->label};
    const bool seed = c->variant == VOL_SEED;
    segfm_status status = write(folder, "click", step, 1, (size_t[]){4}, numbers, error);
    const real *rows = c->corrector.rows + step * 16 * k;
    if (status == SEGFM_OK) status = write(folder, "gru_in", step, 3, (size_t[]){2, k, 8}, rows, error);
    for (size_t i = 0; i < 6 * k; i++) c->coordinates[i] = (real)c->samples.at[i / 3][i % 3]; /* in voxels, always */
    if (status == SEGFM_OK) status = write(folder, "coords", step, 2, (size_t[]){2 * k, 3}, c->coordinates, error);
    if (status == SEGFM_OK && seed) status = write(folder, "delta", step, 1, (size_t[]){2 * k}, c->delta, error);
    if (status == SEGFM_OK && seed && c->network.net.gru[0].fc_coord.weight.n > 0)
        status = write(folder, "offset", step, 2, (size_t[]){2 * k, 3}, c->offset, error);
    if (status != SEGFM_OK || seed) return status;
    nn_sigmoid_forward(&c->corrector.run, 2 * k, c->delta, c->value);
    return write(folder, "prob", step, 1, (size_t[]){2 * k}, c->value, error);
}

static segfm_status run_step(correction *c, size_t step, vol_mt *random, const char *folder, segfm_error *error) {
    const vol_click *click = &c->clicks[step];
    vol_view view = {c->logits, c->shape, {{0, 0, 0}, {0, 0, 0}}};
    for (int axis = 0; axis < 3; axis++) view.frame.hi[axis] = c->shape.n[axis] - 1;
    vol_sample(&view, c->variant, click, 1, c->truth, random, nn_threads(c->threads), &c->samples);
    vol_sample_state(&view, c->variant, click, &c->samples, c->state, c->coordinates);
    size_t reals = 16 * c->samples.k;
    memcpy(c->corrector.rows + step * reals, c->state, reals * sizeof(real));
    segvol_corrector_step(&c->network.net, &c->corrector, step, c->coordinates, c->delta, c->offset);
    segfm_status status = write_step(c, step, folder, error);
    if (c->variant == VOL_UPSTREAM) memset(c->offset, 0, 6 * c->samples.k * sizeof(real)); /* it knows no second head */
    size_t writes = vol_correction_writes(&view, c->variant, &c->samples, c->delta, c->offset, c->voxel, c->value);
    for (size_t i = 0; i < writes; i++) c->logits[c->voxel[i]] = c->value[i];
    if (status != SEGFM_OK) return status;
    return write(folder, "corrected", step, c->array.ndim, c->array.shape, c->logits, error);
}

static segfm_status run(correction *c, const char *folder, segfm_error *error) {
    vol_mt random;
    vol_mt_seed(&random, 0); /* as after torch.manual_seed(0) */
    segfm_status status = SEGFM_OK;
    for (size_t step = 0; status == SEGFM_OK && step < c->steps; step++) {
        if (c->truth != NULL) status = simulate(c, step, error);
        if (c->clicks[step].label < 0 && c->variant == VOL_SEED) return status; /* nothing is left to correct */
        if (status == SEGFM_OK) status = run_step(c, step, &random, folder, error);
    }
    return status;
}

segfm_status tool_trace_correct(const tool_correct *o, const char *weights, const char *folder,
                                const tool_common *common, segfm_error *error) {
    correction *c = calloc(1, sizeof *c);
    if (c == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the correction");
    c->threads = nn_threads(common->threads);
    segfm_status status = check_options(o, c, error);
    if (status == SEGFM_OK) {
        status = read_logits(o->logits, c, error);
        if (status != SEGFM_OK) base_fail_where(error, status, o->logits);
    }
    if (status == SEGFM_OK && o->labels != NULL) {
        status = read_labels(o->labels, c, error);
        if (status != SEGFM_OK) base_fail_where(error, status, o->labels);
    }
    if (status == SEGFM_OK) status = read_clicks(&o->clicks, c, error);
    if (status == SEGFM_OK) status = open_model(weights, c, error);
    if (status == SEGFM_OK) status = allocate(c, error);
    if (status == SEGFM_OK) status = tool_make_folder(folder, error);
    if (status == SEGFM_OK) status = run(c, folder, error);
    correction_close(c);
    free(c);
    return status;
}
