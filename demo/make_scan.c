/* make_scan OUT.nii.gz: a small labelled-looking scan for the demo where no real one can be fetched: a head-like ellipsoid with
   a skull, two ventricles and a bright lesion, smooth shading and noise. Same file on every machine. */
#include <stdio.h>
#include <stdlib.h>

#include "../io/io.h"
#include "../weights/weights.h"

enum { NX = 84, NY = 100, NZ = 44 };

/* Squared distance from the centre in units of the radii: below 1 is inside. */
static double ellipsoid(double x, double y, double z, const double c[6]) {
    double a = (x - c[0]) / c[3], b = (y - c[1]) / c[4], d = (z - c[2]) / c[5];
    return a * a + b * b + d * d;
}

static double tissue(double x, double y, double z) {
    static const double head[6] = {42, 50, 22, 38, 46, 21}, brain[6] = {42, 50, 22, 33, 41, 17};
    static const double left[6] = {34, 50, 24, 4, 14, 6}, right[6] = {50, 50, 24, 4, 14, 6},
                        lesion[6] = {41, 53, 21.5, 11, 13, 7.5};
    if (ellipsoid(x, y, z, head) > 1) return 0;
    if (ellipsoid(x, y, z, brain) > 1) return 170;
    if (ellipsoid(x, y, z, lesion) < 1) return 210;
    if (ellipsoid(x, y, z, left) < 1 || ellipsoid(x, y, z, right) < 1) return 40;
    return 110;
}

int main(int argc, char **argv) {
    const double spacing[3] = {2, 2, 3.5};
    static unsigned char voxels[NX * NY * NZ];
    segfm_error error = {0};
    io_nifti image = {0};
    if (argc != 2) {
        fputs("usage: make_scan OUT.nii.gz\n", stderr);
        return SEGFM_BAD_USAGE;
    }
    for (int i = 0; i < NX * NY * NZ; i++) {
        int x = i % NX, y = i / NX % NY, z = i / NX / NY;
        double noise = 24 * (weights_uniform("demo.noise", (uint64_t)i) - 0.5);
        double v = tissue(x, y, z) * (1 + 0.15 * ((double)y / NY - 0.5)) + 12 + noise;
        voxels[i] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
    io_nifti_init(&image, NX, NY, NZ, spacing);
    segfm_status status = io_nifti_write_like(argv[1], &image, IO_U8, voxels, &error);
    io_nifti_free(&image);
    if (status != SEGFM_OK) fprintf(stderr, "make_scan: %s: %s\n", error.where, error.message);
    return (int)status;
}
