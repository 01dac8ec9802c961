#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

/* ---- measuring -------------------------------------------------------------------------------------------------- */

/* q: spacing, tolerance and threads are set. */
static segfm_status measure_label(const tool_labels *truth, const tool_labels *predicted, vol_box box, unsigned label,
                                  vol_surface_request q, vol_surface *out, segfm_error *error) {
    q.shape = vol_box_shape(box);
    size_t n = vol_count(q.shape), bytes = vol_surface_bytes(q.shape, q.flat, q.threads);
    uint8_t *masks = malloc(2 * n);
    void *memory = bytes == SIZE_MAX ? NULL : aligned_alloc(NN_ALIGN, bytes);
    segfm_status status = SEGFM_OK;
    if (masks == NULL || memory == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none of %zu bytes to measure label %u", bytes, label);
    else {
        tool_labels_extract(truth, box, label, masks);
        tool_labels_extract(predicted, box, label, masks + n);
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
static segfm_status measure(const tool_labels *truth, const tool_labels *predicted, const vol_surface_request *q,
                            result **results, size_t *n, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    vol_box *boxes = malloc(2 * TOOL_LABELS * sizeof *boxes);
    if (boxes == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the boxes of labels");
    tool_labels_boxes(truth, boxes);
    tool_labels_boxes(predicted, boxes + TOOL_LABELS);
    size_t present = 0;
    for (size_t i = 0; i < TOOL_LABELS; i++) {
        boxes[i] = vol_box_union(boxes[i], boxes[TOOL_LABELS + i]);
        present += !vol_box_is_empty(boxes[i]);
    }
    *results = malloc((present + 1) * sizeof **results);
    if (*results == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the metrics of %zu labels", present);
    for (unsigned label = 1; status == SEGFM_OK && label < TOOL_LABELS; label++) {
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
    tool_labels truth = {0}, predicted = {0};
    status = tool_labels_open(truth_path, "gts", "segs", &truth, error);
    if (status == SEGFM_OK) status = tool_labels_open(predicted_path, "segs", "gts", &predicted, error);
    if (status == SEGFM_OK) {
        status = tool_labels_match(&truth, predicted.shape, predicted.spacing, "prediction", error);
        if (status != SEGFM_OK) base_fail_where(error, status, predicted_path);
    }
    if (status == SEGFM_OK && q.flat && truth.shape.n[0] != 1)
        status = base_fail(error, SEGFM_BAD_USAGE, "--flat: got %lld slices, need 1", (long long)truth.shape.n[0]);
    q.threads = nn_threads(common.threads);
    memcpy(q.spacing, truth.spacing, sizeof q.spacing);
    result *results = NULL;
    size_t n = 0;
    if (status == SEGFM_OK) status = measure(&truth, &predicted, &q, &results, &n, error);
    if (status == SEGFM_OK) print_results(results, n, &q, json);
    free(results);
    tool_labels_close(&truth);
    tool_labels_close(&predicted);
    return status;
}
