#include <math.h>

#include "fuzz.h"

static void read_voxels(const io_nifti *image, int64_t index) {
    size_t count = image->data.size / (size_t)image->volumes / io_dtype_size(image->dtype);
    segfm_error error = {0};
    float *voxels = malloc(count * sizeof *voxels);
    uint16_t *labels = malloc(count * sizeof *labels);
    fuzz_require(count == (size_t)(image->nx * image->ny * image->nz));
    if (voxels != NULL) (void)io_nifti_voxels(image, index, voxels, &error);
    if (labels != NULL) (void)io_nifti_labels(image, index, labels, &error);
    free(voxels);
    free(labels);
}

FUZZ(nifti) {
    io_nifti image;
    segfm_error error = {0};
    if (fuzz_took(io_nifti_parse(bytes, n, &image, &error), &error)) {
        for (int i = 0; i < 3; i++) fuzz_require(image.spacing[i] > 0 && image.spacing[i] < (double)INFINITY);
        read_voxels(&image, 0);
        read_voxels(&image, image.volumes - 1);
        fuzz_require(io_nifti_voxels(&image, image.volumes, NULL, &error) == SEGFM_BAD_INPUT);
        io_nifti_free(&image);
    }
    fuzz_require(image.data.data == NULL && image.extensions.data == NULL);
}
