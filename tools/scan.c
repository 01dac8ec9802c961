#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

bool tool_npz_has(const io_zip *zip, const char *name) {
    char member[64];
    base_format(member, sizeof member, "%s.npy", name);
    return io_zip_find(zip, member) != NULL;
}

segfm_status tool_npz_bytes(const io_zip *zip, const char *name, io_buffer *bytes, segfm_error *error) {
    char member[128];
    base_format(member, sizeof member, "%s.npy", name);
    const io_zip_entry *e = io_zip_find(zip, member);
    if (e == NULL) return base_fail(error, SEGFM_BAD_INPUT, "array %s is missing", name);
    return io_zip_read(zip, e, bytes, error);
}

segfm_status tool_npz_array(const io_zip *zip, const char *name, io_buffer *bytes, io_array *array,
                            segfm_error *error) {
    segfm_status status = tool_npz_bytes(zip, name, bytes, error);
    if (status != SEGFM_OK) return status;
    status = io_npy_parse(bytes->data, bytes->size, array, error);
    return status == SEGFM_OK || error == NULL ? status
                                               : base_fail(error, status, "array %s: %s", name, error->message);
}

static segfm_status take_voxels(tool_scan *s, segfm_error *error) {
    size_t dims[3], bytes;
    for (int axis = 0; axis < 3; axis++) dims[axis] = (size_t)s->shape[axis];
    if (!base_count(dims, 3, sizeof(float), &bytes) || (s->voxels = malloc(bytes)) == NULL)
        return base_fail(error, SEGFM_NO_MEMORY, "memory: got none for %lld x %lld x %lld voxels",
                         (long long)s->shape[2], (long long)s->shape[1], (long long)s->shape[0]);
    s->count = bytes / sizeof(float);
    return SEGFM_OK;
}

segfm_status tool_npz_spacing(const io_zip *zip, double spacing[3], segfm_error *error) {
    io_buffer bytes = {0};
    io_array array;
    for (int i = 0; i < 3; i++) spacing[i] = 1;
    if (io_zip_find(zip, "spacing.npy") == NULL) return SEGFM_OK;
    segfm_status status = tool_npz_array(zip, "spacing", &bytes, &array, error);
    if (status == SEGFM_OK && (array.count != 3 || array.dtype == IO_OBJECT))
        status = base_fail(error, SEGFM_BAD_INPUT, "array spacing: got %zu elements, need 3 numbers", array.count);
    if (status == SEGFM_OK) io_array_to_f64(&array, spacing);
    for (int i = 0; status == SEGFM_OK && i < 3; i++)
        if (!(spacing[i] > 0 && spacing[i] < 1e6))
            status = base_fail(error, SEGFM_BAD_INPUT, "array spacing: element %d is not a positive length", i);
    io_buffer_free(&bytes);
    return status;
}

static segfm_status scan_from_npz(const io_zip *zip, tool_scan *s, segfm_error *error) {
    io_buffer bytes = {0};
    io_array imgs;
    double spacing[3];
    segfm_status status = tool_npz_array(zip, "imgs", &bytes, &imgs, error);
    if (status == SEGFM_OK && (imgs.ndim != 3 || imgs.count == 0 || imgs.dtype == IO_OBJECT))
        status = base_fail(error, SEGFM_BAD_INPUT, "array imgs: got %d axes and %zu elements, need 3 axes of numbers",
                           imgs.ndim, imgs.count);
    if (status == SEGFM_OK) status = tool_npz_spacing(zip, spacing, error);
    if (status == SEGFM_OK) {
        for (int axis = 0; axis < 3; axis++) s->shape[axis] = (int64_t)imgs.shape[axis];
        io_nifti_init(&s->image, s->shape[2], s->shape[1], s->shape[0], spacing);
        status = take_voxels(s, error);
    }
    if (status == SEGFM_OK) io_array_to_f32(&imgs, s->voxels);
    io_buffer_free(&bytes);
    return status;
}

static segfm_status scan_from_nifti(const char *path, const char *volume, tool_scan *s, segfm_error *error) {
    int64_t index = 0;
    segfm_status status = io_nifti_read(path, &s->image, error);
    if (status != SEGFM_OK) return status;
    if (volume != NULL) status = tool_integer(volume, "--volume", 0, s->image.volumes - 1, &index, error);
    else if (s->image.volumes > 1)
        status = base_fail(error, SEGFM_BAD_USAGE, "a 4-D scan of %lld volumes: give --volume 0 to %lld",
                           (long long)s->image.volumes, (long long)s->image.volumes - 1);
    if (status != SEGFM_OK) return status;
    s->shape[0] = s->image.nz, s->shape[1] = s->image.ny, s->shape[2] = s->image.nx;
    status = take_voxels(s, error);
    if (status == SEGFM_OK) status = io_nifti_voxels(&s->image, index, s->voxels, error);
    io_buffer_free(&s->image.data); /* the floats are enough from here on */
    return status;
}

segfm_status tool_scan_open(const char *path, const char *volume, tool_scan *out, segfm_error *error) {
    *out = (tool_scan){0};
    segfm_status status;
    if (tool_ends_with(path, ".npz")) {
        io_mapping file = {0};
        io_zip zip = {0};
        int64_t only = 0;
        status = volume == NULL ? SEGFM_OK : tool_integer(volume, "--volume", 0, 0, &only, error);
        if (status == SEGFM_OK) status = io_map_file(path, &file, error);
        if (status == SEGFM_OK) status = io_zip_open(file.data, file.size, &zip, error);
        if (status == SEGFM_OK) status = scan_from_npz(&zip, out, error);
        io_zip_close(&zip);
        io_unmap_file(&file);
    } else {
        status = scan_from_nifti(path, volume, out, error);
    }
    if (status != SEGFM_OK) {
        base_fail_where(error, status, path);
        tool_scan_close(out);
    }
    return status;
}

void tool_scan_release(tool_scan *s) {
    free(s->voxels);
    s->voxels = NULL;
}

void tool_scan_close(tool_scan *s) {
    io_nifti_free(&s->image);
    tool_scan_release(s);
    *s = (tool_scan){0};
}

/* ---- prompts ------------------------------------------------------------------------------------------------- */

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

segfm_status tool_read_box(const char *text, const char *what, bool world, const io_nifti *image, int64_t box[6],
                           segfm_error *error) {
    int64_t v[6];
    segfm_status status = read_voxels(text, what, 6, world, image, v, error);
    if (status != SEGFM_OK) return status;
    for (int axis = 0; axis < 3; axis++) { /* corners in millimetres come in any order: an axis may be flipped */
        bool swap = world && v[axis] > v[3 + axis];
        box[2 - axis] = swap ? v[3 + axis] : v[axis];
        box[5 - axis] = swap ? v[axis] : v[3 + axis];
    }
    return SEGFM_OK;
}

segfm_status tool_read_click(const char *text, const char *what, bool world, const io_nifti *image, int64_t voxel[3],
                             bool *foreground, segfm_error *error) {
    char numbers[128];
    size_t n = strlen(text);
    int64_t v[3];
    if (n < 3 || n >= sizeof numbers || text[n - 2] != ',' || (text[n - 1] != '+' && text[n - 1] != '-'))
        return base_fail(error, SEGFM_BAD_USAGE, "%s: got %s, need x,y,z,+ or x,y,z,-", what, text);
    memcpy(numbers, text, n - 2);
    numbers[n - 2] = '\0';
    *foreground = text[n - 1] == '+';
    segfm_status status = read_voxels(numbers, what, 3, world, image, v, error);
    for (int axis = 0; axis < 3 && status == SEGFM_OK; axis++) voxel[axis] = v[2 - axis];
    return status;
}
