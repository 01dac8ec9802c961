#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../vol/vol.h"
#include "tools.h"

/* ---- label maps ------------------------------------------------------------------------------------------------ */

typedef struct labels {
    vol_shape shape;
    double spacing[3]; /* mm, z,y,x; 0 where the file does not say */
    uint16_t *voxels;
    size_t count;
} labels;

enum { LABELS = UINT16_MAX + 1 };

static segfm_status take_voxels(labels *l, segfm_error *error) {
    size_t dims[3] = {(size_t)l->shape.n[0], (size_t)l->shape.n[1], (size_t)l->shape.n[2]}, bytes;
    if (!base_count(dims, 3, sizeof *l->voxels, &bytes) || (l->voxels = malloc(bytes)) == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %lld x %lld x %lld labels",
                         (long long)l->shape.n[2], (long long)l->shape.n[1], (long long)l->shape.n[0]);
    l->count = bytes / sizeof *l->voxels;
    return SEGFM_OK;
}

static segfm_status labels_from_nifti(const char *path, labels *l, segfm_error *error) {
    io_nifti image = {0};
    segfm_status status = io_nifti_read(path, &image, error);
    if (status != SEGFM_OK) return status;
    if (image.volumes != 1)
        status = base_fail(error, SEGFM_BAD_INPUT, "label map: got %lld volumes, need 1", (long long)image.volumes);
    l->shape = (vol_shape){{image.nz, image.ny, image.nx}};
    for (int k = 0; k < 3; k++) l->spacing[k] = image.spacing[2 - k];
    if (status == SEGFM_OK) status = take_voxels(l, error);
    if (status == SEGFM_OK) status = io_nifti_labels(&image, 0, l->voxels, error);
    io_nifti_free(&image);
    return status;
}

static segfm_status npz_labels(const io_array *array, const char *name, labels *l, segfm_error *error) {
    if (array->ndim != 3 || array->count == 0 || array->dtype == IO_OBJECT)
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: got %d axes and %zu elements, need 3 axes of numbers", name,
                         array->ndim, array->count);
    for (int k = 0; k < 3; k++) l->shape.n[k] = (int64_t)array->shape[k];
    segfm_status status = take_voxels(l, error);
    int64_t *wide =
        status == SEGFM_OK && array->count <= SIZE_MAX / sizeof *wide ? malloc(array->count * sizeof *wide) : NULL;
    if (status == SEGFM_OK && wide == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu labels", array->count);
    if (status == SEGFM_OK) status = io_array_to_i64(array, wide, error);
    for (size_t i = 0; status == SEGFM_OK && i < array->count; i++) {
        if (wide[i] < 0 || wide[i] > UINT16_MAX)
            status = base_fail(error, SEGFM_BAD_INPUT, "array %s: got label %lld, need 0 to %d", name,
                               (long long)wide[i], UINT16_MAX);
        l->voxels[i] = (uint16_t)wide[i];
    }
    free(wide);
    return status;
}

/* A challenge file: the array `name`, or `other` where it has none. */
static segfm_status labels_from_npz(const char *path, const char *name, const char *other, labels *l,
                                    segfm_error *error) {
    io_mapping file = {0};
    io_zip zip = {0};
    io_buffer bytes = {0};
    io_array array;
    double spacing[3]; /* x,y,z */
    segfm_status status = io_map_file(path, &file, error);
    if (status == SEGFM_OK) status = io_zip_open(file.data, file.size, &zip, error);
    if (status == SEGFM_OK && tool_npz_array(&zip, name, &bytes, &array, error) != SEGFM_OK) {
        io_buffer_free(&bytes);
        segfm_error second;
        if (tool_npz_array(&zip, other, &bytes, &array, &second) == SEGFM_OK) name = other;
        else status = SEGFM_BAD_INPUT; /* the first array's sentence */
    }
    if (status == SEGFM_OK) status = npz_labels(&array, name, l, error);
    if (status == SEGFM_OK && io_zip_find(&zip, "spacing.npy") != NULL) {
        status = tool_npz_spacing(&zip, spacing, error);
        for (int k = 0; status == SEGFM_OK && k < 3; k++) l->spacing[k] = spacing[2 - k];
    }
    io_buffer_free(&bytes);
    io_zip_close(&zip);
    io_unmap_file(&file);
    return status;
}

static segfm_status read_labels(const char *path, const char *name, const char *other, labels *l, segfm_error *error) {
    segfm_status status =
        tool_ends_with(path, ".npz") ? labels_from_npz(path, name, other, l, error) : labels_from_nifti(path, l, error);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

/* The two maps lie on one grid; where only one file has a spacing it is both's, where none has one it is 1 mm. */
static segfm_status match(labels *truth, const labels *predicted, segfm_error *error) {
    const int64_t *a = truth->shape.n, *b = predicted->shape.n;
    if (memcmp(a, b, sizeof truth->shape.n) != 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "shapes: the truth has %lld x %lld x %lld voxels, the prediction %lld x %lld x %lld",
                         (long long)a[2], (long long)a[1], (long long)a[0], (long long)b[2], (long long)b[1],
                         (long long)b[0]);
    for (int k = 0; k < 3; k++) {
        double s = truth->spacing[k], t = predicted->spacing[k];
        if (s > 0 && t > 0 && !(fabs(s - t) <= 1e-3 * s)) {
            char text[2][32];
            snprintf(text[0], sizeof text[0], "%g", s);
            snprintf(text[1], sizeof text[1], "%g", t);
            return base_fail(error, SEGFM_BAD_INPUT,
                             "spacings: along %c the truth has %s mm, the prediction %s mm; they are not of one scan",
                             "zyx"[k], text[0], text[1]);
        }
        truth->spacing[k] = s > 0 ? s : t > 0 ? t : 1;
    }
    return SEGFM_OK;
}

/* boxes[label] = the label's box. */
static void find_boxes(const labels *l, vol_box *boxes) {
    const uint16_t *row = l->voxels;
    for (size_t i = 0; i < LABELS; i++) boxes[i] = vol_box_none();
    for (int64_t z = 0; z < l->shape.n[0]; z++)
        for (int64_t y = 0; y < l->shape.n[1]; y++, row += l->shape.n[2])
            for (int64_t x = 0, end; x < l->shape.n[2]; x = end) {
                for (end = x + 1; end < l->shape.n[2] && row[end] == row[x];) end++;
                if (row[x] == 0) continue;
                boxes[row[x]] = vol_box_union(boxes[row[x]], (vol_box){{z, y, x}, {z, y, end - 1}});
            }
}

static void extract(const labels *l, vol_box box, unsigned label, uint8_t *mask) {
    for (int64_t z = box.lo[0]; z <= box.hi[0]; z++)
        for (int64_t y = box.lo[1]; y <= box.hi[1]; y++) {
            const uint16_t *row = l->voxels + (z * l->shape.n[1] + y) * l->shape.n[2];
            for (int64_t x = box.lo[2]; x <= box.hi[2]; x++) *mask++ = row[x] == label;
        }
}

/* ---- measuring -------------------------------------------------------------------------------------------------- */

/* q: spacing, tolerance and threads are set. */
static segfm_status measure_label(const labels *truth, const labels *predicted, vol_box box, unsigned label,
                                  vol_surface_request q, vol_surface *out, segfm_error *error) {
    q.shape = vol_box_shape(box);
    size_t n = vol_count(q.shape), bytes = vol_surface_bytes(q.shape, q.flat, q.threads);
    uint8_t *masks = malloc(2 * n);
    void *memory = bytes == SIZE_MAX ? NULL : aligned_alloc(NN_ALIGN, bytes);
    segfm_status status = SEGFM_OK;
    if (masks == NULL || memory == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none of %zu bytes to measure label %u", bytes, label);
    else {
        extract(truth, box, label, masks);
        extract(predicted, box, label, masks + n);
        vol_surface_measure(masks, masks + n, &q, memory, out);
    }
    free(masks);
    free(memory);
    return status;
}

/* ---- printing --------------------------------------------------------------------------------------------------- */

static const char *const reasons[] = {[VOL_DEFINED] = "defined",
                                      [VOL_BOTH_EMPTY] = "both empty",
                                      [VOL_TRUTH_EMPTY] = "truth empty",
                                      [VOL_PREDICTION_EMPTY] = "prediction empty"};
static const char *const names[] = {"DSC", "NSD", "HD95", "ASD", "ASD_gt", "ASD_pred"};
enum { METRICS = sizeof names / sizeof names[0], REASONS = sizeof reasons / sizeof reasons[0] };

typedef struct report {
    bool json;
    double sum[METRICS];
    int defined[METRICS], undefined[REASONS], classes, extra; /* extra: labels that only the prediction has */
} report;

static void values_of(const vol_surface *m, double v[METRICS]) {
    const double all[METRICS] = {m->dice,      m->nsd,           m->hd95, (m->asd_truth + m->asd_prediction) / 2,
                                 m->asd_truth, m->asd_prediction};
    memcpy(v, all, sizeof all);
}

static void print_values(const report *r, const double v[METRICS]) {
    for (int i = 0; i < METRICS; i++) {
        if (r->json) printf(", \"%s\": ", names[i]);
        else printf(" %s ", names[i]);
        if (isnan(v[i])) fputs(r->json ? "null" : "nan", stdout);
        else printf(r->json ? "%.9f" : "%.6f", v[i]);
    }
}

static void print_label(report *r, unsigned label, const vol_surface *m) {
    double v[METRICS];
    bool counts = m->truth > 0;
    values_of(m, v);
    printf(r->json ? "%s{\"label\": %u, \"voxels_gt\": %llu, \"voxels_pred\": %llu"
                   : "%slabel %u voxels_gt %llu voxels_pred %llu",
           r->json && r->classes + r->extra > 0 ? ", " : "", label, (unsigned long long)m->truth,
           (unsigned long long)m->prediction);
    print_values(r, v);
    if (m->undefined != VOL_DEFINED)
        printf(r->json ? ", \"reason\": \"%s\"" : counts ? " (%s)" : " (%s: not in the means)", reasons[m->undefined]);
    fputs(r->json ? "}" : "\n", stdout);
    if (!counts) {
        r->extra++;
        return;
    }
    for (int i = 0; i < METRICS; i++)
        if (!isnan(v[i])) r->sum[i] += v[i], r->defined[i]++;
    r->undefined[m->undefined]++;
    r->classes++;
}

static void print_means(const report *r) {
    double mean[METRICS];
    for (int i = 0; i < METRICS; i++) mean[i] = r->defined[i] > 0 ? r->sum[i] / r->defined[i] : (double)NAN;
    printf(r->json ? "], \"mean\": {\"classes\": %d" : "mean of %d labels", r->classes);
    print_values(r, mean);
    if (r->json) {
        printf(", \"defined\": {");
        for (int i = 0; i < METRICS; i++) printf("%s\"%s\": %d", i > 0 ? ", " : "", names[i], r->defined[i]);
        printf("}, \"undefined\": {\"prediction empty\": %d}, \"only_in_prediction\": %d",
               r->undefined[VOL_PREDICTION_EMPTY], r->extra);
        if (r->classes == 0) printf(", \"reason\": \"the truth has no labelled voxel\"");
        puts("}}");
        return;
    }
    if (r->classes == 0) fputs(" (the truth has no labelled voxel)", stdout);
    if (r->undefined[VOL_PREDICTION_EMPTY] > 0)
        printf(" (distances over %d: prediction empty %d)", r->classes - r->undefined[VOL_PREDICTION_EMPTY],
               r->undefined[VOL_PREDICTION_EMPTY]);
    if (r->extra > 0) printf(" (labels only in the prediction: %d)", r->extra);
    puts("");
}

typedef struct result {
    unsigned label;
    vol_surface metrics;
} result;

/* Every label of either map. *results: to be freed, n of them. */
static segfm_status measure(const labels *truth, const labels *predicted, const vol_surface_request *q,
                            result **results, size_t *n, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    vol_box *boxes = malloc(2 * LABELS * sizeof *boxes);
    if (boxes == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the boxes of labels");
    find_boxes(truth, boxes);
    find_boxes(predicted, boxes + LABELS);
    size_t present = 0;
    for (size_t i = 0; i < LABELS; i++) {
        boxes[i] = vol_box_union(boxes[i], boxes[LABELS + i]);
        present += !vol_box_is_empty(boxes[i]);
    }
    *results = malloc((present + 1) * sizeof **results);
    if (*results == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the metrics of %zu labels", present);
    for (unsigned label = 1; status == SEGFM_OK && label < LABELS; label++) {
        if (vol_box_is_empty(boxes[label])) continue;
        result *r = &(*results)[*n];
        r->label = label;
        status = measure_label(truth, predicted, boxes[label], label, *q, &r->metrics, error);
        *n += 1;
    }
    free(boxes);
    return status;
}

static void print_results(const result *results, size_t n, const vol_surface_request *q, bool json) {
    report r = {.json = json};
    if (json)
        printf("{\"tolerance\": %.9g, \"spacing\": [%.9g, %.9g, %.9g], \"classes\": [", q->tolerance, q->spacing[2],
               q->spacing[1], q->spacing[0]);
    for (size_t i = 0; i < n; i++) print_label(&r, results[i].label, &results[i].metrics);
    print_means(&r);
}

segfm_status command_metrics(int argc, char **argv, segfm_error *error) {
    const char *truth_path = NULL, *predicted_path = NULL, *tolerance = NULL;
    bool json = false;
    tool_common common;
    vol_surface_request q = {.tolerance = 2};
    const tool_option options[] = {{"--gt", .value = &truth_path},
                                   {"--pred", .value = &predicted_path},
                                   {"--tolerance", .value = &tolerance},
                                   {"--flat", .flag = &q.flat},
                                   {"--json", .flag = &json},
                                   {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status == SEGFM_OK) status = tool_need(truth_path, "--gt", error);
    if (status == SEGFM_OK) status = tool_need(predicted_path, "--pred", error);
    if (status == SEGFM_OK && tolerance != NULL) status = tool_number(tolerance, "--tolerance", &q.tolerance, error);
    if (status == SEGFM_OK && !(q.tolerance >= 0))
        status = base_fail(error, SEGFM_BAD_USAGE, "--tolerance: got %s, need millimetres, 0 or more", tolerance);
    if (status != SEGFM_OK) return status;
    labels truth = {0}, predicted = {0};
    status = read_labels(truth_path, "gts", "segs", &truth, error);
    if (status == SEGFM_OK) status = read_labels(predicted_path, "segs", "gts", &predicted, error);
    if (status == SEGFM_OK) status = match(&truth, &predicted, error);
    if (status == SEGFM_OK && q.flat && truth.shape.n[0] != 1)
        status = base_fail(error, SEGFM_BAD_USAGE, "--flat: got %lld slices, need 1", (long long)truth.shape.n[0]);
    q.threads = nn_threads(common.threads);
    memcpy(q.spacing, truth.spacing, sizeof q.spacing);
    result *results = NULL;
    size_t n = 0;
    if (status == SEGFM_OK) status = measure(&truth, &predicted, &q, &results, &n, error);
    if (status == SEGFM_OK) print_results(results, n, &q, json);
    free(results);
    free(truth.voxels);
    free(predicted.voxels);
    return status;
}
