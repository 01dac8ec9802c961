/* Cases of the challenge: .npz files with a scan and, per class, a box and/or clicks. */
#include <stdlib.h>
#include <string.h>

#include "tools.h"

void tool_challenge_close(tool_challenge *c) {
    io_pickle_free(&c->boxes);
    io_pickle_free(&c->clicks);
    io_pickle_free(&c->order);
    io_buffer_free(&c->box_bytes);
    io_buffer_free(&c->click_bytes);
    io_buffer_free(&c->order_bytes);
    io_buffer_free(&c->previous_bytes);
    tool_scan_close(&c->scan);
    io_zip_close(&c->zip);
    io_unmap_file(&c->file);
}

/* All arrays tell of the same classes. */
static segfm_status agree(const char *name, size_t classes, uint32_t *all, segfm_error *error) {
    if (classes > UINT16_MAX)
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: got %zu classes, at most %d fit", name, classes,
                         UINT16_MAX);
    if (*all != 0 && classes != *all)
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: got %zu classes, the array before it has %d", name, classes,
                         (int)*all);
    *all = (uint32_t)classes;
    return SEGFM_OK;
}

/* An object array with one element, or with `table` perhaps a row, per class; absent or without elements: *out stays empty. */
static segfm_status read_objects(const io_zip *zip, const char *name, bool table, io_buffer *bytes, io_pickle *out,
                                 uint32_t *classes, segfm_error *error) {
    io_array array;
    if (!tool_npz_has(zip, name)) return SEGFM_OK;
    segfm_status status = tool_npz_array(zip, name, bytes, &array, error);
    if (status != SEGFM_OK) return status;
    if (array.dtype != IO_OBJECT) /* an empty list is saved as an array of no numbers */
        return array.count == 0 ? SEGFM_OK
                                : base_fail(error, SEGFM_BAD_INPUT, "array %s: got %s, need objects", name,
                                            io_dtype_name(array.dtype));
    status = io_pickle_parse(array.data, array.bytes, out, error);
    if (status != SEGFM_OK) return base_fail(error, status, "array %s: %s", name, error->message);
    const io_pickle_node *root = &out->nodes[out->root];
    if (root->kind != IO_PICKLE_LIST && (root->kind != IO_PICKLE_ARRAY || root->array.dtype != IO_OBJECT))
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: its pickle holds no array of objects", name);
    if (root->count == 0) {
        io_pickle_free(out);
        *out = (io_pickle){0};
        return SEGFM_OK;
    }
    bool is_table = root->kind == IO_PICKLE_ARRAY && root->array.ndim == 2;
    if (root->kind == IO_PICKLE_ARRAY && root->array.ndim != 1 && !(table && is_table))
        return base_fail(error, SEGFM_BAD_INPUT, "array %s: got %d axes, need 1", name, root->array.ndim);
    return agree(name, is_table ? root->array.shape[0] : root->count, classes, error);
}

/* clicks_order: what numpy makes of a list of lists. Lists of equal length, as they are after each step, become a table: of
   strings, or of objects when there is a None among them; others an array of lists. */
static segfm_status read_order(tool_challenge *c, segfm_error *error) {
    static const char name[] = "clicks_order";
    io_array *texts = &c->order_texts;
    if (!tool_npz_has(&c->zip, name)) return SEGFM_OK;
    segfm_status status = tool_npz_bytes(&c->zip, name, &c->order_bytes, error);
    if (status != SEGFM_OK) return status;
    status = io_npy_parse_texts(c->order_bytes.data, c->order_bytes.size, texts, error);
    if (status != SEGFM_OK) return base_fail(error, status, "array %s: %s", name, error->message);
    if (texts->dtype == IO_TEXT && texts->count > 0 && (texts->ndim == 1 || texts->ndim == 2))
        return agree(name, texts->shape[0], &c->classes, error);
    *texts = (io_array){0};
    io_buffer_free(&c->order_bytes);
    return read_objects(&c->zip, name, true, &c->order_bytes, &c->order, &c->classes, error);
}

/* prev_pred: a label map of the scan's shape, or none. */
static segfm_status read_previous(tool_challenge *c, segfm_error *error) {
    if (io_zip_find(&c->zip, "prev_pred.npy") == NULL) return SEGFM_OK;
    io_array *a = &c->previous;
    segfm_status status = tool_npz_array(&c->zip, "prev_pred", &c->previous_bytes, a, error);
    if (status != SEGFM_OK) return status;
    bool fits = a->dtype != IO_OBJECT && a->ndim == 3;
    for (int axis = 0; fits && axis < 3; axis++) fits = a->shape[axis] == (size_t)c->scan.shape[axis];
    c->has_previous = fits;
    return fits ? SEGFM_OK
                : base_fail(error, SEGFM_BAD_INPUT, "array prev_pred: need numbers in the shape of the scan");
}

segfm_status tool_challenge_open(const char *path, tool_challenge *c, segfm_error *error) {
    *c = (tool_challenge){0};
    segfm_status status = tool_scan_open(path, NULL, &c->scan, error);
    if (status == SEGFM_OK) status = io_map_file(path, &c->file, error);
    if (status == SEGFM_OK) status = io_zip_open(c->file.data, c->file.size, &c->zip, error);
    if (status == SEGFM_OK)
        status = read_objects(&c->zip, "boxes", false, &c->box_bytes, &c->boxes, &c->classes, error);
    if (status == SEGFM_OK)
        status = read_objects(&c->zip, "clicks", false, &c->click_bytes, &c->clicks, &c->classes, error);
    if (status == SEGFM_OK) status = read_order(c, error);
    return status == SEGFM_OK ? read_previous(c, error) : status;
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
static segfm_status box_of(const tool_challenge *c, uint32_t i, const io_pickle_node *entry, int64_t box[6],
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

/* The clicks of one class with one label. */
typedef struct click_list {
    const io_pickle_node *list; /* or NULL */
    uint32_t next;
    bool foreground;
} click_list;

static segfm_status list_of(const tool_challenge *c, uint32_t i, const io_pickle_node *entry, bool foreground,
                            click_list *out, segfm_error *error) {
    const char *key = foreground ? "fg" : "bg";
    *out = (click_list){io_pickle_get(&c->clicks, entry, key), 0, foreground};
    if (out->list != NULL && out->list->kind == IO_PICKLE_NONE) out->list = NULL;
    if (out->list != NULL && out->list->kind != IO_PICKLE_LIST)
        return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: %s is not a list", (int)i + 1, key);
    return SEGFM_OK;
}

/* Clicks `most` times from the list, or as often as it still has something. */
static segfm_status click_from(segfm_session *session, const tool_challenge *c, uint32_t i, click_list *from,
                               uint32_t most, segfm_error *error) {
    for (; from->list != NULL && most > 0 && from->next < from->list->count; from->next++, most--) {
        int64_t voxel[3];
        if (!click_voxel(&c->clicks, io_pickle_child(&c->clicks, from->list, from->next), voxel))
            return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: %s click %d is not [z, y, x]", (int)i + 1,
                             from->foreground ? "fg" : "bg", (int)from->next + 1);
        segfm_status status = name_class(segfm_click(session, voxel, from->foreground, error), "clicks", i, error);
        if (status != SEGFM_OK) return status;
    }
    return SEGFM_OK;
}

/* What clicks_order says of one class, step by step. */
typedef struct click_order {
    const tool_challenge *c;
    const io_pickle_node *list; /* a list, or a table; NULL: texts */
    size_t first, step, count;
    bool newest; /* one element: the kind of the newest click alone */
} click_order;

static click_order order_of(const tool_challenge *c, uint32_t i) {
    click_order o = {.c = c, .step = 1};
    if (c->order_texts.count > 0) {
        const io_array *a = &c->order_texts;
        o.newest = a->ndim == 1;
        o.count = o.newest ? 1 : a->shape[1];
        o.step = a->fortran ? a->shape[0] : 1;
        o.first = a->fortran ? i : i * o.count;
    } else if (c->order.nodes != NULL) {
        const io_pickle_node *root = &c->order.nodes[c->order.root], *entry = io_pickle_child(&c->order, root, i);
        bool table = root->kind == IO_PICKLE_ARRAY && root->array.ndim == 2;
        o.newest = !table && entry->kind != IO_PICKLE_LIST;
        o.list = table || o.newest ? root : entry;
        o.count = table ? root->array.shape[1] : o.newest ? 1 : entry->count;
        o.first = table ? i * o.count : o.newest ? i : 0;
    }
    return o;
}

typedef enum click_kind { CLICK_FG, CLICK_BG, CLICK_NONE, CLICK_UNKNOWN } click_kind;

static bool is_text(const io_pickle_node *node, const char *text) {
    return node->kind == IO_PICKLE_STRING && node->length == strlen(text) &&
           memcmp(node->string, text, node->length) == 0;
}

static click_kind kind_at(const click_order *o, size_t k) {
    size_t at = o->first + k * o->step;
    if (o->list == NULL) {
        const io_array *a = &o->c->order_texts;
        if (io_array_is_text(a, at, "fg")) return CLICK_FG;
        if (io_array_is_text(a, at, "bg")) return CLICK_BG;
        return io_array_is_text(a, at, "") ? CLICK_NONE : CLICK_UNKNOWN;
    }
    const io_pickle_node *kind = io_pickle_child(&o->c->order, o->list, (uint32_t)at);
    if (is_text(kind, "fg")) return CLICK_FG;
    if (is_text(kind, "bg")) return CLICK_BG;
    return kind->kind == IO_PICKLE_NONE ? CLICK_NONE : CLICK_UNKNOWN;
}

/* The clicks of class i in the order of clicks_order: fg, bg or None (no click at that step) for each, or the newest one's
   kind alone. What it does not tell of comes first fg, then bg. */
static segfm_status click_in_order(segfm_session *session, const tool_challenge *c, uint32_t i, click_list *fg,
                                   click_list *bg, segfm_error *error) {
    click_order order = order_of(c, i);
    segfm_status status = SEGFM_OK;
    for (size_t k = 0; status == SEGFM_OK && k < order.count; k++) {
        click_kind kind = kind_at(&order, k);
        if (kind == CLICK_UNKNOWN)
            status = base_fail(error, SEGFM_BAD_INPUT, "clicks_order, class %d: element %zu is not fg, bg or None",
                               (int)i + 1, k + 1);
        else if (order.newest && kind == CLICK_FG) status = click_from(session, c, i, bg, UINT32_MAX, error);
        else if (!order.newest && kind != CLICK_NONE)
            status = click_from(session, c, i, kind == CLICK_FG ? fg : bg, 1, error);
    }
    if (status == SEGFM_OK) status = click_from(session, c, i, fg, UINT32_MAX, error);
    return status == SEGFM_OK ? click_from(session, c, i, bg, UINT32_MAX, error) : status;
}

segfm_status tool_challenge_box(const tool_challenge *c, uint32_t i, bool *has, int64_t box[6], segfm_error *error) {
    const io_pickle_node *entry = entry_of(&c->boxes, i);
    *has = entry != NULL;
    return *has ? box_of(c, i, entry, box, error) : SEGFM_OK;
}

segfm_status tool_challenge_prompt(const tool_challenge *c, uint32_t i, segfm_session *session, bool *prompted,
                                   segfm_error *error) {
    const io_pickle_node *click_entry = entry_of(&c->clicks, i);
    bool has_box;
    int64_t box[6];
    segfm_report report;
    segfm_status status = tool_challenge_box(c, i, &has_box, box, error);
    if (status == SEGFM_OK && has_box) status = name_class(segfm_box(session, box, error), "boxes", i, error);
    if (status == SEGFM_OK && click_entry != NULL) {
        click_list fg, bg;
        if (click_entry->kind != IO_PICKLE_DICT)
            return base_fail(error, SEGFM_BAD_INPUT, "clicks, class %d: need a dictionary of fg and bg", (int)i + 1);
        status = list_of(c, i, click_entry, true, &fg, error);
        if (status == SEGFM_OK) status = list_of(c, i, click_entry, false, &bg, error);
        if (status == SEGFM_OK) status = click_in_order(session, c, i, &fg, &bg, error);
    }
    segfm_last_report(session, &report);
    *prompted = report.has_box || report.clicks > 0;
    return status;
}

segfm_status tool_challenge_write(const char *path, const tool_scan *scan, uint16_t *labels, unsigned largest,
                                  segfm_error *error) {
    size_t shape[3] = {(size_t)scan->shape[0], (size_t)scan->shape[1], (size_t)scan->shape[2]};
    io_buffer npy = {0};
    io_zip_writer zip = {0};
    io_dtype dtype = tool_labels_pack(labels, scan->count, largest);
    segfm_status status = io_npy_write(&npy, dtype, 3, shape, labels, error);
    if (status == SEGFM_OK) status = io_zip_add(&zip, "segs.npy", npy.data, npy.size, error);
    if (status == SEGFM_OK) status = io_zip_finish(&zip, error);
    if (status == SEGFM_OK) status = io_write_file(path, zip.archive.data, zip.archive.size, error);
    io_zip_writer_free(&zip);
    io_buffer_free(&npy);
    return status;
}
