/* What tools/reference/verify_nifti.py drives to compare io/nifti.c with nibabel.

     nifti_roundtrip IN OUT DTYPE        volume 0 of IN, written to OUT like IN; DTYPE: float32, uint8 or uint16
     nifti_roundtrip --dump IN OUT.raw   every volume of IN as native float32; geometry and scaling to stdout

   Exit code: that of the error, which goes to stderr. */
#include "../io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const segfm_error *e) {
    fprintf(stderr, "%s: %s\n", e->where, e->message);
    return (int)e->status;
}

static size_t volume_voxels(const io_nifti *image) { return (size_t)image->nx * (size_t)image->ny * (size_t)image->nz; }

/* Floats that are whole numbers of the type, in place of them. */
static void *convert(const float *voxels, size_t n, io_dtype dtype) {
    uint8_t *u8 = malloc(n * 2);
    uint16_t *u16 = (uint16_t *)(void *)u8;
    for (size_t i = 0; u8 != NULL && i < n; i++) {
        if (dtype == IO_U8) u8[i] = (uint8_t)voxels[i];
        else u16[i] = (uint16_t)voxels[i];
    }
    return u8;
}

static int copy(const char *in, const char *out, const char *type) {
    segfm_error e = {0};
    io_nifti image;
    io_dtype dtype = strcmp(type, "uint8") == 0 ? IO_U8 : strcmp(type, "uint16") == 0 ? IO_U16 : IO_F32;
    segfm_status status = io_nifti_read(in, &image, &e);
    if (status != SEGFM_OK) return fail(&e);
    size_t n = volume_voxels(&image);
    float *voxels = malloc(n * sizeof *voxels);
    void *converted = NULL;
    if (voxels == NULL) status = base_fail(&e, SEGFM_NO_MEMORY, "out of memory");
    if (status == SEGFM_OK) status = io_nifti_voxels(&image, 0, voxels, &e);
    if (status == SEGFM_OK && dtype != IO_F32) {
        converted = convert(voxels, n, dtype);
        if (converted == NULL) status = base_fail(&e, SEGFM_NO_MEMORY, "out of memory");
    }
    if (status == SEGFM_OK)
        status = io_nifti_write_like(out, &image, dtype, converted != NULL ? converted : voxels, &e);
    free(converted);
    free(voxels);
    io_nifti_free(&image);
    return status == SEGFM_OK ? 0 : fail(&e);
}

static void print_image(const io_nifti *image) {
    printf("version %d\n", image->version);
    printf("big_endian %d\n", image->big_endian);
    printf("shape %lld %lld %lld %lld\n", (long long)image->nx, (long long)image->ny, (long long)image->nz,
           (long long)image->volumes);
    printf("datatype %d\n", image->datatype);
    printf("spacing %.17g %.17g %.17g\n", image->spacing[0], image->spacing[1], image->spacing[2]);
    printf("scaling %.17g %.17g\n", image->slope, image->inter);
    printf("affine");
    for (int i = 0; i < 12; i++) printf(" %.17g", image->affine[i / 4][i % 4]);
    printf("\nextensions %zu\n", image->extensions.size);
}

static int dump(const char *in, const char *out) {
    segfm_error e = {0};
    io_nifti image;
    io_buffer raw = {0};
    segfm_status status = io_nifti_read(in, &image, &e);
    if (status != SEGFM_OK) return fail(&e);
    size_t bytes = volume_voxels(&image) * sizeof(float);
    status = io_buffer_reserve(&raw, bytes * (size_t)image.volumes, &e);
    for (int64_t t = 0; t < image.volumes && status == SEGFM_OK; t++) {
        status = io_nifti_voxels(&image, t, (float *)(void *)(raw.data + raw.size), &e);
        raw.size += bytes;
    }
    if (status == SEGFM_OK) status = io_write_file(out, raw.data, raw.size, &e);
    if (status == SEGFM_OK) print_image(&image);
    io_buffer_free(&raw);
    io_nifti_free(&image);
    return status == SEGFM_OK ? 0 : fail(&e);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: nifti_roundtrip IN OUT DTYPE | nifti_roundtrip --dump IN OUT.raw\n");
        return SEGFM_BAD_USAGE;
    }
    return strcmp(argv[1], "--dump") == 0 ? dump(argv[2], argv[3]) : copy(argv[1], argv[2], argv[3]);
}
