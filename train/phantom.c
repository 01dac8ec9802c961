/* Phantoms: one of an endless series, from nothing but its seed and number. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "phantom.h"

enum { ATTEMPTS = 8, FIELDS = 8 };

/* Steps of the streams: a phantom's first attempt, its second, … */
static const uint64_t stream_step = 0x7068616E746F6DU; /* "phantom": not a training step's */

void train_scan_free(train_scan *s) {
    free(s->voxels);
    free(s->labels);
    *s = (train_scan){0};
}

static segfm_status check_options(const train_phantom_options *o, train_phantom_options *out, segfm_error *error) {
    static const train_phantom_options usual = {{24, 64, 64}, {64, 128, 128}};
    *out = usual;
    for (int k = 0; o != NULL && k < 3; k++) {
        if (o->smallest[k] == 0 && o->largest[k] == 0) continue;
        out->smallest[k] = o->smallest[k] != 0 ? o->smallest[k] : o->largest[k];
        out->largest[k] = o->largest[k] != 0 ? o->largest[k] : o->smallest[k];
        if (out->smallest[k] < TRAIN_PHANTOM_SMALLEST || out->largest[k] > TRAIN_PHANTOM_LARGEST ||
            out->smallest[k] > out->largest[k])
            return base_fail(error, SEGFM_BAD_USAGE,
                             "phantom: got %lld to %lld voxels along axis %d (z,y,x), need %d to %d in ascending order",
                             (long long)out->smallest[k], (long long)out->largest[k], k, TRAIN_PHANTOM_SMALLEST,
                             TRAIN_PHANTOM_LARGEST);
    }
    return SEGFM_OK;
}

/* ---- geometry -------------------------------------------------------------------------------------------------- */

/* Axes of three lengths where the bounds allow it: an index that goes along the wrong one is noticed. */
static void draw_shape(phantom *p, const train_phantom_options *o) {
    int64_t *n = p->shape.n;
    for (int k = 0; k < 3; k++) n[k] = train_whole(p, o->smallest[k], o->largest[k]);
    for (int k = 1; k < 3; k++)
        while ((n[k] == n[0] || (k == 2 && n[2] == n[1])) && o->largest[k] - o->smallest[k] > 1)
            n[k] = n[k] < o->largest[k] ? n[k] + 1 : o->smallest[k];
    p->count = vol_count(p->shape);
}

/* Slices are as thick as the picture is fine, or up to five times as thick, so that the scan is about as deep as it is
   wide or less. */
static void draw_spacing(phantom *p) {
    double plane = train_between_log(p, 0.4, 2.5);
    double wide = (double)(p->shape.n[1] < p->shape.n[2] ? p->shape.n[1] : p->shape.n[2]);
    double ratio = train_between(p, 0.45, 1.2) * wide / (double)p->shape.n[0];
    if (ratio < 1 || train_chance(p, 0.25)) ratio = 1;
    if (ratio > 5) ratio = 5;
    p->mm[0] = plane * ratio, p->mm[1] = p->mm[2] = plane;
    if (train_chance(p, 0.1)) p->mm[1] *= train_between(p, 0.8, 1.25);
    p->voxel = p->mm[1] < p->mm[2] ? p->mm[1] : p->mm[2];
    for (int k = 0; k < 3; k++) {
        if (p->mm[k] < p->voxel) p->voxel = p->mm[k];
        p->size[k] = p->mm[k] * (double)p->shape.n[k];
    }
}

/* A field whose cells measure `length` along every axis. */
static void draw_field(phantom *p, double length, float *out) {
    int64_t cells[3];
    for (int k = 0; k < 3; k++) cells[k] = 1 + (int64_t)(p->size[k] / length);
    train_field(p, cells, out);
}

static void draw_fields(phantom *p) {
    double side = p->size[1] < p->size[2] ? p->size[1] : p->size[2];
    double length = side / train_between(p, 2.5, 5), amount = length * train_between(p, 0.04, 0.16);
    draw_field(p, side / train_between(p, 5, 9), p->rough);
    draw_field(p, p->voxel * train_between(p, 3, 6), p->fine);
    for (int k = 0; k < 3; k++) {
        float largest = 0;
        draw_field(p, length, p->warp[k]);
        for (size_t i = 0; i < p->count; i++) {
            float moved = p->warp[k][i] *= (float)amount;
            if (moved < 0) moved = -moved;
            if (moved > largest) largest = moved;
        }
        p->reach[k] = (double)largest;
    }
}

/* ---- labels ---------------------------------------------------------------------------------------------------- */

/* Labels of too few voxels go, the others move up. */
static void tidy_labels(phantom *p) {
    uint64_t voxels[PHANTOM_CLASSES + 1] = {0};
    uint16_t to[PHANTOM_CLASSES + 1] = {0};
    unsigned kept = 0;
    for (size_t i = 0; i < p->count; i++) voxels[p->label[i]]++;
    for (unsigned l = 1; l <= PHANTOM_CLASSES; l++)
        if (voxels[l] >= PHANTOM_MIN_VOXELS) to[l] = (uint16_t)++kept;
    for (size_t i = 0; i < p->count; i++) p->label[i] = to[p->label[i]];
    p->classes = kept;
}

/* Where chance has left nothing to find: a ball in the middle. */
static void paint_ball(phantom *p) {
    phantom_blob b = {0};
    for (int k = 0; k < 3; k++) {
        b.centre[k] = 0.5 * p->size[k];
        b.radius[k] = 0.42 * p->size[k];
        b.turn[k][k] = 1;
    }
    phantom_paint paint = train_new_paint(p, train_pick_value(p, train_value_at(p, b.centre)), 1);
    paint.edge = p->voxel, paint.confined = false;
    train_paint(p, train_blob(p, &b), &paint);
}

/* ---- the phantom ----------------------------------------------------------------------------------------------- */

static segfm_status take_memory(phantom *p, float **fields, segfm_error *error) {
    *fields = malloc(nn_times(nn_times(p->count, FIELDS), sizeof **fields)); /* SIZE_MAX: there is not as much */
    p->value = malloc(nn_times(p->count, sizeof *p->value));
    p->label = calloc(p->count, sizeof *p->label);
    if (*fields == NULL || p->value == NULL || p->label == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a phantom of %lld x %lld x %lld voxels (z,y,x)",
                         (long long)p->shape.n[0], (long long)p->shape.n[1], (long long)p->shape.n[2]);
    float **parts[] = {&p->warp[0], &p->warp[1], &p->warp[2], &p->rough, &p->fine, &p->body, &p->distance, &p->work};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) *parts[i] = *fields + i * p->count;
    return SEGFM_OK;
}

static void draw_phantom(phantom *p, uint64_t seed, uint64_t number) {
    static const double looks[LOOKS] = {3.2, 3.4, 1, 1, 1.4};
    for (uint64_t attempt = 1; attempt <= ATTEMPTS; attempt++) {
        memset(p->label, 0, p->count * sizeof *p->label);
        p->has_body = false;
        p->classes = 0;
        p->random = train_random_at(seed, stream_step + attempt, number);
        p->look = (phantom_look)train_random_choice(&p->random, looks, LOOKS);
        if (attempt == ATTEMPTS) p->look = LOOK_MR; /* which shows all of the canvas: the ball is there for certain */
        draw_spacing(p);
        draw_fields(p);
        train_scene(p);
        if (attempt == ATTEMPTS) paint_ball(p);
        train_look(p);
        tidy_labels(p);
        if (p->classes > 0) return;
    }
}

segfm_status train_phantom(uint64_t seed, uint64_t number, const train_phantom_options *o, int threads, train_scan *out,
                           segfm_error *error) {
    train_phantom_options options;
    phantom p = {.threads = threads, .random = train_random_at(seed, stream_step, number)};
    float *fields = NULL;
    segfm_status status = check_options(o, &options, error);
    if (status != SEGFM_OK) return status;
    draw_shape(&p, &options);
    status = take_memory(&p, &fields, error);
    if (status == SEGFM_OK) draw_phantom(&p, seed, number);
    free(fields);
    if (status != SEGFM_OK) {
        free(p.value);
        free(p.label);
        return status;
    }
    *out = (train_scan){.shape = p.shape, .voxels = p.value, .labels = p.label, .classes = p.classes};
    memcpy(out->spacing, p.mm, sizeof out->spacing);
    return SEGFM_OK;
}
