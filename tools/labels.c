/* Label maps: NIfTI images of whole numbers, arrays of challenge files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

static segfm_status take_voxels(tool_labels *l, segfm_error *error) {
    size_t dims[3] = {(size_t)l->shape.n[0], (size_t)l->shape.n[1], (size_t)l->shape.n[2]}, bytes;
    if (!base_count(dims, 3, sizeof *l->voxels, &bytes) || (l->voxels = malloc(bytes)) == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %lld x %lld x %lld labels",
                         (long long)l->shape.n[2], (long long)l->shape.n[1], (long long)l->shape.n[0]);
    l->count = bytes / sizeof *l->voxels;
    return SEGFM_OK;
}

static segfm_status labels_from_nifti(const char *path, tool_labels *l, segfm_error *error) {
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

static segfm_status npz_labels(const io_array *array, const char *name, tool_labels *l, segfm_error *error) {
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

static segfm_status labels_from_npz(const char *path, const char *name, const char *other, tool_labels *l,
                                    segfm_error *error) {
    io_mapping file = {0};
    io_zip zip = {0};
    io_buffer bytes = {0};
    io_array array;
    double spacing[3]; /* x,y,z */
    segfm_status status = io_map_file(path, &file, error);
    if (status == SEGFM_OK) status = io_zip_open(file.data, file.size, &zip, error);
    if (status == SEGFM_OK && other != NULL && !tool_npz_has(&zip, name) && tool_npz_has(&zip, other)) name = other;
    if (status == SEGFM_OK) status = tool_npz_array(&zip, name, &bytes, &array, error);
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

segfm_status tool_labels_open(const char *path, const char *name, const char *other, tool_labels *l,
                              segfm_error *error) {
    segfm_status status =
        tool_ends_with(path, ".npz") ? labels_from_npz(path, name, other, l, error) : labels_from_nifti(path, l, error);
    return status == SEGFM_OK ? status : base_fail_where(error, status, path);
}

segfm_status tool_labels_match(tool_labels *truth, vol_shape shape, const double spacing[3], const char *what,
                               segfm_error *error) {
    const int64_t *a = truth->shape.n, *b = shape.n;
    if (memcmp(a, b, sizeof shape.n) != 0)
        return base_fail(error, SEGFM_BAD_INPUT,
                         "shapes: the truth has %lld x %lld x %lld voxels, the %s %lld x %lld x %lld", (long long)a[2],
                         (long long)a[1], (long long)a[0], what, (long long)b[2], (long long)b[1], (long long)b[0]);
    for (int k = 0; k < 3; k++) {
        double s = truth->spacing[k], t = spacing[k];
        if (s > 0 && t > 0 && !(fabs(s - t) <= 1e-3 * s)) {
            char text[2][32];
            snprintf(text[0], sizeof text[0], "%g", s);
            snprintf(text[1], sizeof text[1], "%g", t);
            return base_fail(error, SEGFM_BAD_INPUT,
                             "spacings: along %c the truth has %s mm, the %s %s mm; they are not of one scan", "zyx"[k],
                             text[0], what, text[1]);
        }
        truth->spacing[k] = s > 0 ? s : t > 0 ? t : 1;
        if (!(truth->spacing[k] >= 1e-30 &&
              truth->spacing[k] <= 1e30)) /* products of lengths would leave the doubles */
            return base_fail(error, SEGFM_BAD_INPUT,
                             "spacings: along %c the voxels are of no length from 1e-30 to 1e30 mm", "zyx"[k]);
    }
    return SEGFM_OK;
}

void tool_labels_boxes(const tool_labels *l, vol_box *boxes) {
    const uint16_t *row = l->voxels;
    for (size_t i = 0; i < TOOL_LABELS; i++) boxes[i] = vol_box_none();
    for (int64_t z = 0; z < l->shape.n[0]; z++)
        for (int64_t y = 0; y < l->shape.n[1]; y++, row += l->shape.n[2])
            for (int64_t x = 0, end; x < l->shape.n[2]; x = end) {
                for (end = x + 1; end < l->shape.n[2] && row[end] == row[x];) end++;
                if (row[x] == 0) continue;
                boxes[row[x]] = vol_box_union(boxes[row[x]], (vol_box){{z, y, x}, {z, y, end - 1}});
            }
}

void tool_labels_extract(const tool_labels *l, vol_box box, unsigned label, uint8_t *mask) {
    for (int64_t z = box.lo[0]; z <= box.hi[0]; z++)
        for (int64_t y = box.lo[1]; y <= box.hi[1]; y++) {
            const uint16_t *row = l->voxels + (z * l->shape.n[1] + y) * l->shape.n[2];
            for (int64_t x = box.lo[2]; x <= box.hi[2]; x++) *mask++ = row[x] == label;
        }
}

void tool_labels_close(tool_labels *l) {
    free(l->voxels);
    *l = (tool_labels){0};
}

io_dtype tool_labels_pack(uint16_t *voxels, size_t count, unsigned largest) {
    if (largest > UINT8_MAX) return IO_U16;
    for (size_t i = 0; i < count; i++) ((uint8_t *)voxels)[i] = (uint8_t)voxels[i]; /* front to back, in place */
    return IO_U8;
}
