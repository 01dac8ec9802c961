#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../vol/vol.h"
#include "tools.h"

typedef struct labels {
    io_nifti image;
    uint16_t *voxels;
    size_t count;
} labels;

static segfm_status read_labels(const char *path, labels *l, segfm_error *error) {
    segfm_status status = io_nifti_read(path, &l->image, error); /* names the file itself */
    if (status != SEGFM_OK) return status;
    size_t dims[3] = {(size_t)l->image.nz, (size_t)l->image.ny, (size_t)l->image.nx};
    if (!base_count(dims, 3, 1, &l->count) || l->count > SIZE_MAX / sizeof *l->voxels ||
        (l->voxels = malloc(l->count * sizeof *l->voxels)) == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu voxels", l->count);
    if (status == SEGFM_OK && l->image.volumes != 1)
        status = base_fail(error, SEGFM_BAD_INPUT, "label map: got %lld volumes, need 1", (long long)l->image.volumes);
    if (status == SEGFM_OK) status = io_nifti_labels(&l->image, 0, l->voxels, error);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

static void labels_free(labels *l) {
    io_nifti_free(&l->image);
    free(l->voxels);
}

/* present[v]: the truth has a voxel of label v > 0. */
static void print_dice(const labels *truth, const labels *predicted, const bool *present, bool json) {
    double sum = 0;
    int classes = 0;
    if (json) fputs("{\"classes\": [", stdout);
    for (unsigned label = 1; label <= UINT16_MAX; label++) {
        if (!present[label]) continue;
        double dice = vol_dice(truth->voxels, predicted->voxels, truth->count, (uint16_t)label);
        if (json) printf("%s{\"label\": %u, \"DSC\": %.6f}", classes > 0 ? ", " : "", label, dice);
        else printf("label %u DSC %.6f\n", label, dice);
        sum += dice;
        classes++;
    }
    if (json) printf("], \"mean\": {\"classes\": %d, \"DSC\": ", classes);
    else printf("mean of %d labels DSC ", classes);
    if (classes > 0) printf("%.6f", sum / classes);
    else fputs(json ? "null" : "nan (the truth has no labelled voxel)", stdout);
    puts(json ? "}}" : "");
}

static segfm_status measure(const labels *truth, const labels *predicted, bool json, segfm_error *error) {
    const io_nifti *a = &truth->image, *b = &predicted->image;
    if (a->nx != b->nx || a->ny != b->ny || a->nz != b->nz)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "shapes: the truth has %lld x %lld x %lld voxels, the prediction %lld x %lld x %lld",
                         (long long)a->nx, (long long)a->ny, (long long)a->nz, (long long)b->nx, (long long)b->ny,
                         (long long)b->nz);
    bool *present = calloc(UINT16_MAX + 1, sizeof *present);
    if (present == NULL) return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for the list of labels");
    for (size_t i = 0; i < truth->count; i++) present[truth->voxels[i]] = true;
    print_dice(truth, predicted, present, json);
    free(present);
    return SEGFM_OK;
}

segfm_status command_metrics(int argc, char **argv, segfm_error *error) {
    const char *truth_path = NULL, *predicted_path = NULL;
    bool json = false;
    tool_common common;
    const tool_option options[] = {
        {"--gt", .value = &truth_path}, {"--pred", .value = &predicted_path}, {"--json", .flag = &json}, {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &common, error);
    if (status == SEGFM_OK) status = tool_need(truth_path, "--gt", error);
    if (status == SEGFM_OK) status = tool_need(predicted_path, "--pred", error);
    if (status != SEGFM_OK) return status;
    labels truth = {0}, predicted = {0};
    status = read_labels(truth_path, &truth, error);
    if (status == SEGFM_OK) status = read_labels(predicted_path, &predicted, error);
    if (status == SEGFM_OK) status = measure(&truth, &predicted, json, error);
    labels_free(&truth);
    labels_free(&predicted);
    return status;
}
