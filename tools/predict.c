#include <stdlib.h>
#include <string.h>

#include "tools.h"

/* One case of the challenge: the scan and, per class, a box and/or clicks. */
typedef struct challenge {
    io_mapping file;
    io_zip zip;
    tool_scan scan;
    io_buffer box_bytes, click_bytes;
    io_pickle boxes, clicks; /* nodes NULL: the case has none */
    uint32_t classes;
} challenge;

static void challenge_close(challenge *c) {
    io_pickle_free(&c->boxes);
    io_pickle_free(&c->clicks);
    io_buffer_free(&c->box_bytes);
    io_buffer_free(&c->click_bytes);
    tool_scan_close(&c->scan);
    io_zip_close(&c->zip);
    io_unmap_file(&c->file);
}

/* An object array with one element per class; absent or without elements: *out stays empty. */
static segfm_status read_objects(const io_zip *zip, const char *name, io_buffer *bytes, io_pickle *out,
                                 uint32_t *classes, segfm_error *error) {
    char member[64];
    io_array array;
    base_format(member, sizeof member, "%s.npy", name);
    if (io_zip_find(zip, member) == NULL) return SEGFM_OK;
    segfm_status status = tool_npz_array(zip, name, bytes, &array, error);
    if (status != SEGFM_OK) return status;
    if (array.dtype != IO_OBJECT) /* an empty list is saved as an array of no numbers */
        return array.count == 0 ? SEGFM_OK
                                : base_fail(error, SEGFM_BAD_INPUT, "array %s: got %s, need objects", name,
                                            io_dtype_name(array.dtype));
    status = io_pickle_parse(array.data, array.bytes, out, error);
    if (status != SEGFM_OK) return status;
    const io_pickle_node *root = &out->nodes[out->root];
    if (root->kind != IO_PICKLE_LIST && (root->kind != IO_PICKLE_ARRAY || root->array.dtype != IO_OBJECT))
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: its pickle holds no array of objects", name);
    if (root->count == 0) {
        io_pickle_free(out);
        *out = (io_pickle){0};
        return SEGFM_OK;
    }
    if (*classes != 0 && root->count != *classes)
        return base_fail(error, SEGFM_BAD_INPUT, "arrays boxes and clicks: got %d and %d classes, need the same number",
                         (int)*classes, (int)root->count);
    *classes = root->count;
    return SEGFM_OK;
}

static segfm_status challenge_open(const char *path, challenge *c, segfm_error *error) {
    segfm_status status = tool_scan_open(path, NULL, &c->scan, error);
    if (status == SEGFM_OK) status = io_map_file(path, &c->file, error);
    if (status == SEGFM_OK) status = io_zip_open(c->file.data, c->file.size, &c->zip, error);
    if (status == SEGFM_OK) status = read_objects(&c->zip, "boxes", &c->box_bytes, &c->boxes, &c->classes, error);
    if (status == SEGFM_OK) status = read_objects(&c->zip, "clicks", &c->click_bytes, &c->clicks, &c->classes, error);
    if (status == SEGFM_OK && c->classes == 0)
        status =
            base_fail(error, SEGFM_BAD_INPUT, "no prompts: need an array boxes or clicks with one element per class");
    return status;
}

/* What the library says of a prompt of class i, with the class put before it; a prompt outside of the scan is the file's
   fault here. */
static segfm_status name_class(segfm_status status, const char *what, uint32_t i, segfm_error *error) {
    if (status != SEGFM_BAD_USAGE) return status;
    segfm_error said = *error;
    return base_fail(error, SEGFM_BAD_INPUT, "%s, class %d: %s", what, (int)i + 1, said.message);
}

/* The class's element of an object array; NULL when there is none, or None. */
static const io_pickle_node *entry_of(const io_pickle *p, uint32_t i) {
    const io_pickle_node *entry = p->nodes == NULL ? NULL : io_pickle_child(p, &p->nodes[p->root], i);
    return entry == NULL || entry->kind == IO_PICKLE_NONE ? NULL : entry;
}

/* An element of boxes → {z0,y0,x0,z1,y1,x1}: the rectangle on the middle slice, extruded from z_min to z_max. */
static segfm_status box_of(const challenge *c, uint32_t i, const io_pickle_node *entry, int64_t box[6],
                           segfm_error *error) {
    static const char *const keys[6] = {"z_min", "z_mid_y_min", "z_mid_x_min", "z_max", "z_mid_y_max", "z_mid_x_max"};
    for (int k = 0; k < 6; k++) {
        const io_pickle_node *value = io_pickle_get(&c->boxes, entry, keys[k]);
        if (value == NULL || !io_pickle_int(value, &box[k]))
            return base_fail(error, SEGFM_BAD_INPUT, "boxes, class %d: %s is missing or not a whole number", (int)i + 1,
                             keys[k]);
    }
    return SEGFM_OK;
}

/* The [z,y,x] of one click: a list or a numeric array of three. */
static bool click_voxel(const io_pickle *p, const io_pickle_node *node, int64_t voxel[3]) {
    if (node->kind == IO_PICKLE_ARRAY && node->array.dtype != IO_OBJECT)
        return node->array.count == 3 && io_array_to_i64(&node->array, voxel, NULL) == SEGFM_OK;
    if (node->kind != IO_PICKLE_LIST || node->count != 3) return false;
    for (uint32_t k = 0; k < 3; k++)
        if (!io_pickle_int(io_pickle_child(p, node, k), &voxel[k])) return false;
    return true;
}

/* Applies the clicks of class i with one label ("fg" or "bg"). */
static segfm_status apply_clicks(segfm_session *session, const challenge *c, uint32_t i, const io_pickle_node *entry,
                                 const char *key, segfm_error *error) {
    const io_pickle_node *list = io_pickle_get(&c->clicks, entry, key);
    if (list == NULL || list->kind == IO_PICKLE_NONE) return SEGFM_OK;
    if (list->kind != IO_PICKLE_LIST)
        return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: %s is not a list", (int)i + 1, key);
    for (uint32_t k = 0; k < list->count; k++) {
        int64_t voxel[3];
        if (!click_voxel(&c->clicks, io_pickle_child(&c->clicks, list, k), voxel))
            return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: %s click %d is not [z, y, x]", (int)i + 1, key,
                             (int)k + 1);
        segfm_status status = name_class(segfm_click(session, voxel, key[0] == 'f', error), "clicks", i, error);
        if (status != SEGFM_OK) return status;
    }
    return SEGFM_OK;
}

/* The mask of class i, left in the session; a class without box and clicks has an empty one. */
static segfm_status segment_class(segfm_session *session, const challenge *c, uint32_t i, segfm_error *error) {
    const io_pickle_node *box_entry = entry_of(&c->boxes, i), *click_entry = entry_of(&c->clicks, i);
    segfm_status status = SEGFM_OK;
    segfm_reset(session);
    if (box_entry != NULL) {
        int64_t box[6];
        status = box_of(c, i, box_entry, box, error);
        if (status == SEGFM_OK) status = name_class(segfm_box(session, box, error), "boxes", i, error);
    }
    if (status != SEGFM_OK || click_entry == NULL) return status;
    if (click_entry->kind != IO_PICKLE_DICT)
        return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: need a dictionary of fg and bg", (int)i + 1);
    status = apply_clicks(session, c, i, click_entry, "fg", error);
    return status == SEGFM_OK ? apply_clicks(session, c, i, click_entry, "bg", error) : status;
}

/* Writes the labels: uint8, or uint16 when there are more than 255 classes. */
static segfm_status write_labels(const char *path, const tool_scan *scan, uint16_t *labels, uint32_t classes,
                                 segfm_error *error) {
    size_t shape[3] = {(size_t)scan->shape[0], (size_t)scan->shape[1], (size_t)scan->shape[2]};
    io_buffer npy = {0};
    io_zip_writer zip = {0};
    if (classes <= 255) /* narrowed in place, front to back */
        for (size_t i = 0; i < scan->count; i++) ((uint8_t *)labels)[i] = (uint8_t)labels[i];
    segfm_status status = io_npy_write(&npy, classes <= 255 ? IO_U8 : IO_U16, 3, shape, labels, error);
    if (status == SEGFM_OK) status = io_zip_add(&zip, "segs.npy", npy.data, npy.size, error);
    if (status == SEGFM_OK) status = io_zip_finish(&zip, error);
    if (status == SEGFM_OK) status = io_write_file(path, zip.archive.data, zip.archive.size, error);
    io_zip_writer_free(&zip);
    io_buffer_free(&npy);
    return status;
}

/* Every class in turn; later classes overwrite earlier ones. */
static segfm_status segment_case(segfm_session *session, const challenge *c, uint16_t *labels, uint8_t *mask,
                                 segfm_error *error) {
    segfm_status status = segfm_set_volume(session, c->scan.voxels, error);
    for (uint32_t i = 0; status == SEGFM_OK && i < c->classes; i++) {
        status = segment_class(session, c, i, error);
        if (status == SEGFM_OK) status = segfm_mask(session, mask, c->scan.count, error);
        for (size_t v = 0; status == SEGFM_OK && v < c->scan.count; v++)
            if (mask[v] != 0) labels[v] = (uint16_t)(i + 1);
    }
    return status;
}

static segfm_status predict_case(const segfm_model *model, const tool_common *common, const char *in, const char *out,
                                 segfm_error *error) {
    challenge c = {0};
    segfm_session *session = NULL;
    uint16_t *labels = NULL;
    uint8_t *mask = NULL;
    segfm_options options = segfm_options_default();
    options.threads = common->threads;
    options.max_clicks = 1024;
    segfm_status status = challenge_open(in, &c, error);
    if (status == SEGFM_OK && c.classes > UINT16_MAX)
        status = base_fail(error, SEGFM_BAD_INPUT, "got %d classes, at most %d fit", (int)c.classes, UINT16_MAX);
    if (status == SEGFM_OK) {
        labels = calloc(c.scan.count, sizeof *labels);
        mask = malloc(c.scan.count);
        if (labels == NULL || mask == NULL)
            status = base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %zu labels", c.scan.count);
    }
    if (status == SEGFM_OK) status = segfm_session_new(model, c.scan.shape, &options, NULL, 0, &session, error);
    if (status == SEGFM_OK) status = segment_case(session, &c, labels, mask, error);
    if (status != SEGFM_OK) base_fail_where(error, status, in);
    if (status == SEGFM_OK) status = write_labels(out, &c.scan, labels, c.classes, error);
    segfm_session_free(session);
    free(mask);
    free(labels);
    challenge_close(&c);
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
    if (status == SEGFM_OK) status = tool_model_open(weights, &common, &model, error);
    if (status == SEGFM_OK) status = predict_all(model.model, &common, folders[0], folders[1], &names, error);
    tool_model_close(&model);
    tool_names_free(&names);
    return status;
}
