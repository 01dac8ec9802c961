#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

typedef struct settings {
    tool_common common;
    const char *scan, *weights, *box, *mask, *logits, *overlay, *volume, *variant;
    tool_list clicks;
    bool no_zoom, world;
} settings;

/* Millimetres (x,y,z) → the nearest voxel (x,y,z), through the inverse of the scan's affine. */
static segfm_status voxel_of(const io_nifti *image, const double mm[3], int64_t voxel[3], segfm_error *error) {
    const double(*a)[4] = image->affine;
    double d[3], minor[3][3], det = 0;
    for (int i = 0; i < 3; i++) {
        int p = (i + 1) % 3, q = (i + 2) % 3;
        d[i] = mm[i] - a[i][3];
        for (int j = 0; j < 3; j++)
            minor[i][j] = a[p][(j + 1) % 3] * a[q][(j + 2) % 3] - a[p][(j + 2) % 3] * a[q][(j + 1) % 3];
        det += a[0][i] * (a[1][(i + 1) % 3] * a[2][(i + 2) % 3] - a[1][(i + 2) % 3] * a[2][(i + 1) % 3]);
    }
    for (int j = 0; j < 3; j++) { /* inverse = adjugate / determinant; minor[i][j] is already the cofactor of a[i][j] */
        double v = (minor[0][j] * d[0] + minor[1][j] * d[1] + minor[2][j] * d[2]) / det;
        if (!(fabs(v) < 1e9))
            return base_fail(error, SEGFM_BAD_INPUT, "the scan's affine cannot turn millimetres into voxels");
        voxel[j] = (int64_t)floor(v + 0.5);
    }
    return SEGFM_OK;
}

/* The text of a point or box: n/3 points (x,y,z) → voxels. */
static segfm_status read_voxels(const char *text, const char *what, int n, bool world, const io_nifti *image,
                                int64_t *out, segfm_error *error) {
    if (!world) return tool_integers(text, what, n, -1000000000, 1000000000, out, error);
    double mm[6];
    segfm_status status = tool_numbers(text, what, n, mm, error);
    for (int i = 0; status == SEGFM_OK && i < n; i += 3) status = voxel_of(image, mm + i, out + i, error);
    return status;
}

/* --box x0,y0,z0,x1,y1,z1 → {z0,y0,x0,z1,y1,x1}. Corners in millimetres come in any order: an axis may be flipped. */
static segfm_status read_box(const settings *o, const io_nifti *image, int64_t box[6], segfm_error *error) {
    int64_t v[6];
    segfm_status status = read_voxels(o->box, "--box", 6, o->world, image, v, error);
    if (status != SEGFM_OK) return status;
    for (int axis = 0; axis < 3; axis++) {
        bool swap = o->world && v[axis] > v[3 + axis];
        box[2 - axis] = swap ? v[3 + axis] : v[axis];
        box[5 - axis] = swap ? v[axis] : v[3 + axis];
    }
    return SEGFM_OK;
}

/* --click x,y,z,+ or x,y,z,- → {z,y,x} */
static segfm_status read_click(const char *text, const settings *o, const io_nifti *image, int64_t voxel[3],
                               bool *foreground, segfm_error *error) {
    char numbers[128];
    size_t n = strlen(text);
    int64_t v[3];
    if (n < 3 || n >= sizeof numbers || text[n - 2] != ',' || (text[n - 1] != '+' && text[n - 1] != '-'))
        return base_fail(error, SEGFM_BAD_USAGE, "--click: got %s, need x,y,z,+ or x,y,z,-", text);
    memcpy(numbers, text, n - 2);
    numbers[n - 2] = '\0';
    *foreground = text[n - 1] == '+';
    segfm_status status = read_voxels(numbers, "--click", 3, o->world, image, v, error);
    for (int axis = 0; axis < 3; axis++) voxel[axis] = v[2 - axis];
    return status;
}

static segfm_status prompt(segfm_session *session, const settings *o, const io_nifti *image, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    if (o->box != NULL) {
        int64_t box[6];
        status = read_box(o, image, box, error);
        if (status == SEGFM_OK) status = segfm_box(session, box, error);
    }
    for (int i = 0; status == SEGFM_OK && i < o->clicks.count; i++) {
        int64_t voxel[3];
        bool foreground = false;
        status = read_click(o->clicks.items[i], o, image, voxel, &foreground, error);
        if (status == SEGFM_OK) status = segfm_click(session, voxel, foreground, error);
    }
    return status;
}

/* The session and its model go before files are written, so that what is made for those adds nothing to the peak of
   memory. */
static segfm_status write_results(segfm_session **session, tool_model *model, const settings *o, const tool_scan *scan,
                                  segfm_error *error) {
    uint8_t *mask = malloc(scan->count);
    float *logits = o->logits != NULL ? malloc(scan->count * sizeof *logits) : NULL;
    segfm_status status = SEGFM_OK;
    if (mask == NULL || (o->logits != NULL && logits == NULL))
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu voxels of output", scan->count);
    if (status == SEGFM_OK) status = segfm_mask(*session, mask, scan->count, error);
    if (status == SEGFM_OK && logits != NULL) status = segfm_logits(*session, logits, scan->count, error);
    segfm_session_free(*session);
    *session = NULL;
    tool_model_close(model);
    if (status == SEGFM_OK) status = io_nifti_write_like(o->mask, &scan->image, IO_U8, mask, error);
    if (status == SEGFM_OK && logits != NULL)
        status = io_nifti_write_like(o->logits, &scan->image, IO_F32, logits, error);
    if (status == SEGFM_OK && o->overlay != NULL) {
        int64_t box[6];
        if (o->box != NULL) status = read_box(o, &scan->image, box, error);
        if (status == SEGFM_OK) status = tool_overlay(o->overlay, scan, mask, o->box != NULL ? box : NULL, error);
    }
    free(mask);
    free(logits);
    return status;
}

static segfm_status check_name(const char *path, segfm_error *error) {
    if (path == NULL || tool_ends_with(path, ".nii") || tool_ends_with(path, ".nii.gz") ||
        tool_ends_with(path, ".hdr") || tool_ends_with(path, ".img"))
        return SEGFM_OK;
    return base_fail(error, SEGFM_BAD_USAGE, "output %s: the name must end in .nii, .nii.gz, .hdr or .img", path);
}

/* The other file of a .hdr/.img pair; a copy of the path when it names none. False when it does not fit. */
static bool sibling_of(const char *path, char *out, size_t capacity) {
    size_t length = strlen(path);
    if (length >= capacity) return false;
    memcpy(out, path, length + 1);
    if (tool_ends_with(path, ".hdr")) memcpy(out + length - 4, ".img", 4);
    else if (tool_ends_with(path, ".img")) memcpy(out + length - 4, ".hdr", 4);
    return true;
}

/* No result may replace the scan or another result. */
static segfm_status check_outputs(const settings *o, segfm_error *error) {
    const char *outputs[3] = {o->mask, o->logits, o->overlay};
    for (int i = 0; i < 3; i++) {
        char sibling[4096];
        if (outputs[i] == NULL) continue;
        if (!sibling_of(outputs[i], sibling, sizeof sibling))
            return base_fail(error, SEGFM_BAD_USAGE, "output %s: the name is too long", outputs[i]);
        segfm_status status = tool_keep_input(o->scan, outputs[i], error);
        if (status == SEGFM_OK) status = tool_keep_input(o->scan, sibling, error);
        if (status != SEGFM_OK) return status;
        for (int j = 0; j < i; j++)
            if (outputs[j] != NULL && (strcmp(outputs[i], outputs[j]) == 0 || strcmp(sibling, outputs[j]) == 0))
                return base_fail(error, SEGFM_BAD_USAGE, "output %s: two results cannot go to one file", outputs[i]);
    }
    return SEGFM_OK;
}

static segfm_status check_settings(const settings *o, segfm_error *error) {
    segfm_status status = tool_need(o->scan, "-i", error);
    if (status == SEGFM_OK) status = tool_need(o->mask, "-o", error);
    if (status == SEGFM_OK) status = check_name(o->mask, error);
    if (status == SEGFM_OK) status = check_name(o->logits, error);
    if (status == SEGFM_OK) status = check_outputs(o, error);
    if (status == SEGFM_OK && o->box == NULL && o->clicks.count == 0)
        status = base_fail(error, SEGFM_BAD_USAGE, "no prompt: give --box or --click");
    if (status == SEGFM_OK && o->variant != NULL && strcmp(o->variant, "seed") != 0 &&
        strcmp(o->variant, "upstream") != 0)
        status = base_fail(error, SEGFM_BAD_USAGE, "--variant: got %s, need seed or upstream", o->variant);
    return status;
}

/* Opens everything, runs, writes; what was opened is closed by the caller. */
static segfm_status run(const settings *o, tool_scan *scan, tool_model *model, segfm_session **session,
                        segfm_error *error) {
    segfm_status status = tool_scan_open(o->scan, o->volume, scan, error);
    if (status == SEGFM_OK) status = tool_model_open(o->weights, &o->common, model, error);
    if (status != SEGFM_OK) return status;
    segfm_options options = segfm_options_default();
    options.threads = o->common.threads;
    options.zoom_only = o->no_zoom;
    if (o->clicks.count > options.max_clicks) options.max_clicks = o->clicks.count;
    if (!o->common.quiet) options.progress = tool_progress;
    status = segfm_session_new(model->model, scan->shape, &options, NULL, 0, session, error);
    if (status == SEGFM_OK) status = segfm_set_volume(*session, scan->voxels, error);
    if (o->overlay == NULL) tool_scan_release(scan);
    if (status == SEGFM_OK) status = prompt(*session, o, &scan->image, error);
    if (status == SEGFM_BAD_INPUT) base_fail_where(error, status, o->scan);
    if (status == SEGFM_OK) status = write_results(session, model, o, scan, error);
    return status;
}

segfm_status command_segment(int argc, char **argv, segfm_error *error) {
    settings o = {0};
    const tool_option options[] = {
        {"-i", .value = &o.scan},           {"-w", .value = &o.weights},        {"--box", .value = &o.box},
        {"--click", .list = &o.clicks},     {"-o", .value = &o.mask},           {"--logits", .value = &o.logits},
        {"--overlay", .value = &o.overlay}, {"--variant", .value = &o.variant}, {"--volume", .value = &o.volume},
        {"--no-zoom", .flag = &o.no_zoom},  {"--world", .flag = &o.world},      {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &o.common, error);
    if (status == SEGFM_OK) status = check_settings(&o, error);
    if (status != SEGFM_OK) return status;
    tool_scan scan = {0};
    tool_model model = {0};
    segfm_session *session = NULL;
    status = run(&o, &scan, &model, &session, error);
    segfm_session_free(session);
    tool_model_close(&model);
    tool_scan_close(&scan);
    return status;
}
