/* The scans that a run learns from: all of a list's are loaded once, phantoms are made when their turn comes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

/* ---- cases ----------------------------------------------------------------------------------------------------- */

static segfm_status make_case(const train_settings *s, const tool_scan *scan, const tool_labels *truth, int threads,
                              train_case *out, segfm_error *error) {
    vol_shape shape = {{scan->shape[0], scan->shape[1], scan->shape[2]}};
    segfm_status status = train_case_make(scan->voxels, truth->voxels, shape, truth->spacing, (uint64_t)s->min_voxels,
                                          threads, out, error);
    if (status == SEGFM_OK && out->class_count == 0) {
        train_case_free(out);
        status = base_fail(error, SEGFM_BAD_INPUT, "labels: no class has %lld voxels in the foreground",
                           (long long)s->min_voxels);
    }
    return status;
}

static segfm_status load_case(const train_settings *s, const char *image, const char *label, int threads,
                              train_case *out, segfm_error *error) {
    tool_scan scan = {0};
    tool_labels truth = {0};
    segfm_status status = tool_scan_open(image, NULL, &scan, error);
    if (status != SEGFM_OK) return base_fail_where(error, status, image);
    status = tool_labels_open(label, "gts", NULL, &truth, error);
    const double *xyz = scan.image.spacing, zyx[3] = {xyz[2], xyz[1], xyz[0]};
    vol_shape shape = {{scan.shape[0], scan.shape[1], scan.shape[2]}};
    if (status == SEGFM_OK) status = tool_labels_match(&truth, shape, zyx, "image", error);
    if (status == SEGFM_OK) status = make_case(s, &scan, &truth, threads, out, error);
    tool_scan_close(&scan);
    tool_labels_close(&truth);
    return status == SEGFM_OK ? status : base_fail_where(error, status, image);
}

/* Each hash begins with the one before, so that order counts too. */
static void hash_case(train_data *d, const train_case *c) {
    d->hash = base_xxh64(c->shape.n, sizeof c->shape.n, d->hash);
    d->hash = base_xxh64(c->image, vol_count(c->shape) * sizeof *c->image, d->hash);
    for (size_t i = 0; i < c->class_count; i++) {
        const train_class *k = &c->classes[i];
        d->hash = base_xxh64(&k->label, sizeof k->label, d->hash);
        d->hash = base_xxh64(k->runs, k->run_count * sizeof *k->runs, d->hash);
    }
}

static segfm_status load_cases(const train_settings *s, const tool_cases *list, int threads, train_data *out,
                               segfm_error *error) {
    out->cases = calloc(list->names.count, sizeof *out->cases);
    out->order.turn = calloc(list->names.count, sizeof *out->order.turn);
    if (out->cases == NULL || out->order.turn == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for a list of %zu cases", list->names.count);
    for (size_t i = 0; i < list->names.count; i++) {
        segfm_error problem = {0};
        train_case *c = &out->cases[out->count];
        segfm_status status = load_case(s, list->images.items[i], list->labels.items[i], threads, c, &problem);
        if (status == SEGFM_NO_MEMORY) {
            *error = problem;
            return status;
        }
        if (status != SEGFM_OK) {
            out->bad++;
            fprintf(stderr, "segfm: %s: %s (left out)\n", problem.where, problem.message);
            continue;
        }
        out->count++;
        out->classes += c->class_count;
        out->bytes += train_case_bytes(c);
        hash_case(out, c);
    }
    if (out->count > 0) return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_INPUT, "none of its %zu cases can be learned from", list->names.count);
}

segfm_status train_data_open(const train_settings *s, const char *pairs, int threads, train_data *out,
                             segfm_error *error) {
    tool_cases list = {0};
    segfm_status status = SEGFM_OK;
    *out = (train_data){0};
    if (s->source != TRAIN_PHANTOMS) {
        status = tool_cases_read(pairs, &list, error);
        if (status == SEGFM_OK) status = load_cases(s, &list, threads, out, error);
        if (status == SEGFM_BAD_INPUT) base_fail_where(error, status, pairs);
        tool_cases_free(&list);
    }
    out->order.seed = (uint64_t)s->seed;
    out->order.cases = out->count;
    out->order.phantoms = s->source == TRAIN_PAIRS ? 0 : s->phantoms;
    out->order.per_phantom = (uint64_t)s->phantoms_each;
    if (status != SEGFM_OK) train_data_close(out);
    return status;
}

void train_data_close(train_data *d) {
    for (size_t i = 0; i < d->count; i++) train_case_free(&d->cases[i]);
    if (d->phantom.classes != NULL) train_case_free(&d->phantom);
    free(d->cases);
    free(d->order.turn);
    *d = (train_data){0};
}

/* ---- samples --------------------------------------------------------------------------------------------------- */

static segfm_status make_phantom(train_data *d, const train_settings *s, uint64_t number, int threads,
                                 segfm_error *error) {
    train_phantom_options options = {{0}, {0}};
    train_scan scan = {0};
    if (d->phantom.classes != NULL && d->phantom_number == number) return SEGFM_OK;
    if (d->phantom.classes != NULL) train_case_free(&d->phantom);
    d->phantom = (train_case){0};
    memcpy(options.smallest, s->phantom_smallest, sizeof options.smallest);
    memcpy(options.largest, s->phantom_largest, sizeof options.largest);
    d->phantom_number = number;
    segfm_status status = train_phantom((uint64_t)s->seed, number, &options, threads, &scan, error);
    if (status != SEGFM_OK) return status;
    status = train_case_make(scan.voxels, scan.labels, scan.shape, scan.spacing, (uint64_t)s->min_voxels, threads,
                             &d->phantom, error);
    train_scan_free(&scan);
    if (status != SEGFM_OK) d->phantom = (train_case){0};
    return status == SEGFM_BAD_INPUT ? SEGFM_OK : status; /* no class is large enough: classes is NULL */
}

/* The phantom of that number, or where none of its classes is large enough one from far behind in the series. */
static segfm_status find_phantom(train_data *d, const train_settings *s, uint64_t number, int threads,
                                 segfm_error *error) {
    for (uint64_t attempt = 0; attempt < 20; attempt++) {
        segfm_status status = make_phantom(d, s, number + (attempt << 40), threads, error);
        if (status != SEGFM_OK || d->phantom.class_count > 0) return status;
    }
    return base_fail(error, SEGFM_BAD_INPUT, "phantoms: twenty in a row have no class of %lld voxels (min_voxels)",
                     (long long)s->min_voxels);
}

segfm_status train_data_draw(train_data *d, const train_settings *s, int threads, uint64_t step, int64_t place,
                             void *memory, train_sample *out, segfm_error *error) {
    const uint32_t *n = s->sizes.spatial;
    vol_shape window = {{n[0], n[1], n[2]}};
    train_place at = train_order_at(&d->order, step * (uint64_t)s->batch + (uint64_t)place);
    const train_case *c = at.phantom ? &d->phantom : &d->cases[at.number];
    if (at.phantom) {
        segfm_status status = find_phantom(d, s, at.number, threads, error);
        if (status != SEGFM_OK) return status;
    }
    train_augmentation augmentation = s->augmentation;
    augmentation.box_jitter = (unsigned)s->box_jitter;
    augmentation.frame = s->sizes.frame;
    train_random random = train_random_at((uint64_t)s->seed, step, (uint64_t)place);
    train_draw(c, (size_t)(at.turn % c->class_count), &window, &augmentation, &random, memory, out);
    return SEGFM_OK;
}
