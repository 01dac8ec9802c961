#include <stdlib.h>
#include <string.h>

#include "tools.h"

typedef struct settings {
    tool_common common;
    const char *scan, *weights, *box, *mask, *logits, *overlay, *volume, *variant;
    tool_list clicks;
    bool no_zoom, world;
} settings;

static segfm_status prompt(segfm_session *session, const settings *o, const io_nifti *image, segfm_error *error) {
    segfm_status status = SEGFM_OK;
    if (o->box != NULL) {
        int64_t box[6];
        status = tool_read_box(o->box, "--box", o->world, image, box, error);
        if (status == SEGFM_OK) status = segfm_box(session, box, error);
    }
    for (int i = 0; status == SEGFM_OK && i < o->clicks.count; i++) {
        int64_t voxel[3];
        bool foreground = false;
        status = tool_read_click(o->clicks.items[i], "--click", o->world, image, voxel, &foreground, error);
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
        if (o->box != NULL) status = tool_read_box(o->box, "--box", o->world, &scan->image, box, error);
        if (status == SEGFM_OK) status = tool_overlay(o->overlay, scan, mask, o->box != NULL ? box : NULL, error);
    }
    free(mask);
    free(logits);
    return status;
}

/* No result may replace the scan or another result. */
static segfm_status check_outputs(const settings *o, segfm_error *error) {
    const char *outputs[3] = {o->mask, o->logits, o->overlay};
    for (int i = 0; i < 3; i++) {
        char sibling[4096];
        if (outputs[i] == NULL) continue;
        segfm_status status = tool_sibling(outputs[i], sibling, sizeof sibling, error);
        if (status == SEGFM_OK) status = tool_keep_input(o->scan, outputs[i], error);
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
    if (status == SEGFM_OK) status = tool_check_nifti_name(o->mask, error);
    if (status == SEGFM_OK) status = tool_check_nifti_name(o->logits, error);
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
    if (status == SEGFM_OK) status = tool_model_open(o->weights, &o->common, o->clicks.count > 0, model, error);
    if (status != SEGFM_OK) return status;
    segfm_options options = segfm_options_default();
    options.threads = o->common.threads;
    options.zoom_only = o->no_zoom;
    if (o->variant != NULL && strcmp(o->variant, "upstream") == 0) options.variant = SEGFM_UPSTREAM;
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
