#include <stdlib.h>

#include "tools.h"

/* Which of the classes prev_pred has a voxel of; found once, since there may be 65,535 classes. NULL: no memory. */
static bool *previous_classes(const tool_challenge *c) {
    bool *has = calloc((size_t)c->classes + 1, sizeof *has);
    for (size_t v = 0; has != NULL && c->has_previous && v < c->scan.count; v++) {
        double label = io_array_get(&c->previous, v);
        if (label >= 1 && label <= (double)c->classes) has[(size_t)label] = true;
    }
    return has;
}

/* Every class in turn; later classes overwrite earlier ones. A class that this file asks nothing of keeps what the step
   before found (prev_pred). */
static segfm_status segment_case(segfm_session *session, const tool_challenge *c, uint16_t *labels, uint8_t *mask,
                                 segfm_error *error) {
    bool *previous = previous_classes(c);
    segfm_status status = segfm_set_volume(session, c->scan.voxels, error);
    if (status == SEGFM_OK && previous == NULL)
        status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %d classes", (int)c->classes);
    for (uint32_t i = 0; status == SEGFM_OK && i < c->classes; i++) {
        bool prompted = false;
        segfm_reset(session);
        status = tool_challenge_prompt(c, i, session, &prompted, error);
        if (!prompted && !previous[i + 1]) continue;
        if (status == SEGFM_OK) status = segfm_mask(session, mask, c->scan.count, error);
        for (size_t v = 0; status == SEGFM_OK && v < c->scan.count; v++) {
            bool inside = prompted ? mask[v] != 0 : io_array_get(&c->previous, v) == (double)(i + 1);
            if (inside) labels[v] = (uint16_t)(i + 1);
        }
    }
    free(previous);
    return status;
}

static segfm_status predict_case(const segfm_model *model, const tool_common *common, const char *in, const char *out,
                                 segfm_error *error) {
    tool_challenge c;
    segfm_session *session = NULL;
    uint16_t *labels = NULL;
    uint8_t *mask = NULL;
    segfm_options options = segfm_options_default();
    options.threads = common->threads;
    options.max_clicks = TOOL_MAX_CLICKS;
    segfm_status status = tool_challenge_open(in, &c, error);
    if (status == SEGFM_OK && c.classes == 0)
        status =
            base_fail(error, SEGFM_BAD_INPUT, "no prompts: need an array boxes or clicks with one element per class");
    if (status == SEGFM_OK) {
        labels = calloc(c.scan.count, sizeof *labels);
        mask = malloc(c.scan.count);
        if (labels == NULL || mask == NULL)
            status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu labels", c.scan.count);
    }
    if (status == SEGFM_OK) status = segfm_session_new(model, c.scan.shape, &options, NULL, 0, &session, error);
    if (status == SEGFM_OK) status = segment_case(session, &c, labels, mask, error);
    if (status != SEGFM_OK) base_fail_where(error, status, in);
    if (status == SEGFM_OK) {
        status = tool_challenge_write(out, &c.scan, labels, c.classes, error);
        if (status != SEGFM_OK) base_fail_where(error, status, out);
    }
    segfm_session_free(session);
    free(mask);
    free(labels);
    tool_challenge_close(&c);
    return status;
}

/* A case that fails is reported and the others go on; the first failure is the command's result. */
static segfm_status predict_all(const segfm_model *model, const tool_common *common, const char *in_dir,
                                const char *out_dir, const tool_names *names, segfm_error *error) {
    segfm_status result = SEGFM_OK;
    for (size_t i = 0; i < names->count; i++) {
        char in[4096], out[4096];
        segfm_error problem = {0};
        segfm_status status = tool_path(in, sizeof in, in_dir, names->items[i], &problem);
        if (status == SEGFM_OK) status = tool_path(out, sizeof out, out_dir, names->items[i], &problem);
        if (status == SEGFM_OK) status = predict_case(model, common, in, out, &problem);
        if (status == SEGFM_OK) continue;
        if (result != SEGFM_OK)
            fprintf(stderr, "segfm: %s%s%s\n", problem.where, problem.where[0] != '\0' ? ": " : "", problem.message);
        else {
            result = status;
            *error = problem;
        }
    }
    return result;
}

segfm_status command_predict(int argc, char **argv, segfm_error *error) {
    const char *folders[2], *weights = NULL;
    tool_common common;
    const tool_option options[] = {{"-w", .value = &weights}, {0}};
    segfm_status status = tool_parse(argc, argv, options, folders, 2, &common, error);
    if (status != SEGFM_OK) return status;
    tool_names names = {0};
    tool_model model = {0};
    status = tool_list_folder(folders[0], ".npz", &names, error);
    if (status == SEGFM_OK && names.count == 0) {
        status = base_fail(error, SEGFM_BAD_INPUT, "holds no .npz file");
        base_fail_where(error, status, folders[0]);
    }
    if (status == SEGFM_OK) status = tool_keep_input(folders[0], folders[1], error);
    if (status == SEGFM_OK) status = tool_make_folder(folders[1], error);
    if (status == SEGFM_OK) status = tool_model_open(weights, &common, true, &model, error);
    if (status == SEGFM_OK) status = predict_all(model.model, &common, folders[0], folders[1], &names, error);
    tool_model_close(&model);
    tool_names_free(&names);
    return status;
}
