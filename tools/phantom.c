#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../train/train.h"
#include "tools.h"

typedef struct settings {
    tool_common common;
    const char *folder, *count, *seed, *first, *size;
    int64_t phantoms, seed_number, first_number;
    train_phantom_options options;
} settings;

enum { MOST = 1000000 };

static segfm_status read_settings(settings *o, segfm_error *error) {
    int64_t size[3];
    segfm_status status = tool_need(o->folder, "--out", error);
    if (status == SEGFM_OK) status = tool_need(o->count, "--count", error);
    if (status == SEGFM_OK) status = tool_integer(o->count, "--count", 1, MOST, &o->phantoms, error);
    if (status == SEGFM_OK && o->seed != NULL)
        status = tool_integer(o->seed, "--seed", 0, INT64_MAX, &o->seed_number, error);
    if (status == SEGFM_OK && o->first != NULL)
        status = tool_integer(o->first, "--first", 0, INT64_MAX - MOST, &o->first_number, error);
    if (status != SEGFM_OK || o->size == NULL) return status;
    status = tool_integers(o->size, "--size", 3, TRAIN_PHANTOM_SMALLEST, TRAIN_PHANTOM_LARGEST, size, error);
    for (int k = 0; status == SEGFM_OK && k < 3; k++)
        o->options.smallest[k] = o->options.largest[k] = size[2 - k]; /* x,y,z → z,y,x */
    return status;
}

/* Whole numbers that fit are written as such: in place, over the floats. Returns their type. */
static io_dtype pack(float *voxels, size_t n) {
    bool whole = true;
    float largest = 0;
    for (size_t i = 0; i < n && whole; i++) {
        whole = voxels[i] >= 0 && voxels[i] <= UINT16_MAX && floorf(voxels[i]) == voxels[i];
        if (voxels[i] > largest) largest = voxels[i];
    }
    if (!whole) return IO_F32;
    unsigned char *out =
        (unsigned char *)voxels; /* bytes may alias anything; no number is larger than the float it replaces */
    size_t bytes = largest <= UINT8_MAX ? 1 : 2;
    for (size_t i = 0; i < n; i++) {
        uint16_t wide = (uint16_t)voxels[i];
        uint8_t narrow = (uint8_t)wide;
        memcpy(out + i * bytes, bytes == 1 ? (void *)&narrow : (void *)&wide, bytes);
    }
    return bytes == 1 ? IO_U8 : IO_U16;
}

static segfm_status write_pair(const settings *o, const char *name, train_scan *scan, io_buffer *list,
                               segfm_error *error) {
    char image[64], label[64], path[4096], line[160];
    io_nifti header;
    size_t n = vol_count(scan->shape);
    io_nifti_init(&header, scan->shape.n[2], scan->shape.n[1], scan->shape.n[0],
                  (const double[]){scan->spacing[2], scan->spacing[1], scan->spacing[0]});
    base_format(image, sizeof image, "%s.nii.gz", name);
    base_format(label, sizeof label, "%s_label.nii.gz", name);
    segfm_status status = tool_path(path, sizeof path, o->folder, image, error);
    io_dtype dtype = pack(scan->voxels, n);
    if (status == SEGFM_OK) status = io_nifti_write_like(path, &header, dtype, scan->voxels, error);
    if (status == SEGFM_OK) status = tool_path(path, sizeof path, o->folder, label, error);
    dtype = tool_labels_pack(scan->labels, n, scan->classes);
    if (status == SEGFM_OK) status = io_nifti_write_like(path, &header, dtype, scan->labels, error);
    io_nifti_free(&header);
    base_format(line, sizeof line, "%s\t%s\n", image, label);
    return status == SEGFM_OK ? io_buffer_append(list, line, strlen(line), error) : status;
}

static void show(const settings *o, int64_t done) {
    if (o->common.quiet || !isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r%lld of %lld phantoms%s", (long long)done, (long long)o->phantoms,
            done == o->phantoms ? "\r\033[K" : "");
}

/* The list is written last: where there is one, what it lists is there. */
static segfm_status write_all(const settings *o, io_buffer *list, segfm_error *error) {
    char path[4096];
    segfm_status status = tool_make_folder(o->folder, error);
    for (int64_t i = 0; status == SEGFM_OK && i < o->phantoms; i++) {
        char name[48];
        train_scan scan = {0};
        uint64_t number = (uint64_t)(o->first_number + i);
        show(o, i);
        snprintf(name, sizeof name, "phantom-%04llu", (unsigned long long)number);
        status =
            train_phantom((uint64_t)o->seed_number, number, &o->options, nn_threads(o->common.threads), &scan, error);
        if (status == SEGFM_OK) status = write_pair(o, name, &scan, list, error);
        train_scan_free(&scan);
    }
    show(o, o->phantoms);
    if (status == SEGFM_OK) status = tool_path(path, sizeof path, o->folder, "list.tsv", error);
    return status == SEGFM_OK ? io_write_file(path, list->data, list->size, error) : status;
}

segfm_status command_phantom(int argc, char **argv, segfm_error *error) {
    settings o = {0};
    const tool_option options[] = {{"--out", .value = &o.folder}, {"--count", .value = &o.count},
                                   {"--seed", .value = &o.seed},  {"--first", .value = &o.first},
                                   {"--size", .value = &o.size},  {0}};
    segfm_status status = tool_parse(argc, argv, options, NULL, 0, &o.common, error);
    if (status == SEGFM_OK) status = read_settings(&o, error);
    if (status != SEGFM_OK) return status;
    io_buffer list = {0};
    status = write_all(&o, &list, error);
    io_buffer_free(&list);
    return status;
}
